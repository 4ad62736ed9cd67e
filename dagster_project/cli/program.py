"""`ego`: the command line. Here: options, words, exit status. Not here: work.

Dagster takes a second to import: only the commands that need it do.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from dagster_project.cli.config import config
from dagster_project.cli.data.episodes import EPISODES, show_waterfall
from dagster_project.cli.data.exports import export
from dagster_project.cli.data.ingest import ingest
from dagster_project.cli.data.probes import probes
from dagster_project.cli.data.sql import sql
from dagster_project.cli.data.undistort import undistort
from dagster_project.cli.data.view import view
from dagster_project.cli.footage import FOOTAGE
from dagster_project.cli.history import HISTORY
from dagster_project.cli.quarantine import quarantine, retry
from dagster_project.cli.stage_settings import (
    CONFIG_OPTION,
    PROFILE_OPTION,
    SET_OPTION,
    read_settings,
)
from dagster_project.cli.status import describe, overview, show
from dagster_project.cli.terminal import (
    BACKENDS_OPTION,
    DEGRADE_OPTION,
    JSON_OPTION,
    LAKE_OPTION,
    WORKERS_OPTION,
    Commands,
    count_of,
    existing_lake,
    hanging,
    ledger_of,
    plain,
    progress_bar,
    report,
)
from dagster_project.cli.upkeep import UPKEEP
from dagster_project.cli.weights import weights
from dagster_project.startup import ALLOWED_HOSTS
from dagster_project.web.hosts import Authority, parse_allowed
from dagster_project.web.listener import Listener
from ego_assets.environment import fault_of_folder
from ego_assets.upkeep.overview import read_footage
from ego_assets.upkeep.profiles import Profiles, read_profiles
from ego_assets.upkeep.recovery.differences import find_differences
from resources.ledger.adoption import Adoption

DEMO_SEEDS = (2, 8)
"""Rooms in which a network sees both of the rendered hands."""


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
@SET_OPTION
@CONFIG_OPTION
@PROFILE_OPTION
@click.option("--verbose", is_flag=True, help="Show Dagster's log.")
@JSON_OPTION
def run(
    places: tuple[str, ...],
    lake_root: str,
    workers: int,
    force: bool,
    degrade_after_s: float | None,
    given: tuple[str, ...],
    config_file: Path | None,
    profile: str,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run the whole graph over the videos in PLACES: files, folders, s3://bucket/prefix.

    Shards are run side by side, as many as the machine has room for (EGO_MAX_RUNS says otherwise);
    what is done already is not run again.

    Exit status: 0 if nothing failed, 1 if something did, 2 if the command makes no sense. A
    rejected video is no failure unless all are; an asset check is one if its severity is error.
    """
    summary = _run(
        places,
        lake_root,
        force=force,
        workers=workers,
        verbose=verbose,
        degrade_after_s=degrade_after_s,
        settings=read_settings(given, config_file, profile),
    )
    report(summary, as_json)


def _local_folder(_: click.Context, __: click.Parameter, given: str) -> Path:
    if why := fault_of_folder(given):
        raise click.BadParameter(f"{given[:300]!r}, {why}")
    return Path(given)


@main.command()
@click.option(
    "--lake",
    "lake_root",
    callback=_local_folder,
    default=".ego/demo/lake",
    show_default=True,
    help="Folder of the tables.",
)
@click.option("--videos", type=click.IntRange(1, 100), default=2, show_default=True)
@click.option("--duration-s", type=click.FloatRange(2, 120), default=8.0, show_default=True)
@WORKERS_OPTION
@JSON_OPTION
def demo(lake_root: Path, videos: int, duration_s: float, workers: int, as_json: bool) -> None:
    """Make sample videos, run the whole graph over them, export what is worth training on, show
    an episode of it, and say where to look."""
    from ego_assets.graph.backends import Backends
    from samples import render_sample

    Backends().require_weights()
    raw = lake_root.parent / "raw"
    say = Console(stderr=True)
    for number in range(videos):
        seed = DEMO_SEEDS[number] if number < len(DEMO_SEEDS) else 100 + number
        name = f"sample_{seed:03d}_{duration_s:g}s"
        if not (raw / f"{name}.mp4").exists():
            say.print(plain(f"rendering {name}.mp4"))
            scenes = 2 if number % 2 else 1
            render_sample(raw, seed=seed, duration_s=duration_s, scenes=scenes, name=name)
    summary = _run((str(raw),), lake_root, force=False, workers=workers, verbose=False)
    if not as_json:
        if summary.ok:
            _export_demo(lake_root, say)
        command = plain(f"ego up --lake {shlex.quote(str(lake_root))}", "bold")
        say.print(Text.assemble("\nLook at it: ", command, " opens the Dagster UI"), soft_wrap=True)
    report(summary, as_json)


