"""`ego`: the command line. Here: options, words, exit status. Not here: work.

Dagster takes a second to import: only the commands that need it do.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dagster_project.lake_commands import LAKE_COMMANDS
from dagster_project.terminal import (
    BACKENDS_OPTION,
    DEGRADE_OPTION,
    JSON_OPTION,
    LAKE_OPTION,
    WORKERS_OPTION,
    Commands,
    existing_lake,
    ledger_of,
    progress_bar,
    report,
)
from ego_assets.schemas import TABLES
from resources.lake import Lake
from resources.ledger import Ledger, State


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="ego-assets", prog_name="ego")
def main() -> None:
    """Turn first-person video into robot-learning data."""


@main.command()
@click.argument("places", nargs=-1, required=True)
@LAKE_OPTION
@WORKERS_OPTION
@BACKENDS_OPTION
@click.option("--force", is_flag=True, help="Do again what is done, and what is in quarantine.")
@DEGRADE_OPTION
@click.option("--verbose", is_flag=True, help="Show Dagster's log.")
@JSON_OPTION
def run(
    places: tuple[str, ...],
    lake_root: str,
    workers: int,
    force: bool,
    degrade_after_s: float | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run the whole graph over the videos in PLACES: files, folders, s3://bucket/prefix.

    Exit status: 0 if nothing failed (a rejected video is no failure unless all are), 1 if
    something failed, 2 if the command makes no sense.
    """
    summary = _run(
        places,
        lake_root,
        force=force,
        workers=workers,
        verbose=verbose,
        degrade_after_s=degrade_after_s,
    )
    report(summary, as_json)


@main.command()
@click.option(
    "--lake",
    "lake_root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".ego/demo/lake"),
    show_default=True,
    help="Folder of the tables.",
)
@click.option("--videos", type=click.IntRange(1, 100), default=2, show_default=True)
@click.option("--duration-s", type=click.FloatRange(2, 120), default=8.0, show_default=True)
@WORKERS_OPTION
@JSON_OPTION
def demo(lake_root: Path, videos: int, duration_s: float, workers: int, as_json: bool) -> None:
    """Make sample videos, run the whole graph over them, and say where to look."""
    from samples import render_sample

    raw = lake_root.parent / "raw"
    say = Console(stderr=True)
    for seed in range(videos):
        name = f"sample_{seed:03d}_{duration_s:g}s"
        if not (raw / f"{name}.mp4").exists():
            say.print(f"rendering {name}.mp4")
            scenes = 2 if seed % 2 else 1
            render_sample(raw, seed=seed, duration_s=duration_s, scenes=scenes, name=name)
    summary = _run((str(raw),), lake_root, force=False, workers=workers, verbose=False)
    if not as_json:
        say.print(f"\nLook at it: [bold]ego up --lake {lake_root}[/bold] opens the Dagster UI")
    report(summary, as_json)


@main.command()
@LAKE_OPTION
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@BACKENDS_OPTION
def up(lake_root: str, port: int, host: str) -> None:
    """Start the Dagster UI and its daemon on this lake. Ctrl-C stops both."""
    from dagster_project.home import ROOT, open_instance, prepare_home
    from dagster_project.up import run_dagster
    from ego_assets.partitions import SHARDS

    lake = Lake(lake_root)
    ledger_of(lake).open()
    prepare_home(lake.location)
    with open_instance(lake.location) as instance:
        instance.add_dynamic_partitions(SHARDS, lake.shards())
    workspace = ROOT / "workspace.yaml"
    target = (
        ["--workspace", str(workspace)]
        if workspace.exists()
        else ["--module-name", "dagster_project.definitions"]
    )
    arguments = ["dev", *target, "-h", host, "-p", str(port)]
    click.echo(f"Dagster UI of {lake.location}: http://{host}:{port}", err=True)
    sys.exit(max(run_dagster(arguments, {"EGO_LAKE": lake.location}), 0))


