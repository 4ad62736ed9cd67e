"""Commands that look after a lake: verify, rebuild-ledger, stale, report, accept-drift.

Here: options, words, exit status. Not here: work.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from dagster_project.cli.footage import erase_with_dagster
from dagster_project.cli.names import (
    SHARDS_OPTION,
    TableName,
    check_shards,
)
from dagster_project.cli.terminal import (
    JSON_OPTION,
    LAKE_OPTION,
    WORKERS_OPTION,
    count_of,
    existing_lake,
    ledger_of,
    plain,
    progress_bar,
    report,
)
from ego_assets.catalog import TABLES
from ego_assets.upkeep.problems import FORGOTTEN
from resources.lake import Lake
from resources.ledger import Ledger


@click.command()
@LAKE_OPTION
@SHARDS_OPTION
@click.option(
    "--repair",
    "mend",
    is_flag=True,
    help="Put bad files aside, requeue their clips, enter what the ledger does not know.",
)
@JSON_OPTION
def verify(lake_root: str, shards: tuple[str, ...], mend: bool, as_json: bool) -> None:
    """Read the whole lake and compare it with its checksums, its contract and the ledger.

    Exit status: 0 if all is well, or was repaired (`ego retry` then makes the rows again); 1 if
    not.
    """
    from ego_assets.upkeep import audit

    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    check_shards(lake, shards)
    problems = audit.verify(lake, ledger, shards or None)
    forgotten = {u for p in problems if p.kind == FORGOTTEN for u in p.units}
    repaired: dict[str, int] | None = None
    if mend:
        if forgotten:
            _forget_again(lake, ledger, forgotten)
        repaired = audit.repair(lake, ledger, problems) | {"forgotten": len(forgotten)}
    counts = {t: {s.value: n for s, n in c.items()} for t, c in ledger.counts().items()}
    if as_json:
        content = {"lake": lake.location, "problems": [asdict(p) for p in problems]}
        click.echo(json.dumps(content | {"repaired": repaired, "states": counts}))
    else:
        for problem in problems:
            click.echo(str(problem))
        click.echo(f"{count_of(len(problems), 'problem')} in {lake.location}")
        if repaired is not None and problems:
            click.echo(
                f"put aside {count_of(repaired['files'], 'file')}, "
                f"requeued {count_of(repaired['units'], 'unit')}, "
                f"wrote {count_of(repaired['checksums'], 'checksum')}, "
                f"entered {count_of(repaired['taken_over'], 'result')} into the ledger, "
                f"forgot {count_of(repaired['forgotten'], 'video')} for good; "
                "`ego retry` makes the rows again"
            )
        elif problems:
            click.echo(
                "`ego verify --repair` puts bad files aside, requeues what they held, and enters "
                "into the ledger what it does not know"
            )
    sys.exit(1 if problems and not mend else 0)


def _forget_again(lake: Lake, ledger: Ledger, videos: set[str]) -> None:
    """Go on with the erasure of videos, and erase what is there of them again."""
    from ego_assets.upkeep.erasure.erase import ForgetError, resume

    try:
        done = erase_with_dagster(
            lake.location, lambda beyond: resume(lake, ledger, videos, beyond), set()
        )
    except ForgetError as error:
        raise click.ClickException(str(error)) from error
    for words in sorted({words for each in done for words in each.warnings}):
        click.echo(plain(f"left to do: {words}").plain, err=True)


@click.command("rebuild-ledger")
@LAKE_OPTION
@JSON_OPTION
def rebuild_ledger(lake_root: str, as_json: bool) -> None:
    """Enter into the ledger all results in the lake that it does not know.

    For a ledger that was lost or is older than the lake. Safe at any time: what the ledger knows,
    and what workers are at, stays as it is. A SQLite file that is damaged is put aside first. What
    no file of the lake holds is lost with a ledger: the reasons of failures, quarantine, and what
    was dropped. Exit status: 0 if all could be read, 1 if not.
    """
    from ego_assets.upkeep.recovery.rebuild import rebuild

    lake = existing_lake(lake_root)
    made = rebuild(lake, ledger_of(lake, as_it_is=True))
    counts = {t: {"found": made.found[t], "entered": made.entered[t]} for t in TABLES}
    if as_json:
        content = {"lake": lake.location, "tables": counts, "put_aside": made.put_aside}
        click.echo(json.dumps(content | {"problems": made.problems, "seconds": made.seconds}))
    else:
        for path in made.put_aside:
            click.echo(f"the ledger was damaged: it is {path} now")
        table = Table(title=plain(f"the ledger of {lake.location}"))
        table.add_column("table")
        for name in ("in the lake", "entered"):
            table.add_column(name, justify="right")
        for name, count in counts.items():
            table.add_row(name, f"{count['found']:,}", f"{count['entered']:,}")
        Console().print(table)
        for problem in made.problems:
            click.echo(problem)
        click.echo(str(made))
    sys.exit(1 if made.problems else 0)


@click.command()
@LAKE_OPTION
@SHARDS_OPTION
@click.option("--run", "run_them", is_flag=True, help="Do them again.")
@WORKERS_OPTION
@click.option("--verbose", is_flag=True, help="Show Dagster's log.")
@JSON_OPTION
def stale(
    lake_root: str,
    shards: tuple[str, ...],
    run_them: bool,
    workers: int,
    verbose: bool,
    as_json: bool,
) -> None:
    """List what another operator version, settings or weights would make differently, by shard.

    Judged by what was chosen for a shard in the launchpad, else by the default settings and
    backends. Exit status with --run as of `ego run`.
    """
    from dagster_project.runs import run_shards
    from ego_assets.graph.backends import Backends
    from ego_assets.graph.recipes import Recipes
    from ego_assets.upkeep.recovery.differences import find_differences
    from ego_assets.upkeep.staleness import find_stale
    from resources.storage import Storage

    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    check_shards(lake, shards)
    recipes = Recipes(Storage(lake_root=lake.location), Backends())
    chosen = shards or lake.shards()
    differences = find_differences(lake, ledger)
    # About these the ledger is wrong: the rows in the lake say what they were made with.
    by_lake = differences.shards
    looked = list(find_stale(lake, ledger, recipes.of, chosen, by_lake))
    found = [s for s in looked if s.items]
    if words := str(differences):
        click.echo(words, err=True)
    for each in looked:
        if each.problem:
            click.echo(f"{each.shard} cannot be judged: {each.problem}", err=True)
    if run_them and found:
        names = [s.shard for s in found]
        with progress_bar() as tell:
            summary = run_shards(lake.location, names, workers=workers, verbose=verbose, tell=tell)
        report(summary, as_json)
    elif as_json:
        click.echo(json.dumps({s.shard: s.items for s in found}))
    else:
        for each in found:
            click.echo(f"{each.shard}: {', '.join(f'{n} {t}' for t, n in each.items.items())}")
        count = count_of(len(found), "stale shard")
        if by_lake & set(chosen):
            count = f"{count if found else 'no stale shards'}, by what lies in the lake"
        click.echo(count + ("; --run does them again" if found else ""))


@click.command("report")
@LAKE_OPTION
@click.option("--days", type=click.IntRange(1, 366), default=1, show_default=True)
@JSON_OPTION
def report_command(lake_root: str, days: int, as_json: bool) -> None:
    """Write the report of the last DAYS into the lake (Markdown and HTML), and say where it is."""
    from datetime import UTC, datetime

    from dagster_project.home import open_instance
    from ego_assets.upkeep.reports.gather import DAY_S, write_report
    from sensors.report_events import events_between, shown

    lake, until = existing_lake(lake_root), datetime.now(UTC)
    with open_instance(lake.location) as instance:
        end = until.timestamp()
        events = events_between(instance, end - days * DAY_S, end)
        written = write_report(lake, ledger_of(lake), events, until, days)
        instance.report_runless_asset_event(shown(lake, written))
    if as_json:
        places = {"markdown": written.markdown_key, "html": written.html_key}
        places = {kind: lake.storage.uri(key) for kind, key in places.items()}
        click.echo(json.dumps({"facts": written.facts} | places))
        return
    for name, value in written.facts.items():
        click.echo(f"{name}: {value}")
    click.echo(lake.storage.uri(written.html_key))


@click.command("accept-drift")
@click.argument("tables", nargs=-1, required=True, type=TableName(["all"]), metavar="TABLES...")
@LAKE_OPTION
def accept_drift(tables: tuple[str, ...], lake_root: str) -> None:
    """Say that the shift of TABLES (or `all`) was meant: baselines of drift start over."""
    from ego_assets.quality.baselines import accept

    begun = accept(existing_lake(lake_root), list(TABLES) if "all" in tables else tables)
    click.echo(f"starts over: {', '.join(begun)}" if begun else "there was no baseline")


UPKEEP = (verify, rebuild_ledger, stale, report_command, accept_drift)
