"""Commands on what is in a lake: verify, quarantine, retry, trace. Not here: work."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from dagster_project.cli.names import (
    TableName,
    TableOption,
    UnknownNameError,
    check_names,
    check_shards,
    did_you_mean_unit,
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
from ego_assets.catalog import TABLES
from ego_assets.feature import LAKE
from ego_assets.models.suggestions import did_you_mean
from resources.lake import Lake, history
from resources.ledger import Entry, State

if TYPE_CHECKING:
    from ego_assets.upkeep.diff import TableDiff

STAGE_OPTION = click.option(
    "--table",
    "--stage",
    "stage",
    cls=TableOption,
    type=TableName(),
    help="Only this table.",
)
SHARD_OPTION = click.option("--shard", help="Only this shard.")
UNIT_OPTION = click.option("--unit", help="Only this clip (or video, or file).")


@click.command()
@LAKE_OPTION
@click.option("--shard", "shards", multiple=True, help="Only this shard; may be given again.")
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
    repaired = audit.repair(lake, ledger, problems) if mend else None
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
                f"entered {count_of(repaired['taken_over'], 'result')} into the ledger; "
                "`ego retry` makes the rows again"
            )
        elif problems:
            click.echo(
                "`ego verify --repair` puts bad files aside, requeues what they held, and enters "
                "into the ledger what it does not know"
            )
    sys.exit(1 if problems and not mend else 0)


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


@click.group()
def quarantine() -> None:
    """What is tried no more until a person says so."""


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
        click.echo(plain(f"{entry.stage} {entry.unit_id}").plain)
        words = f"  shard {entry.shard}, {count_of(entry.attempts, 'attempt')}: {reason}"
        click.echo(hanging(words, 2, width))


@quarantine.command("show")
@click.argument("unit")
@LAKE_OPTION
@STAGE_OPTION
@JSON_OPTION
def quarantine_show(unit: str, lake_root: str, stage: str | None, as_json: bool) -> None:
    """Everything that is known of UNIT's failure: stack, signal, last log lines."""
    entries = _quarantined(lake_root, stage, None, unit)
    if not entries:
        raise click.ClickException(f"{unit} is not in quarantine: `ego quarantine ls` lists it")
    if as_json:
        click.echo(json.dumps([_entry(e) for e in entries]))
        return
    for entry in entries:
        words = (
            f"{entry.stage} {entry.unit_id} of shard {entry.shard}\n"
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
    """Let the next run try again."""
    if not (stage or shard or unit or everything):
        raise click.UsageError("say what: --table, --shard, --unit, or --all")
    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    check_names(lake, ledger, shard, unit)
    count = ledger.release(stage=stage, shard=shard, unit_id=unit)
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
    """Give it up: it is no failure any more, and no run tries it again.

    `ego quarantine release --unit UNIT` takes that back.
    """
    if not (stage or shard or unit):
        raise click.UsageError("say what: --table, --shard, or --unit")
    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    check_names(lake, ledger, shard, unit)
    count = ledger.drop(stage=stage, shard=shard, unit_id=unit)
    if unit and not count:
        found = ledger.entries(stage=stage, shard=shard, unit_id=unit)
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
    ledger.release(stage=stage, shard=shard, unit_id=unit)
    revive(lake, ledger, shard)
    unfinished = [State.PENDING, State.RUNNING, State.FAILED]
    waiting = ledger.entries(stage=stage, shard=shard, unit_id=unit, states=unfinished)
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


@click.command()
@LAKE_OPTION
@click.option("--shard", "shards", multiple=True, help="Only this shard; may be given again.")
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
    found = [s for s in looked if s.units]
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
        click.echo(json.dumps({s.shard: s.units for s in found}))
    else:
        for each in found:
            click.echo(f"{each.shard}: {', '.join(f'{n} {t}' for t, n in each.units.items())}")
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
    """Say that the shift of TABLES (or `all`) was meant: the drift probes' baselines begin anew."""
    from ego_assets.quality.baselines import accept

    begun = accept(existing_lake(lake_root), list(TABLES) if "all" in tables else tables)
    click.echo(f"begins anew: {', '.join(begun)}" if begun else "there was no baseline")


@click.command()
@click.argument("what")
@LAKE_OPTION
@JSON_OPTION
def trace(what: str, lake_root: str, as_json: bool) -> None:
    """Print where WHAT came from: a clip_id, TABLE/CLIP, a video_id, or a Parquet file.

    The chain goes from the rows over the file, run, configuration, code and weights to the raw
    video.
    """
    from ego_assets.upkeep.trace import NothingFoundError
    from ego_assets.upkeep.trace import trace as find

    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    try:
        found = find(lake, ledger, what)
    except NothingFoundError as error:
        hint = did_you_mean_unit(ledger, what.rpartition("/")[2])
        raise UnknownNameError(f"{error}{hint}") from error
    click.echo(json.dumps(found, default=str) if as_json else plain(_chain(found)).plain)


@click.command("history")
@LAKE_OPTION
@STAGE_OPTION
@SHARD_OPTION
@JSON_OPTION
def history_command(lake_root: str, stage: str | None, shard: str | None, as_json: bool) -> None:
    """List the versions of every table that are kept, and the runs that made them."""
    lake = existing_lake(lake_root)
    check_shards(lake, [shard] if shard else [])
    found: list[dict[str, Any]] = [
        {
            "table": table,
            "shard": key,
            "version": version.name,
            "made_at": version.made_at,
            "runs": dict(version.runs),
        }
        for key in ([shard] if shard else lake.shards())
        for table in ([stage] if stage else TABLES)
        for version in history.versions(lake, table, key)
    ]
    if as_json:
        click.echo(json.dumps(found))
        return
    before, width = None, Console().width
    for row in found:
        if (name := f"{row['shard']} {row['table']}") != before:
            click.echo(plain(name).plain)
            before = name
        click.echo(hanging(f"  {row['version']}, made at {row['made_at'][:19]}Z by", 4, width))
        for run, units in row["runs"].items():
            click.echo(hanging(f"   {run}: {count_of(units, 'unit')}", 5, width))


@click.command()
@click.argument("run_a")
@click.argument("run_b")
@LAKE_OPTION
@click.option("--shard", "shards", multiple=True, help="Only this shard; may be given again.")
@JSON_OPTION
def diff(run_a: str, run_b: str, lake_root: str, shards: tuple[str, ...], as_json: bool) -> None:
    """Compare what RUN_A and RUN_B made of the same shards: rows, distributions, seam errors.

    A run is named by its id in the Dagster UI, or by as much of its start as is unique.
    """
    from ego_assets.upkeep.diff import NothingToCompareError, diff_runs

    lake = existing_lake(lake_root)
    check_shards(lake, shards)
    names = (_run_id(lake, run_a, shards), _run_id(lake, run_b, shards))
    try:
        found = diff_runs(lake, names[0], names[1], shards or None)
    except NothingToCompareError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([asdict(d) for d in found]))
        return
    click.echo(plain(f"A: {names[0]}\nB: {names[1]}").plain)
    width = Console().width
    for each in found:
        click.echo()
        click.echo("\n".join(hanging(line, 4, width) for line in _compared(each)))


