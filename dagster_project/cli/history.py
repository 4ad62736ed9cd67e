"""Commands on where rows came from, and on earlier versions: trace, history, diff, rollback.

Here: options, words, exit status. Not here: work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from dagster_project.cli.names import (
    SHARD_OPTION,
    SHARDS_OPTION,
    STAGE_OPTION,
    TableName,
    TableOption,
    UnknownNameError,
    check_shards,
    did_you_mean_unit,
)
from dagster_project.cli.terminal import (
    JSON_OPTION,
    LAKE_OPTION,
    count_of,
    existing_lake,
    hanging,
    ledger_of,
    plain,
)
from ego_assets.catalog import TABLES
from ego_assets.models.suggestions import did_you_mean
from resources.lake import Lake, history

if TYPE_CHECKING:
    from ego_assets.upkeep.diff import TableDiff


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
@SHARDS_OPTION
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
@SHARDS_OPTION
@JSON_OPTION
def rollback(
    run: str, lake_root: str, tables: tuple[str, ...], shards: tuple[str, ...], as_json: bool
) -> None:
    """Make what RUN made current again, without writing any data.

    Later runs replace it as usual. `ego history` lists what can be brought back.
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


HISTORY = (trace, history_command, diff, rollback)
