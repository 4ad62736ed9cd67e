"""Reads settings of stages from the command line and from a file, and checks them against the
launchpad forms.

Here: `--set` and `--config`. Not here: what a setting does (`settings.py` of each room), settings
of models (`--backends`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from ego_assets.models.suggestions import did_you_mean

SET_OPTION = click.option(
    "--set",
    "given",
    multiple=True,
    metavar="STAGE.SETTING=VALUE",
    help="A setting of a stage, as in its launchpad form; may be given again.",
)
CONFIG_OPTION = click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file with settings, {stage: {setting: value}}; --set goes before it.",
)
PROFILE_OPTION = click.option(
    "--profile",
    metavar="NAME",
    default="",
    help="Name for what --set and --config say: `ego status` and the provenance of rows show it.",
)


def read_settings(
    given: Sequence[str], config_file: Path | None, profile: str = ""
) -> dict[str, dict[str, Any]]:
    """Return {op: {setting: value}}. Raises click.UsageError for what makes no sense."""
    found: dict[str, dict[str, Any]] = {}
    where: dict[str, str] = {}
    if config_file is not None:
        for stage, settings in _read(config_file).items():
            op = _op(stage, f"{config_file}: ")
            found.setdefault(op, {}).update(settings)
            where |= {f"{op}.{name}": f"{config_file}: " for name in settings}
    for each in given:
        name, is_one, text = each.partition("=")
        stage, has_setting, setting = name.strip().partition(".")
        if not (is_one and has_setting and setting):
            raise click.UsageError(f"--set {each!r}: give STAGE.SETTING=VALUE")
        op = _op(stage, "--set: ")
        try:
            found.setdefault(op, {})[setting] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise click.UsageError(f"--set {each!r}: the value is no YAML: {error}") from error
        where[f"{op}.{setting}"] = f"--set {each}: "
    if profile and not found:
        raise click.UsageError(f"--profile {profile}: name the settings of --set or --config")
    if profile:
        for op, settings in found.items():
            settings["profile"] = profile
            where[f"{op}.profile"] = f"--profile {profile}: "
    return {op: _checked(op, settings, where) for op, settings in found.items()}


def _read(path: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from error
    shape = "give stages with their settings, as in {hand_poses: {smoothing_s: 0.1}}"
    if not isinstance(content, dict):
        raise click.UsageError(f"{path}: {shape}")
    for stage, settings in content.items():
        if not (isinstance(settings, dict) and all(isinstance(name, str) for name in settings)):
            raise click.UsageError(f"{path}: {stage}: {shape}")
    return {str(stage): settings for stage, settings in content.items()}


def _op(stage: str, where: str) -> str:
    """Return the op of a stage, which may be named by a table that it makes."""
    from ego_assets.catalog import STAGES_OF_A_SHARD as STAGES

    ops = {table: op for op, made in STAGES.items() for table in made.tables}
    ops |= {op: op for op in STAGES}
    if stage not in ops:
        known = did_you_mean(stage, ops) or f": there are {', '.join(STAGES)}"
        raise click.UsageError(f"{where}there is no stage {stage}{known}")
    return ops[stage]


def _checked(op: str, settings: Mapping[str, Any], where: Mapping[str, str]) -> dict[str, Any]:
    """Return settings as the form takes them."""
    from pydantic import ValidationError

    from ego_assets.catalog import STAGES_OF_A_SHARD as STAGES
    from ego_assets.graph.spec import form_of

    form = form_of(STAGES[op])
    for name in settings:
        if name not in form.model_fields:
            known = did_you_mean(name, form.model_fields)
            known = known or f": it has {', '.join(sorted(form.model_fields))}"
            raise click.UsageError(f"{where[f'{op}.{name}']}{op} has no setting {name}{known}")
    try:
        # Of a value that is text where the form has a number, the number.
        taken = form(**settings).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else next(iter(settings))
        place = where.get(f"{op}.{name}", "")
        raise click.UsageError(f"{place}{op}.{name}: {first['msg']}") from error
    return {name: taken[name] for name in settings}
