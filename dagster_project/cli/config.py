"""`ego config`: what every setting is here and now, and who says so.

What the command line or the launchpad says goes before the file that EGO_BACKENDS names, and that
before the default; `--set` goes before `--config`. Here: collecting and showing. Not here: what a
setting does (`settings.py` of each room), checks of the environment (`ego_assets.environment`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from dagster_project.cli.stage_settings import CONFIG_OPTION, SET_OPTION, read_settings
from dagster_project.cli.terminal import (
    BACKENDS_OPTION,
    JSON_OPTION,
    LAKE_OPTION,
    existing_lake,
    plain,
)
from ego_assets.environment import VARIABLES, check_environment
from resources.environment import EnvironmentVariableError, backends_file, read_text


@dataclass(frozen=True)
class Effective:
    """A setting, its value, and who says so."""

    name: str
    value: Any
    source: str


@click.group(invoke_without_command=True)
@SET_OPTION
@CONFIG_OPTION
@BACKENDS_OPTION
@JSON_OPTION
@click.pass_context
def config(
    context: click.Context, given: tuple[str, ...], config_file: Path | None, as_json: bool
) -> None:
    """Print the value of every setting, and where it comes from.

    A shard for which something else was chosen keeps that as its profile: `ego status` lists them.
    What holds for all exports of a lake: `ego config lake`.
    """
    if context.invoked_subcommand is not None:
        return
    try:
        check_environment()
    except EnvironmentVariableError as error:
        raise click.ClickException(str(error)) from error
    found = [*_variables(), *_stages(given, config_file)]
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=1, default=str))
        return
    console = Console()
    for each in found:
        said = plain(f"{each.name} = {each.value}", "" if each.source == "default" else "bold")
        console.print(Text.assemble(said, "  ", plain(f"# {each.source}", "dim")), soft_wrap=True)


@config.command()
@LAKE_OPTION
@click.option(
    "--faces",
    type=click.Choice(["keep", "blur"]),
    help="blur: exports are made only with faces blurred; keep: each says for itself.",
)
@JSON_OPTION
def lake(lake_root: str, faces: str | None, as_json: bool) -> None:
    """Print what holds for all exports of a lake, or set it.

    It is kept in the lake, and so holds on every machine. EGO_FACES=blur holds for a machine.
    """
    from ego_assets.exports.faces.rule import ExportRules, rules_of, set_rules
    from ego_assets.exports.grid import ExportError

    found = existing_lake(lake_root)
    if faces is not None:
        set_rules(found, ExportRules.model_validate({"faces": faces}))
    try:
        rules = rules_of(found).model_dump()
    except ExportError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(rules))
        return
    for name, value in rules.items():
        click.echo(f"{name} = {value}")
    if rules["faces"] == "blur":
        click.echo(
            "Exports obey. Views, galleries, previews, reviews and readers show what was recorded."
        )


@config.command()
def schema() -> None:
    """Print the JSON Schema of a file for --config."""
    from ego_assets.catalog import STAGES_OF_A_SHARD
    from ego_assets.graph.spec import form_of

    stages = {name: form_of(stage).model_json_schema() for name, stage in STAGES_OF_A_SHARD.items()}
    click.echo(
        json.dumps(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": "Settings of stages, for ego run --config",
                "type": "object",
                "additionalProperties": False,
                "properties": stages,
            },
            indent=1,
        )
    )


@config.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def validate(file: Path) -> None:
    """Check a FILE of settings as --config would. Exit status 2 if something is wrong."""
    found = read_settings([], file)
    count = sum(map(len, found.values()))
    click.echo(f"{file}: {count} settings of {len(found)} stages, all of which make sense")


def _variables() -> Iterator[Effective]:
    for variable in VARIABLES:
        value = read_text(variable.name)
        if value and variable.is_secret:
            value = "(set)"
        yield Effective(
            variable.name, value or variable.default, "environment" if value else "default"
        )


def _stages(given: Sequence[str], config_file: Path | None) -> Iterator[Effective]:
    """The settings of each stage as its backend takes them."""
    from ego_assets.catalog import STAGES
    from ego_assets.graph.backends import Backends
    from ego_assets.graph.spec import RunConfig, form_of
    from ego_assets.models import registry
    from ego_assets.models.choice import machine_choice

    backends, of_file = Backends(), machine_choice()
    file = f"{backends_file()} (EGO_BACKENDS)"
    by_file = read_settings([], config_file)
    by_line = read_settings(given, None)
    for name, stage in STAGES.items():
        chosen = getattr(of_file, stage.operator)
        backend = backends.chosen(stage.operator)
        yield Effective(f"{name}.backend", backend, file if chosen else "default")
        said = by_file.get(name, {}) | by_line.get(name, {})
        form = form_of(stage)(**said).settings()
        entry = registry.find(stage.operator, backend)
        used = entry.settings(**backends.settings_of(stage.operator, form, said)).model_dump()
        of_backend = backends.settings_of(stage.operator, {})
        for setting, value in used.items():
            source = "default"
            if setting in by_line.get(name, {}):
                source = "--set"
            elif setting in by_file.get(name, {}):
                source = str(config_file)
            elif setting in of_backend:
                source = file
            yield Effective(f"{name}.{setting}", value, source)
        for setting in said.keys() - used.keys() - RunConfig.model_fields.keys():
            yield Effective(
                f"{name}.{setting}", said[setting], f"not known to {backend}: no effect"
            )