def _export_demo(lake_root: Path, say: Console) -> None:
    """Show how much of the samples is worth training on, export it, and show an episode."""
    from dagster_project.demo.look import show_episode
    from ego_assets.episodes.waterfall import waterfall_of
    from ego_assets.exports.lake_export import export_episodes
    from ego_assets.exports.lerobot.settings import LeRobotFiles
    from ego_assets.exports.settings import ContentSettings
    from ego_assets.reading import LakeReader

    lake, out = existing_lake(str(lake_root)), lake_root.parent / "lerobot"
    found, _ = waterfall_of(lake)
    show_waterfall(found, "what is worth training on", say)
    if not found.episodes:
        return
    done = export_episodes("lerobot", lake, out, ContentSettings(split="all"), LeRobotFiles())
    episodes = count_of(done.report.episodes, "episode")
    say.print(plain(f"LeRobot data set: {out} ({episodes}, {done.report.frames:,} frames)"))
    first = min(episode.id for episode in LakeReader(lake).episodes())
    show_episode(
        lake, first, lake_root.parent, lambda words: say.print(plain(words), soft_wrap=True)
    )


def _hosts(_: click.Context, __: click.Parameter, given: Sequence[str]) -> list[Authority]:
    try:
        return parse_allowed(" ".join(given))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@main.command()
@LAKE_OPTION
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="NAME[:PORT]",
    envvar=ALLOWED_HOSTS,
    show_envvar=True,
    callback=_hosts,
    help="Another name under which browsers reach the UI, as behind a proxy. May be repeated.",
)
@click.option("--read-only", is_flag=True, help="Show everything, start and change nothing.")
@BACKENDS_OPTION
def up(lake_root: str, port: int, host: str, allowed: list[Authority], read_only: bool) -> None:
    """Start the Dagster UI and its daemon on this lake. Ctrl-C stops both.

    Requests of other web sites are refused, and so are hosts that are neither local nor allowed
    (docs/security.md). A read-only UI has no daemon and can run beside another one.
    """
    lake = existing_lake(lake_root)
    listener = Listener(host, port)
    from dagster_project.web.up import serve

    ledger_of(lake).open()
    sys.exit(serve(lake, listener, allowed, read_only=read_only))


@main.command()
@LAKE_OPTION
@click.option("--watch", is_flag=True, help="Look again every 2 s until Ctrl-C.")
@click.option("--failures", "shown", default=50, show_default=True, help="List at most this many.")
@JSON_OPTION
def status(lake_root: str, watch: bool, shown: int, as_json: bool) -> None:
    """Show what is done and what is left of every table, what failed, and which files wait."""
    lake = existing_lake(lake_root)
    ledger = ledger_of(lake)
    adoption = Adoption(ledger)
    counts, footage = adoption.counts(), read_footage(lake)
    differences = find_differences(lake, ledger, counts=counts)
    profiles = read_profiles(lake, Profiles())
    found = describe(lake, ledger, shown, differences, counts, footage, profiles)
    if as_json:
        click.echo(json.dumps(found))
        return
    console = Console()
    if not watch:
        show(found, differences, console)
        return
    compared = time.monotonic()
    with Live(console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            counts = adoption.counts()
            found = describe(lake, ledger, shown, differences, counts, footage, profiles)
            live.update(overview(found, differences, console.width), refresh=True)
            time.sleep(2)
            if time.monotonic() - compared > COMPARED_EVERY_S:
                differences, footage = find_differences(lake, ledger), read_footage(lake)
                profiles, compared = Profiles(), time.monotonic()
            profiles = read_profiles(lake, profiles)


COMPARED_EVERY_S = 60.0
"""While `ego status --watch` looks on; what was chosen for a shard is read again as often."""


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
        _print_findings(findings)
    sys.exit(1 if any(f.state == "missing" for f in findings) else 0)


def _print_findings(findings: Sequence[Any]) -> None:
    """Print a paragraph each; what nobody chose comes last."""
    console = Console()
    colors = {"ok": "green", "warning": "yellow", "missing": "red", "unused": "dim"}
    for finding in sorted(findings, key=lambda f: f.state == "unused"):
        state = f"{finding.state:<{len('warning ')}}"
        told = hanging(f"{state}{finding.what}: {finding.facts}", len(state), console.width)
        line = Text(told)
        line.stylize(colors[finding.state], 0, len(state))
        console.print(line, soft_wrap=True)


def _run(places: tuple[str, ...], lake_root: str | Path, **options: Any) -> Any:
    from dagster_project.runs import processes_ready, run_paths

    try:
        with processes_ready(), progress_bar() as tell:
            return run_paths(places, lake_root, tell=tell, **options)
    except (FileNotFoundError, ValueError) as error:
        raise click.UsageError(str(error)) from error


_COMMANDS = (
    *UPKEEP,
    *HISTORY,
    *EPISODES,
    probes,
    *FOOTAGE,
    export,
    ingest,
    quarantine,
    retry,
    config,
    sql,
    undistort,
    view,
    weights,
)
for _command in _COMMANDS:
    main.add_command(_command)
