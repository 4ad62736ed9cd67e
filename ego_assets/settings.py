"""Base of the settings of stages and backends: plain pydantic, with units in the names.

Each class is a form in the launchpad; each field says what it does. Changing a value changes the
stage's fingerprint, so clips done under other settings are done again. Here: what all have in
common. Not here: the settings themselves (`settings.py` of each room).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

RUNTIME: dict[str, Any] = {"runtime": True}
"""Extra of a field that says how a result is computed, not what it is."""


MAX_OVERLAP_S = 5.0
"""Neighbouring clips share no more: so long must operators remember what they said."""


COMPILE_MODES = ("reduce-overhead", "max-autotune")
"""Of torch.compile, those that record CUDA graphs."""


def _compile_mode(value: Any) -> Any:
    if isinstance(value, bool) or value in COMPILE_MODES:
        return value
    modes = " or ".join(f'"{m}"' for m in COMPILE_MODES)
    raise ValueError(f"{value!r} is no way to compile: give false, true, {modes} (CUDA graphs)")


CompileMode = Annotated[
    bool | Literal["reduce-overhead", "max-autotune"], BeforeValidator(_compile_mode)
]
"""Whether a network goes through torch.compile, and in which mode."""


class Settings(BaseModel):
    """Base: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def runtime_fields(cls) -> set[str]:
        """Fields that are not part of a clip's fingerprint: results agree to rounding."""
        return {n for n, f in cls.model_fields.items() if f.json_schema_extra == RUNTIME}
