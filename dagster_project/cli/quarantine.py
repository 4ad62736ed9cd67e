"""Commands on what failed: quarantine and retry.

Here: options, words, exit status. Not here: work.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from dagster_project.cli.names import (
    SHARD_OPTION,
    STAGE_OPTION,
    UNIT_OPTION,
    check_names,
)
from dagster_project.cli.stage_settings import CONFIG_OPTION, SET_OPTION, read_settings
from dagster_project.cli.terminal import (
    JSON_OPTION,
    LAKE_OPTION,
    WORKERS_OPTION,
    count_of,
    existing_lake,
    hanging,
    ledger_of,
    plain,
    progress_bar,
    report,
)
from ego_assets.feature import LAKE
from resources.ledger import Entry, State


@click.group()
def quarantine() -> None:
    """List, release or drop clips, videos and files that are not tried again."""


@quarantine.command("ls")
@LAKE_OPTION
@STAGE_OPTION
@SHARD_OPTION
@JSON_OPTION
def quarantine_ls(lake_root: str, stage: str | None, shard: str | None, as_json: bool) -> None:
    """List it, with the reasons."""
    entries = _quarantined(lake_root, stage, shard, None)
    if as_json:
        click.echo(json.dumps([_entry(e) for e in entries]))
        return
    click.echo(f"{len(entries)} in quarantine")
    width = Console().width
    for entry in entries:
        reason = (entry.error or "").split("\n", 1)[0]
        click.echo(plain(f"{entry.stage} {entry.item_id}").plain)
        words = f"  shard {entry.shard}, {count_of(entry.attempts, 'attempt')}: {reason}"
        click.echo(hanging(words, 2, width))


@quarantine.command("show")
@click.argument("unit")
@LAKE_OPTION
@STAGE_OPTION
@JSON_OPTION
def quarantine_show(unit: str, lake_root: str, stage: str | None, as_json: bool) -> None:
    """Show all that is known of UNIT's failure: stack, signal, last log lines."""
    entries = _quarantined(lake_root, stage, None, unit)
    if not entries:
        raise click.ClickException(f"{unit} is not in quarantine: `ego quarantine ls` lists it")
    if as_json:
        click.echo(json.dumps([_entry(e) for e in entries]))
        return
    for entry in entries:
        words = (
            f"{entry.stage} {entry.item_id} of shard {entry.shard}\n"
            f"video {entry.video_id}, run {entry.run_id}, worker {entry.worker}\n"
            f"{count_of(entry.attempts, 'attempt')}, {entry.error_class}\n\n{entry.error}\n"
        )
        click.echo(plain(words).plain)


@quarantine.command("release")
@LAKE_OPTION
@STAGE_OPTION
@SHARD_OPTION
@UNIT_OPTION
@click.option("--all", "everything", is_flag=True, help="All of it.")
@JSON_OPTION
def quarantine_release(
    lake_root: str,
    stage: str | None,
    shard: str | None,
    unit: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Have the next run try it again."""
    if not (stage or shard or unit or everything):
        raise click.UsageError("say what: --table, --shard, --unit, or --all")
    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    check_names(lake, ledger, shard, unit)
    count = ledger.release(stage=stage, shard=shard, item_id=unit)
    click.echo(json.dumps({"released": count}) if as_json else f"{count} released")


@quarantine.command("drop")
@LAKE_OPTION
@STAGE_OPTION
@SHARD_OPTION
@UNIT_OPTION
@JSON_OPTION
def quarantine_drop(
    lake_root: str, stage: str | None, shard: str | None, unit: str | None, as_json: bool
) -> None:
    """Give it up: it no longer counts as a failure, and no run tries it again.

    `ego quarantine release --unit UNIT` takes that back.
    """
    if not (stage or shard or unit):
        raise click.UsageError("say what: --table, --shard, or --unit")
    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    check_names(lake, ledger, shard, unit)
    count = ledger.drop(stage=stage, shard=shard, item_id=unit)
    if unit and not count:
        found = ledger.entries(stage=stage, shard=shard, item_id=unit)
        if not any(entry.state is State.DROPPED for entry in found):
            states = ", ".join(f"{e.stage} is {e.state.value}" for e in found) or "nothing is known"
            raise click.ClickException(f"nothing of {unit} is in quarantine: {states}")
    click.echo(json.dumps({"dropped": count}) if as_json else f"{count} dropped")


@click.command()
@LAKE_OPTION
@STAGE_OPTION
@SHARD_OPTION
@UNIT_OPTION
@WORKERS_OPTION
@SET_OPTION
@CONFIG_OPTION
@click.option("--verbose", is_flag=True, help="Show Dagster's log.")
@JSON_OPTION
def retry(
    lake_root: str,
    stage: str | None,
    shard: str | None,
    unit: str | None,
    workers: int,
    given: tuple[str, ...],
    config_file: Path | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Release what failed or is in quarantine, and run the shards that are not finished.

    Exit status as of `ego run`.
    """
    from dagster_project.runs import run_shards
    from ego_assets.intake.sources import revive

    lake = existing_lake(lake_root)
    settings = read_settings(given, config_file)
    ledger = ledger_of(lake)
    check_names(lake, ledger, shard, unit)
    ledger.release(stage=stage, shard=shard, item_id=unit)
    revive(lake, ledger, shard)
    unfinished = [State.PENDING, State.RUNNING, State.FAILED]
    waiting = ledger.entries(stage=stage, shard=shard, item_id=unit, states=unfinished)
    shards = sorted({e.shard for e in waiting} - {LAKE})
    if not shards:
        click.echo(json.dumps({"shards": []}) if as_json else "nothing to do")
        return
    with progress_bar() as tell:
        summary = run_shards(
            lake.location,
            shards,
            workers=workers,
            verbose=verbose,
            settings=settings,
            tell=tell,
        )
    report(summary, as_json)


def _quarantined(
    lake_root: str, stage: str | None, shard: str | None, unit: str | None
) -> list[Entry]:
    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    check_names(lake, ledger, shard, unit)
    return ledger.entries(stage=stage, shard=shard, item_id=unit, states=[State.QUARANTINED])


def _entry(entry: Entry) -> dict[str, Any]:
    return entry.told()
