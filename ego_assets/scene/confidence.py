"""How likely it is that the pose of a camera is right, by what its own row says of it.

Here: the curves and what goes into them. Not here: which poses are valid (`colmap.registration`,
`colmap.witnesses`, `static_camera`), what curves are fitted to (`benchmarks/rendered_rooms.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

MOVING = (2.98, -1.67, 0.13)
STATIC = (2.0, -2.47, 0.92)
"""Of logistic curves (Platt, "Probabilistic outputs for support vector machines", 1999): the log
odds of being right, by `evidence_of`."""
_RESIDUAL_MRAD, _SHARE = (0.14, 6.0), (0.2, 0.98)
"""Of the rooms that the curves were fitted to: what is beyond counts as the furthest of them."""


def evidence_of(row: Mapping[str, Any]) -> tuple[float, ...]:
    """What speaks for a valid row of `scene_reconstruction`: 1, the residual as an angle (log,
    milliradians), the share of the points that agree with the pose (log odds).

    The number of points, the share of other features that agree, and whether the lens is known say
    nothing more of rendered rooms.
    """
    residual = np.clip(row["reprojection_error_px"] / row["fx_px"] * 1e3, *_RESIDUAL_MRAD)
    share = float(np.clip(row["inlier_share"], *_SHARE))
    return 1.0, float(np.log(residual)), float(np.log(share / (1 - share)))


def confidence_of(row: Mapping[str, Any]) -> float | None:
    """How likely it is that the pose of a row of `scene_reconstruction` is right, 0 to 1; None: it
    has no pose."""
    if not row["is_valid"]:
        return None
    evidence = evidence_of(row)
    curve = STATIC if row["registration"] == "static" else MOVING
    return float(1 / (1 + np.exp(-np.dot(evidence, curve))))
