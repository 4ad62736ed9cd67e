"""Says which hands are right: reasons against a row from a closed list, and a confidence.

Here: thresholds, and what they are held against. Not here: how hands are measured or placed.

A row that is valid is a promise, so what is doubtful is not. The thresholds were set by looking
at the annotated frames that `benchmarks/accuracy.py` scores: what it says is not held out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ego_assets.hands.skeleton import BACKWARD_DEG

MIN_PRESENCE = 0.8
MIN_SIDE = 0.6
MIN_SCORE = 0.5
MIN_SIZE_PX = 20.0
MIN_INSIDE = 0.75
MAX_RESIDUAL = 0.12
MAX_JUMP = 0.15
NEAR_M, WEARER_M, FAR_M = 0.08, 1.4, 4.0
_SLOPE, _OFFSET, _IF_VALID = 0.2, 0.38, 3.37
"""Of the calibration: log odds of being right, by those of the raw figure. Fitted to 116 poses of
the annotated frames; such a curve is off by 0.07 on average on videos that were left out of the
fit, and the raw figure by 0.20 (docs/accuracy.md)."""


@dataclass(frozen=True)
class HandFacts:
    """What speaks for and against a hand in a frame.

    presence: of its mask's row, and no more than around it; side_score, score: of that row; inside:
    share of its joints in the picture; size_px; residual: of its placing, None if it could not be
    placed; jump: how far the measured joints are from the smoothed ones, as a share of its size;
    distance_m: of its middle; flexion_deg: of its fingers on average, negative if they bend
    backward, as where left is taken for right.
    """

    presence: float
    side_score: float
    score: float
    inside: float
    size_px: float
    residual: float | None
    jump: float
    distance_m: float
    flexion_deg: float
    is_wearer: bool


def reason_against(facts: HandFacts) -> str | None:
    """Why a row is not valid; None: it is. One of `hands.tables.REASONS`."""
    checks = (
        ("presence low", facts.presence < MIN_PRESENCE),
        ("not a plausible hand", facts.score < MIN_SCORE),
        ("bends backward", facts.flexion_deg < BACKWARD_DEG),
        ("side unsure", facts.side_score < MIN_SIDE),
        ("too small", facts.size_px < MIN_SIZE_PX),
        ("truncated", facts.inside < MIN_INSIDE),
        ("does not fit in space", facts.residual is None or facts.residual > MAX_RESIDUAL),
        ("jumps", facts.jump > MAX_JUMP),
        ("out of reach", not NEAR_M < facts.distance_m < (WEARER_M if facts.is_wearer else FAR_M)),
    )
    return next((reason for reason, holds in checks if holds), None)


def confidence_of(facts: HandFacts) -> float:
    """How likely it is that a row's box and side are those of a hand, 0 to 1: calibrated by a
    logistic curve (Platt, "Probabilistic outputs for support vector machines", 1999)."""
    raw = float(np.clip(_evidence(facts), 0.01, 0.99))
    odds = _SLOPE * np.log(raw / (1 - raw)) + _OFFSET
    if reason_against(facts) is None:
        odds += _IF_VALID
    return float(1 / (1 + np.exp(-odds)))


def _evidence(facts: HandFacts) -> float:
    """All that speaks for a row, multiplied: 0 to 1."""
    residual = 1.0 if facts.residual is None else facts.residual
    fit = float(np.exp(-0.5 * (residual / MAX_RESIDUAL) ** 2 - 0.5 * (facts.jump / MAX_JUMP) ** 2))
    bends = 0.5 if facts.flexion_deg < BACKWARD_DEG else 1.0
    sure = (
        bends * facts.presence * facts.side_score * facts.inside * min(1.0, facts.score / MIN_SCORE)
    )
    return sure * fit