@click.command()
@click.argument("run")
@LAKE_OPTION
@click.option(
    "--table",
    "--stage",
    "tables",
    cls=TableOption,
    multiple=True,
    type=TableName(),
    help="Only this table; may be given again.",
)
@click.option("--shard", "shards", multiple=True, help="Only this shard; may be given again.")
@JSON_OPTION
def rollback(
    run: str, lake_root: str, tables: tuple[str, ...], shards: tuple[str, ...], as_json: bool
) -> None:
    """Make what RUN made current again, without writing any data anew.

    What is run from now on replaces it as ever. `ego history` lists what can be brought back.
    """
    from ego_assets.upkeep.rollback import RollbackError
    from ego_assets.upkeep.rollback import rollback as bring_back

    lake = existing_lake(lake_root)
    check_shards(lake, shards)
    ledger = ledger_of(lake)
    try:
        changes = bring_back(
            lake, ledger, _run_id(lake, run, shards), tables=tables or None, shards=shards or None
        )
    except RollbackError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([asdict(c) for c in changes]))
        return
    for change in changes:
        how = "was current already" if change.was_current else "is current again"
        again = f"; {count_of(change.requeued, 'unit')} to be done again" if change.requeued else ""
        click.echo(
            f"{change.shard} {change.table}: {how} ({count_of(change.units, 'unit')}){again}"
        )


