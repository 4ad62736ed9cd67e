"""Suggests the name that a person may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` if one of the known names is close to the given one, else ``."""
    close = nearest(given, known)
    return f"; did you mean {close}?" if close else ""


def nearest(given: str, known: Iterable[str]) -> str:
    """Return the known name that is close to the given one, else ``."""
    close = difflib.get_close_matches(given, sorted(known), n=1, cutoff=0.7)
    return close[0] if close else ""
