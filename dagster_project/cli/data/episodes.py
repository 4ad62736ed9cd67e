"""Commands that say what footage is good for: yield.

Here: options, words, exit status. Not here: work.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from dagster_project.cli.names import SHARDS_OPTION, check_shards
from dagster_project.cli.terminal import JSON_OPTION, LAKE_OPTION, count_of, existing_lake, plain

if TYPE_CHECKING:
    from ego_assets.episodes.waterfall import Waterfall


@click.command("yield")
@LAKE_OPTION
@SHARDS_OPTION
@JSON_OPTION
def yield_(lake_root: str, shards: tuple[str, ...], as_json: bool) -> None:
    """Show how much footage becomes episodes, and which rule drops the rest.

    Every second of footage counts once: it is kept, or the first rule that drops it has it.
    """
    from ego_assets.episodes.waterfall import waterfall_of

    lake = existing_lake(lake_root)
    check_shards(lake, shards)
    found, made = waterfall_of(lake, shards)
    if as_json:
        click.echo(json.dumps({"lake": lake.location, "shards": made} | found.as_json()))
        return
    if not made:
        click.echo(
            f"nothing has been made into episodes in {lake.location}: `ego run` does it, or a "
            "materialization of their group in the UI"
        )
        return
    show_waterfall(found, f"yield of {lake.location}", Console())


def show_waterfall(found: Waterfall, title: str, console: Console) -> None:
    """Print what each rule drops, and what is kept."""
    table = Table(title=plain(title))
    table.add_column("")
    for name in ("time", "share", "left"):
        table.add_column(name, justify="right")
    left = found.total_s
    table.add_row("all footage", _span(left), "100.0 %", "")
    for name, lost in found.seconds.items():
        if lost and name != "kept":
            left -= lost
            table.add_row(name, f"-{_span(lost)}", _share(lost, found.total_s), _span(left))
    table.add_row("kept", _span(found.kept_s), _share(found.kept_s, found.total_s), "")
    console.print(table)
    console.print(f"{count_of(found.episodes, 'episode')} of {count_of(found.videos, 'video')}")


def _span(seconds: float) -> str:
    """Hours for what is long, seconds for what is not."""
    return f"{seconds / 3600:,.2f} h" if abs(seconds) >= 3600 else f"{seconds:,.1f} s"


def _share(part: float, whole: float) -> str:
    return f"{part / whole if whole else 0:.1%}".replace("%", " %")


EPISODES = (yield_,)
