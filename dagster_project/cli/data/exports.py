"""Commands that write data sets: export lerobot.

Here: options, words, exit status. Not here: work.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from dagster_project.cli.terminal import (
    JSON_OPTION,
    LAKE_OPTION,
    count_of,
    existing_lake,
)
from ego_assets.settings import Settings


def _option_of(name: str, info: FieldInfo) -> Callable[[Any], Any]:
    """The option of a field of settings. What it accepts is left to the settings to say."""
    said = info.annotation
    choices = get_args(said) if get_origin(said) is Literal else ()
    kind: Any = click.Choice([str(c) for c in choices]) if choices else str
    default = "" if info.default in (None, "") else f" [default: {info.default}]"
    return click.option(
        f"--{name.replace('_', '-')}", name, type=kind, help=f"{info.description}{default}"
    )


def _options_of(*forms: type[Settings], but: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        fields = [f for form in forms for f in form.model_fields.items() if f[0] not in but]
        for name, info in reversed(fields):
            command = _option_of(name, info)(command)
        return command

    return decorate


def _given(form: type[Settings], options: dict[str, Any], **more: Any) -> Any:
    """Settings of the options that a person gave. Raises UsageError."""
    said = {k: v for k, v in options.items() if k in form.model_fields and v is not None}
    try:
        return form.model_validate(said | more)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-") if first["loc"] else "options"
        raise click.UsageError(f"--{name}: {first['msg']}") from error


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("exporting", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@click.group()
def export() -> None:
    """Write data sets out of the episodes of a lake."""


def _lerobot() -> click.Command:
    from ego_assets.exports.lake_episodes import ContentSettings
    from ego_assets.exports.lerobot.settings import LeRobotFiles

    @click.command("lerobot")
    @LAKE_OPTION
    @click.option(
        "--out",
        required=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the data set; one that was written before is brought up to date.",
    )
    @_options_of(ContentSettings)
    @_options_of(LeRobotFiles)
    @JSON_OPTION
    def lerobot(lake_root: str, out: Path, as_json: bool, **options: Any) -> None:
        """Write episodes as a LeRobot data set (version 3).

        The same command again brings the folder up to date, and goes on with an export that was
        stopped. Episodes that do not fit, or whose video cannot be read, are left out and listed
        with the reason (`skipped` in the JSON). Exit status: 0 if the data set was written, even
        without those; 1 if not.
        """
        from ego_assets.exports.lake_export import export_lerobot

        lake = existing_lake(lake_root)
        content = _given(ContentSettings, options)
        form = _given(LeRobotFiles, options)
        try:
            with _bar() as tell:
                done = export_lerobot(lake, out, content, form, tell)
        except (ValueError, OSError) as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(1)
        if as_json:
            click.echo(json.dumps(done.as_json()))
            return
        report = done.report
        click.echo(
            f"{out}: {count_of(report.episodes, 'episode')}, {count_of(report.frames, 'frame')}; "
            f"{report.encoded:,} encoded now, {report.resumed:,} from an export that was stopped, "
            f"{report.kept:,} kept from before, {report.removed:,} removed; "
            f"{len(done.skipped):,} left out"
        )
        for episode, why in sorted(done.skipped.items()):
            click.echo(f"left out: {episode}: {why}")
        click.echo(
            "load it (`pip install 'lerobot[dataset]'`, Python 3.12):\n"
            "  from lerobot.datasets import LeRobotDataset\n"
            f'  data = LeRobotDataset("{out.name}", root="{out}")'
        )

    return lerobot


export.add_command(_lerobot())
