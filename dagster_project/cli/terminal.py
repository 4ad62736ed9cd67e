"""What every command shares: options, the progress of a run, its summary. Not here: commands."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from dagster_project.startup import prepare, prepare_text
from ego_assets.catalog import TABLES, stage_of
from ego_assets.environment import fault_of_folder
from ego_assets.models.weights import WeightsError
from resources.devices.leases import LeaseError
from resources.environment import (
    BACKENDS_FILE,
    DEGRADE_AFTER_S,
    MAX_DEGRADE_S,
    EnvironmentVariableError,
)
from resources.lake import Lake, LakeError
from resources.lake.lake import DEFAULT_LAKE
from resources.ledger import Ledger
from resources.ledger.tables import LedgerDamagedError, LedgerVersionError
from resources.raw.scratch import ScratchError


def _is_usable(_: click.Context, __: click.Parameter, given: str) -> str:
    if why := fault_of_folder(str(given), may_be_on_s3=True):
        raise click.BadParameter(f"{str(given)[:300]!r}, {why}")
    return given


LAKE_OPTION = click.option(
    "--lake",
    "lake_root",
    envvar="EGO_LAKE",
    callback=_is_usable,
    default=DEFAULT_LAKE,
    show_default=True,
    show_envvar=True,
    help="Where tables lie: a folder, or s3://bucket/prefix.",
)
RAW_OPTION = click.option(
    "--to",
    "place",
    envvar="EGO_RAW",
    default=".ego/raw",
    show_default=True,
    show_envvar=True,
    metavar="RAW",
    help="Where videos go: a folder, or s3://bucket/prefix.",
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def _is_finite(_: click.Context, __: click.Parameter, given: float | None) -> float | None:
    """A range lets `nan` through."""
    if given is not None and not math.isfinite(given):
        raise click.BadParameter("give a number of seconds")
    return given


DEGRADE_OPTION = click.option(
    "--degrade-after",
    "degrade_after_s",
    type=click.FloatRange(min=0, max=MAX_DEGRADE_S),
    callback=_is_finite,
    envvar=DEGRADE_AFTER_S,
    show_envvar=True,
    help="Seconds to wait for a GPU, then go on without: models wait for a later run.",
)
WORKERS_OPTION = click.option(
    "--workers", type=click.IntRange(min=0), default=0, help="Worker processes; 0: one a CPU."
)


def _use_backends(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    """For this process and all that it starts."""
    if given is not None:
        from ego_assets.models.choice import BackendsFileError, read_choice

        try:
            read_choice(given)
        except BackendsFileError as error:
            raise click.BadParameter(str(error)) from error
        os.environ[BACKENDS_FILE] = str(Path(given).resolve())
    return given


BACKENDS_OPTION = click.option(
    "--backends",
    type=click.Path(exists=True, dir_okay=False),
    callback=_use_backends,
    expose_value=False,
    help="YAML file that names models (docs/models.md). [default: EGO_BACKENDS]",
)


def plain(value: object, style: str = "") -> Text:
    """A value as text: names and messages come from outside, and are neither markup nor control
    sequences of the terminal."""
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
    return Text(text, style=style)


def hanging(value: object, indent: int, width: int) -> str:
    """Wrap words; lines after the first begin further in. What a person copies is never cut: a
    path or URL that is longer than a line stays whole."""
    return textwrap.fill(
        plain(value).plain,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def count_of(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def waiting(number: int, noun: str) -> str:
    """As `count_of`, with the verb."""
    return f"{count_of(number, noun)} wait{'s' if number == 1 else ''}"


UNCHECKED = {"doctor"}
"""Commands that look at the environment themselves."""
RESUMED = {"run", "demo", "retry", "stale", "forget", "relocate", "export", "ingest"}
"""Commands that go on where they were stopped."""
STOPPED = 128 + signal.SIGINT
"""Exit status after Ctrl-C, as of any command of a shell."""


class Commands(click.Group):
    """Checks what a command needs before it does anything, and says in one line what keeps storage
    from being reached, instead of a stack."""

    def main(self, *args: Any, **extra: Any) -> Any:
        prepare_text()
        return super().main(*args, **extra)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found = super().resolve_command(ctx, args)
        if found[0] not in UNCHECKED and not {"--help", "-h"} & set(args):
            try:
                prepare()
            except ValueError as error:
                raise click.ClickException(str(error)) from error
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            more = " Run the same command to go on." if ctx.invoked_subcommand in RESUMED else ""
            click.echo(f"\nStopped.{more}", err=True)
            sys.exit(STOPPED)
        except (
            LakeError,
            ScratchError,
            EnvironmentVariableError,
            LeaseError,
            LedgerDamagedError,
            LedgerVersionError,
            WeightsError,
        ) as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            module = type(error).__module__
            if module.startswith("botocore"):
                raise click.ClickException(f"S3: {type(error).__name__}: {error}") from error
            if module.startswith("sqlalchemy"):
                why = " ".join(str(getattr(error, "orig", None) or error).split())
                raise click.ClickException(f"the ledger cannot be used: {why}") from error
            raise


def existing_lake(root: str | Path) -> Lake:
    """The lake at `root`. Raises click.ClickException if there is none."""
    lake = Lake(root)
    if not lake.storage.is_lake():
        raise click.ClickException(f"there is no lake at {lake.location}: `ego run` makes one")
    return lake


def ledger_of(lake: Lake, *, as_it_is: bool = False) -> Ledger:
    """The lake's ledger; if it was lost, it is made again from the lake first.

    as_it_is: whatever state it is in. Raises click.ClickException if it is not said where it is.
    """
    from ego_assets.upkeep.recovery.rebuild import ready

    try:
        ledger = Ledger.of(lake.location)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if as_it_is:
        return ledger
    return ready(lake, ledger, lambda words: click.echo(words, err=True))


@contextmanager
def progress_bar() -> Iterator[Callable[[Any], None]]:
    """Show a bar with an ETA on a terminal, else a line whenever a stage is through."""
    with _own_stderr() as stderr, _teller(Console(file=stderr, stderr=True)) as tell:
        yield tell


@contextmanager
def _own_stderr() -> Iterator[IO[str] | None]:
    """Open what stderr is now once more. While a step runs, Dagster has descriptor 2 lead to the
    step's log: what is written there would be shown late, and not as on a terminal.

    None where stderr is no file, as in a test.
    """
    try:
        copy = os.dup(sys.stderr.fileno())
    except (AttributeError, OSError):
        yield None
        return
    encoding = sys.stderr.encoding
    with open(copy, "w", encoding=encoding, errors="backslashreplace") as stderr:  # noqa: PTH123
        yield stderr


@contextmanager
def _teller(console: Console) -> Iterator[Callable[[Any], None]]:
    if not console.is_terminal:
        yield _line_teller(console)
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        redirect_stdout=False,  # prints of steps belong into their logs
        redirect_stderr=False,
    )
    with bar:
        tasks: dict[str, Any] = {}

        def tell(progress: Any) -> None:
            if progress.note:
                console.print(plain(progress.note), soft_wrap=True)
                return
            if progress.shard not in tasks:
                tasks[progress.shard] = bar.add_task(progress.shard, total=None)
            bar.update(
                tasks[progress.shard],
                completed=progress.ended,
                total=progress.total,
                description=f"{progress.shard} {progress.stage or 'done'}",
            )

        yield tell


def _line_teller(console: Console) -> Callable[[Any], None]:
    told: set[tuple[str, str]] = set()
    began = time.monotonic()

    def tell(progress: Any) -> None:
        if progress.note:
            console.print(plain(progress.note), soft_wrap=True)
        for stage, (done, bad, total) in progress.stages.items():
            if total and done + bad >= total and (progress.shard, stage) not in told:
                told.add((progress.shard, stage))
                words = f"{progress.shard} {stage}: {done} done" + (
                    f", {bad} failed" if bad else ""
                )
                words += f", {time.monotonic() - began:.0f} s since the start"
                console.print(plain(words), soft_wrap=True)

    return tell


LISTED = 3
"""Galleries at the end of a summary."""
CHECK_WORDS = {"error": "failed", "warn": "warning"}


def check_line(check: Mapping[str, str]) -> Text:
    """Say which check failed, of what, and why."""
    return plain(
        f"check {CHECK_WORDS[check['severity']]}: {check['check']} of {check['asset']}, shard "
        f"{check['shard']}: {check['reason']}"
    )


def report(summary: Any, as_json: bool) -> None:
    if as_json:
        fields = asdict(summary)
        click.echo(json.dumps(fields | {"ok": summary.ok}))
    else:
        _print_summary(summary)
    sys.exit(0 if summary.ok else 1)


def _print_summary(summary: Any) -> None:
    console = Console()
    table = Table(title=plain(f"lake {summary.lake}"))
    table.add_column("table")
    table.add_column("rows", justify="right")
    table.add_column("seconds", justify="right")
    for name in TABLES:
        seconds = summary.seconds.get(stage_of(name).name)
        table.add_row(
            name, f"{summary.rows.get(name, 0):,}", "" if seconds is None else f"{seconds:.1f}"
        )
    console.print(table)
    videos, clips = summary.videos, summary.clips
    console.print(
        f"videos: {videos['total']}, accepted {videos['accepted']}, "
        f"rejected {videos['rejected']}\n"
        f"clips:  {clips['total']}, done {clips['done']}, failed {clips['failed']}, "
        f"quarantined {clips['quarantined']}",
        highlight=False,
    )
    for entry in summary.rejected:
        words = f"rejected {entry['uri']}: {entry['reason']}: {entry['detail']}"
        console.print(plain(words), soft_wrap=True)
    for entry in summary.moved:
        words = f"moved {entry['was_at']}: is at {entry['uri']}, the same video"
        console.print(plain(words), soft_wrap=True)
    for entry in summary.replaced:
        words = (
            f"replaced {entry['uri']}: its content is a new video, {entry['video_id']}; the rows "
            f"of the old one, {entry['was']}, are only in the history"
        )
        console.print(plain(words), soft_wrap=True)
    for entry in summary.gone:
        console.print(plain(f"gone {entry['detail']}"), soft_wrap=True)
    for uri in summary.forgotten:
        words = f"passed over {uri}: it holds a video that was forgotten (`ego forget`)"
        console.print(plain(words), soft_wrap=True)
    for entry in summary.failures:
        words = f"{entry['state']} {entry['stage']} {entry['unit']}: {entry['reason']}"
        console.print(plain(words), soft_wrap=True)
    for check in summary.checks:
        console.print(check_line(check), soft_wrap=True)
    for stage, count in summary.waiting_for_gpu.items():
        words = f"degraded {stage}: {waiting(count, 'clip')} for a GPU: {summary.degraded}"
        console.print(plain(words), soft_wrap=True)
    for words in summary.warnings:
        console.print(plain(f"slow: {words}"), soft_wrap=True)
    for problem in summary.problems:
        console.print(plain(f"failed: {problem}"), soft_wrap=True)
    _print_galleries(summary.galleries, console)


def _print_galleries(galleries: Mapping[str, str], console: Console) -> None:
    for shard, page in list(galleries.items())[:LISTED]:
        console.print(plain(f"clips of {shard}, those with failures first: {page}"), soft_wrap=True)
    if (more := len(galleries) - LISTED) > 0:
        words = f"… and of {count_of(more, 'more shard')}: `ego up` has them at /galleries"
        console.print(plain(words), soft_wrap=True)
