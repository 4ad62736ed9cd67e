"""Refuses names on the command line that are not in the lake, and suggests what was meant."""

from __future__ import annotations

from collections.abc import Iterable

import click

from ego_assets.models.suggestions import did_you_mean
from resources.lake import Lake
from resources.ledger import Ledger, State

BAD = (State.QUARANTINED, State.FAILED, State.DROPPED)
LOOKED_AT = 5_000


class TableOption(click.Option):
    """An option `--table` that also has an earlier name, `--stage`, which help does not show."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        found = super().get_help_record(ctx)
        return found and (found[0].replace(", --stage", ""), found[1])


def check_shards(lake: Lake, given: Iterable[str]) -> None:
    """Raise click.ClickException for a shard that the lake does not have."""
    if not (given := list(given)):
        return
    known = lake.shards()
    for shard in given:
        if shard not in known:
            more = did_you_mean(shard, known)
            raise click.ClickException(f"there is no shard {shard} in {lake.location}{more}")


def check_names(lake: Lake, ledger: Ledger, shard: str | None, unit: str | None) -> None:
    """As `check_shards`, and for a clip, video or file of which the ledger knows nothing."""
    check_shards(lake, [shard] if shard else [])
    if unit is None or ledger.entries(unit_id=unit, limit=1):
        return
    known = {e.unit_id for e in ledger.entries(states=BAD, limit=LOOKED_AT)}
    raise click.ClickException(
        f"there is no clip, video or file {unit} in {lake.location}{did_you_mean(unit, known)}"
    )