@main.command()
@LAKE_OPTION
@click.option("--watch", is_flag=True, help="Look again every 2 s until Ctrl-C.")
@click.option("--failures", "shown", default=50, show_default=True, help="List so many.")
@JSON_OPTION
def status(lake_root: str, watch: bool, shown: int, as_json: bool) -> None:
    """Show how many clips each stage has done, and what failed."""
    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    if as_json:
        click.echo(json.dumps(_status(lake, ledger, shown)))
        return
    console = Console()
    if not watch:
        console.print(_status_table(_status(lake, ledger, shown)))
        return
    with Live(console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            live.update(_status_table(_status(lake, ledger, shown)), refresh=True)
            time.sleep(2)


def _status(lake: Lake, ledger: Ledger, shown: int) -> dict[str, Any]:
    counts = ledger.counts()
    bad = ledger.entries(states=[State.QUARANTINED, State.FAILED], limit=shown)
    return {
        "lake": lake.location,
        "shards": lake.shards(),
        "stages": {
            t: {s.value: counts.get(t, {}).get(s, 0) for s in State} for t in TABLES if t in counts
        },
        "failures": [
            {
                "stage": e.stage,
                "shard": e.shard,
                "unit": e.unit_id,
                "state": e.state.value,
                "attempts": e.attempts,
                "reason": (e.error or "").split("\n", 1)[0],
            }
            for e in bad
        ],
        "waiting_for_gpu": [
            {"stage": stage, "shard": shard, "units": units, "reason": why}
            for stage, shard, units, why in ledger.waiting_for_gpu()
        ],
    }


def _status_table(found: dict[str, Any]) -> Group:
    # Narrow: eighty columns hold it.
    table = Table(
        title=f"{found['lake']}: {len(found['shards'])} shards", box=box.SIMPLE_HEAD, padding=(0, 0)
    )
    table.add_column("stage", no_wrap=True)
    for state in State:
        table.add_column(state.value, justify="right")
    for name, row in found["stages"].items():
        table.add_row(name, *[f"{row[s.value]:,}" for s in State])
    lines = [
        Text(f"{f['stage']} {f['unit']} {f['state']}: {f['reason']}") for f in found["failures"]
    ]
    lines += [
        Text(f"{w['stage']} of {w['shard']}: {w['units']} wait for a GPU: {w['reason']}")
        for w in found["waiting_for_gpu"]
    ]
    bad = sum(row["failed"] + row["quarantined"] for row in found["stages"].values())
    if bad > len(lines):
        lines.append(Text(f"… {bad - len(lines)} more: `ego quarantine ls` lists them"))
    return Group(table, *lines)


@main.command()
@LAKE_OPTION
@BACKENDS_OPTION
@click.option("--tune", is_flag=True, help="Measure which batches fit the device, and keep that.")
@JSON_OPTION
def doctor(lake_root: str, tune: bool, as_json: bool) -> None:
    """Check what works on this machine: GPUs, codecs, backends and their weights."""
    from dagster_project.doctor import examine

    findings = examine(lake_root, tune=tune)
    if as_json:
        click.echo(json.dumps([asdict(f) for f in findings], indent=1))
    else:
        table = Table(show_header=False, box=None)
        colors = {"ok": "green", "warning": "yellow", "missing": "red"}
        for finding in findings:
            color = colors[finding.state]
            table.add_row(f"[{color}]{finding.state}[/]", finding.what, finding.facts)
        Console().print(table)
    sys.exit(1 if any(f.state == "missing" for f in findings) else 0)


def _run(places: tuple[str, ...], lake_root: str | Path, **options: Any) -> Any:
    from dagster_project.run_graph import run_paths

    try:
        with progress_bar() as tell:
            return run_paths(places, lake_root, tell=tell, **options)
    except (FileNotFoundError, ValueError) as error:
        raise click.UsageError(str(error)) from error


for _command in LAKE_COMMANDS:
    main.add_command(_command)