LAKE_COMMANDS = (
    verify,
    rebuild_ledger,
    quarantine,
    retry,
    stale,
    report_command,
    accept_drift,
    trace,
    history_command,
    diff,
    rollback,
)


def _compared(found: TableDiff) -> list[str]:
    """What two runs made of a table of a shard, in lines."""
    lines = [
        f"{found.shard} {found.table}",
        f"  rows: {found.rows_a:,} in A, {found.rows_b:,} in B; {found.equal:,} equal, "
        f"{found.changed:,} changed, {found.only_a:,} only in A, {found.only_b:,} only in B",
    ]
    if found.seam_unit:
        seams = ["none" if s is None else f"{s:.3g}" for s in (found.seam_a, found.seam_b)]
        lines.append(f"  seam error: {seams[0]} in A, {seams[1]} in B ({found.seam_unit})")
    for column in [c for c in found.columns if c.ks][:3]:
        lines.append(
            f"  {column.column}: mean {column.mean_a:.4g} in A, {column.mean_b:.4g} in B, "
            f"Kolmogorov-Smirnov distance {column.ks:.2f}"
        )
    return lines


def _run_id(lake: Lake, given: str, shards: Sequence[str]) -> str:
    """The run that `given` begins, among those whose rows the lake keeps (of `shards`, if any)."""
    known = {
        run
        for shard in shards or lake.shards()
        for table in TABLES
        for version in history.versions(lake, table, shard)
        for run in version.runs
    }
    if given in known:
        return given
    found = sorted(r for r in known if r.startswith(given))
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownNameError(f"{given} may be {', '.join(found)}")
    raise UnknownNameError(
        f"nothing that a run {given} made is kept in {lake.location}"
        f"{did_you_mean(given, known)} (`ego history` lists what is)"
    )


def _quarantined(
    lake_root: str, stage: str | None, shard: str | None, unit: str | None
) -> list[Entry]:
    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    check_names(lake, ledger, shard, unit)
    return ledger.entries(stage=stage, shard=shard, unit_id=unit, states=[State.QUARANTINED])


def _entry(entry: Entry) -> dict[str, Any]:
    return asdict(entry)


def _chain(found: dict[str, Any]) -> str:
    """A trace as indented lines."""
    lines: list[str] = []
    for name in ("video", "clip"):
        if name in found:
            lines.append(name)
            lines += [f"  {k}: {v}" for k, v in found[name].items() if v is not None]
    if "clips" in found:
        lines.append(f"clips: {', '.join(found['clips'])}")
    units = found.get("tables") or found.get("units") or {}
    for name, known in units.items():
        rows = f" ({count_of(known['rows'], 'row')})" if "rows" in known else ""
        lines.append(f"{name}{rows}")
        origin = known.get("provenance", known)
        if origin is None:
            state = (known.get("ledger") or {}).get("state", "not reached")
            lines.append(f"  no rows: {state}")
            continue
        lines += [f"  {k}: {v}" for k, v in origin.items() if v not in ("", None)]
    return "\n".join(lines)
