"""Numbers in environment variables: read in one way, and refused with a sentence.

Not here: which variables there are (`ego_assets.environment` checks them all at the start).
"""

from __future__ import annotations

import math
import os


class EnvironmentVariableError(ValueError):
    """A variable holds what makes no sense. The message says which, what, and what is expected."""


def read_number(
    name: str, default: float, low: float, high: float, *, what: str, whole: bool = False
) -> float:
    """The number that a variable holds, `default` if it is not set or empty.

    what: what the number is, for the message. Raises EnvironmentVariableError.
    """
    given = os.environ.get(name, "").strip()
    if not given:
        return default
    try:
        value = int(given) if whole else float(given)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise EnvironmentVariableError(
            f"{name} is {given[:100]!r} and must be {kind} from {low:,.10g} to {high:,.10g}: {what}"
        )
    return value
