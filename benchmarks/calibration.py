"""How often what is said with a confidence is right: a reliability curve, and how far it is off.

Here: the curve, and how far a logistic one would be off on videos that it was not fitted to. Not
here: what is judged, and by what truth.

Sources: Guo et al., "On calibration of modern neural networks", 2017 (expected calibration error);
Platt, "Probabilistic outputs for support vector machines", 1999 (the logistic curve).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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


def fitted(judged: Sequence[Judged]) -> np.ndarray:
    """Return (3,) slope, offset, and what validity adds: the log odds of being right by those of
    the confidence, of most likelihood, held a little towards nought."""
    from scipy.optimize import minimize

    said, right = _evidence(judged), np.array([j.is_right for j in judged], float)

    def unlikely(curve: np.ndarray) -> float:
        odds = said @ curve
        loss = np.logaddexp(0, odds) - right * odds
        return float(loss.sum() + 0.05 * (curve**2).sum())

    return np.asarray(minimize(unlikely, np.ones(3)).x)


def left_out_error(judged: Sequence[Judged]) -> float:
    """Return the calibration error where each video is judged by a curve fitted to the others."""
    told: list[Judged] = []
    for source in sorted({j.source for j in judged}):
        mine = [j for j in judged if j.source == source]
        odds = _evidence(mine) @ fitted([j for j in judged if j.source != source])
        for one, odd in zip(mine, odds.tolist(), strict=True):
            told.append(replace(one, confidence=1 / (1 + float(np.exp(-odd)))))
    return calibration_error(reliability(told))


def _evidence(judged: Sequence[Judged]) -> np.ndarray:
    said = np.clip([j.confidence for j in judged], 0.01, 0.99)
    valid = np.array([j.is_valid for j in judged], float)
    return np.column_stack([np.log(said / (1 - said)), np.ones(len(said)), valid])


def reliability_table(bins: Sequence[Bin]) -> str:
    """Return the curve as text."""
    lines = [f"{'confidence':<14} {'rows':>5} {'mean':>6} {'right':>6}"]
    for b in bins:
        stretch = f"{b.low:.2f} to {b.high:.2f}"
        lines.append(f"{stretch:<14} {b.count:>5} {b.confidence:>6.2f} {b.right:>6.2f}")
    return "\n".join(lines)
