"""The numbers by which shards of robot mappings are compared."""

from __future__ import annotations

import numpy as np
import polars as pl

from ego_assets.quality.drift import SHARES, clip_features

_ERRORS_M = np.geomspace(0.0005, 0.1, 10)

ROBOT_MAPPINGS = clip_features(
    "robot_mappings",
    ("mean_fingertip_error_m", "solver_status"),
    [
        pl.col("mean_fingertip_error_m").median().alias("fingertip_error_m"),
        (pl.col("solver_status") == "converged").mean().alias("converged"),
    ],
    {"fingertip_error_m": _ERRORS_M, "converged": SHARES},
    made_from="hand_poses",
    success="converged",
)
