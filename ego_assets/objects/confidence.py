"""How likely it is that the pose of an object is right, by what its own row says of it.

Here: the curve and what goes into it. Not here: which poses are valid (`baseline.model`), what the
curve is fitted to (`benchmarks/rendered_objects.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

CURVE = (0.78, 0.84, -0.46, -3.63)
"""Of a logistic curve (Platt, "Probabilistic outputs for support vector machines", 1999): the log
odds of being right, by `evidence_of`."""


def evidence_of(row: Mapping[str, Any], limit_px: float = 1.5) -> tuple[float, ...]:
    """What speaks for a valid row of `object_poses` of the baseline: 1, how many features support
    it (log, tens), how far they are off (over `limit_px`, an outlier's error), and how far the
    object has turned since its frame was fixed (half turns), in which it has shown new sides. What
    is beyond all samples that the curve was fitted to counts as the furthest of them."""
    inliers = float(np.log(np.clip(row["inliers"], 13, 78) / 10))
    x, y, z, w = row["camera_from_object_xyzw"]
    turn = 2 * float(np.arctan2(np.linalg.norm([x, y, z]), abs(w))) / np.pi
    residual = min(row["reprojection_error_px"] / limit_px, 0.6)
    return 1.0, inliers, residual, min(turn, 0.75)


def confidence_of(row: Mapping[str, Any], limit_px: float = 1.5) -> float:
    """How likely it is that the turn of a valid row of `object_poses` is right, 0 to 1."""
    return float(1 / (1 + np.exp(-np.dot(evidence_of(row, limit_px), CURVE))))
