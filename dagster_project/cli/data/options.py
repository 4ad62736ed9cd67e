"""Options of a command, made of the fields of settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

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


def options_of(*forms: type[Settings]) -> Callable[[Any], Any]:
    """Give a command an option for each field; one for those that several forms have."""

    def decorate(command: Any) -> Any:
        fields: dict[str, FieldInfo] = {}
        for form in forms:
            fields |= {n: i for n, i in form.model_fields.items() if n not in fields}
        for name, info in reversed(fields.items()):
            command = _option_of(name, info)(command)
        return command

    return decorate


def given_settings(form: type[Settings], options: dict[str, Any]) -> Any:
    """Settings of the options that a person gave. Raises UsageError."""
    said = {k: v for k, v in options.items() if k in form.model_fields and v is not None}
    try:
        return form.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-") if first["loc"] else "options"
        raise click.UsageError(f"--{name}: {first['msg']}") from error
