"""The numbers by which shards of hand poses are compared."""

from __future__ import annotations

import numpy as np
import polars as pl

from ego_assets.quality.drift import SHARES, clip_features

_METRES = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5])

HAND_POSES = clip_features(
    "hand_poses",
    ("is_valid", "score", "camera_from_hand_m"),
    [
        pl.col("is_valid").mean().alias("valid"),
        pl.col("score").filter("is_valid").median(),
        pl.col("camera_from_hand_m").arr.get(2).filter("is_valid").median().alias("depth_m"),
    ],
    {"valid": SHARES, "score": SHARES, "depth_m": _METRES},
    made_from="hand_masks",
    success="valid",
)
