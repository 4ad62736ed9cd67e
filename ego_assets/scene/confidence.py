"""How likely it is that the pose of a camera is right, by what its own row says of it.

Here: the curves and what goes into them. Not here: which poses are valid (`colmap.registration`,
`colmap.witnesses`, `static_camera`), what curves are fitted to (`benchmarks/rendered_rooms.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

MOVING = (0.03, -1.66, 2.66)
STATIC = (-0.04, 1.61)
"""Of logistic curves (Platt, "Probabilistic outputs for support vector machines", 1999): the log
odds of being right, by `evidence_of`."""
_SHARE, _RESIDUAL_MRAD, _INLIERS = (0.2, 0.98), (0.6, 5.0), (200, 470)
"""Of the rooms that the curves were fitted to."""


def evidence_of(row: Mapping[str, Any]) -> tuple[float, ...]:
    """What speaks for a valid row of `scene_reconstruction`.

    Of a camera that moves: 1, the residual as an angle (log, milliradians), the number of inliers
    (log, hundreds). Of a static one: 1, the share of the background that stays in place (log odds).
    The share of inliers, that of other features that agree, and whether the lens is known say
    nothing more of rendered rooms. What is beyond all rooms counts as the furthest of them.
    """
    if row["registration"] == "static":
        share = float(np.clip(row["inlier_share"], *_SHARE))
        return 1.0, float(np.log(share / (1 - share)))
    residual = np.clip(row["reprojection_error_px"] / row["fx_px"] * 1e3, *_RESIDUAL_MRAD)
    return 1.0, float(np.log(residual)), float(np.log(np.clip(row["inliers"], *_INLIERS) / 100))


def confidence_of(row: Mapping[str, Any]) -> float | None:
    """How likely it is that the pose of a row of `scene_reconstruction` is right, 0 to 1; None: it
    has no pose."""
    if not row["is_valid"]:
        return None
    evidence = evidence_of(row)
    curve = STATIC if row["registration"] == "static" else MOVING
    return float(1 / (1 + np.exp(-np.dot(evidence, curve))))
