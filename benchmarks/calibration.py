"""How often what is said with a confidence is right: a reliability curve, and how far it is off.

Here: the curve. Not here: what is judged, and by what truth.

Source: Guo et al., "On calibration of modern neural networks", 2017 (expected calibration error).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

EDGES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Judged:
    """confidence: 0 to 1, as the row says. source: the video that it is of."""

    confidence: float
    is_right: bool
    is_valid: bool
    source: str


@dataclass(frozen=True)
class Bin:
    """Rows whose confidence is in one stretch: their number, mean confidence, and share right."""

    low: float
    high: float
    count: int
    confidence: float
    right: float


def reliability(judged: Sequence[Judged], edges: Sequence[float] = EDGES) -> list[Bin]:
    """Return the stretches between the edges that hold any row; the last one is closed."""
    said = np.array([j.confidence for j in judged])
    right = np.array([j.is_right for j in judged], float)
    found = []
    for low, high in pairwise(edges):
        inside = (said >= low) & ((said < high) | (high == edges[-1]))
        if inside.any():
            found.append(
                Bin(low, high, int(inside.sum()), said[inside].mean(), right[inside].mean())
            )
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return how far the share right is from the confidence, on average over rows."""
    count = sum(b.count for b in bins)
    off = sum(b.count * abs(b.confidence - b.right) for b in bins)
    return off / count if count else float("nan")


def reliability_table(bins: Sequence[Bin]) -> str:
    """Return the curve as text."""
    lines = [f"{'confidence':<14} {'rows':>5} {'mean':>6} {'right':>6}"]
    for b in bins:
        stretch = f"{b.low:.2f} to {b.high:.2f}"
        lines.append(f"{stretch:<14} {b.count:>5} {b.confidence:>6.2f} {b.right:>6.2f}")
    return "\n".join(lines)
