"""What holds for all exports of a lake, on whatever machine they are made: a file of the lake.

Not here: what an export says for itself (`ego_assets.exports.settings`), EGO_FACES, which holds for
a machine.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError

from ego_assets.exports.grid import ExportError
from ego_assets.settings import Settings
from resources.lake import Lake

KEY = "_rules/exports.json"


class ExportRules(Settings):
    """What every export of a lake obeys."""

    faces: Literal["keep", "blur"] = Field(
        default="keep",
        description="blur: exports are made only with faces blurred; keep: each says for itself",
    )


def rules_of(lake: Lake) -> ExportRules:
    """The rules of a lake. Raises ExportError for a file that makes no sense: it may forbid what is
    asked for."""
    try:
        data = lake.storage.read(KEY)
    except FileNotFoundError:
        return ExportRules()
    try:
        return ExportRules.model_validate_json(data)
    except ValidationError as error:
        raise ExportError(
            f"{lake.storage.uri(KEY)} makes no sense, so nothing is exported: write it again with "
            "`ego config lake --faces blur`, or keep"
        ) from error


def set_rules(lake: Lake, rules: ExportRules) -> None:
    """Have them hold from now on."""
    lake.storage.write(KEY, rules.model_dump_json(indent=1).encode())
