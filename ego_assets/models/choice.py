"""Which backend each operator has, as a team's file says it (EGO_BACKENDS).

Here: the file and what it may hold. Not here: Dagster's resource, the backends.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model

from ego_assets.catalog import STAGES
from ego_assets.models import registry
from ego_assets.models.suggestions import did_you_mean
from ego_assets.settings import Settings
from resources.environment import backends_file


class BackendsFileError(ValueError):
    """The file of EGO_BACKENDS is not there, or makes no sense; the message says where."""


OPERATORS = tuple(dict.fromkeys(stage.operator for stage in STAGES.values()))
"""Of which a backend can be chosen."""


class CommonChoice(Settings):
    """What a backends file may say besides the backend of each operator."""

    weights_dir: str = ""
    settings: dict[str, dict[str, Any]] = Field(default={})


_fields: dict[str, Any] = dict.fromkeys(OPERATORS, (str, ""))
BackendsFile: type[CommonChoice] = create_model(
    "BackendsFile",
    __base__=CommonChoice,
    __doc__="What a backends file may say; all of it may be left out.",
    **_fields,
)


def read_choice(file: str | Path) -> CommonChoice:
    """A backends file: YAML with the fields of `BackendsFile`. Raises BackendsFileError."""
    try:
        found = yaml.safe_load(Path(file).expanduser().read_text())
        choice = _validated(BackendsFile, found or {}, "")
        for operator in sorted(
            {*choice.model_fields_set, *choice.settings} - CommonChoice.model_fields.keys()
        ):
            entry = registry.find(operator, getattr(choice, operator, "") or default_name(operator))
            settings = choice.settings.get(operator, {})
            _validated(entry.settings, settings, f"settings.{operator}.")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BackendsFileError(f"{file}: {error}") from error
    return choice


_Model = TypeVar("_Model", bound=BaseModel)


def _validated(model: type[_Model], given: Any, place: str) -> _Model:
    """Validate what a file says. Raises ValueError: what is wrong, where, and what was meant."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        wrong = []
        for each in error.errors():
            where, words = ".".join(map(str, each["loc"])), each["msg"]
            if each["type"] == "extra_forbidden" and len(each["loc"]) == 1:
                hint = did_you_mean(where, model.model_fields) or "."
                words += f"{hint} There are {', '.join(model.model_fields)}"
            wrong.append(f"{(place + where).rstrip('.')}: {words}")
        raise ValueError("; ".join(wrong)) from error


def default_name(operator: str) -> str:
    """Name the backend that runs out of the box. Raises UnknownBackendError."""
    if operator not in OPERATORS:
        raise registry.UnknownBackendError(
            f"settings: no operator {operator!r}" + did_you_mean(operator, OPERATORS)
        )
    return registry.default(operator).name


def machine_choice() -> CommonChoice:
    """What the file of EGO_BACKENDS says; nothing if there is none. Raises BackendsFileError.

    A process reads and checks each version of the file once: a stage asks several times.
    """
    given = backends_file()
    if not given:
        return BackendsFile()
    try:
        stat = Path(given).expanduser().stat()
    except OSError as error:
        raise BackendsFileError(f"{given}: {error}") from error
    return _read_version(given, stat.st_ino, stat.st_mtime_ns, stat.st_size).model_copy(deep=True)


@lru_cache(maxsize=4)
def _read_version(file: str, *_: int) -> CommonChoice:
    """As `read_choice`; the rest says which version of the file it is."""
    return read_choice(file)
