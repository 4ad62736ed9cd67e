"""The numbers by which shards of camera poses are compared."""

from __future__ import annotations

import polars as pl

from ego_assets.quality.drift import SHARES, clip_features

SCENE_RECONSTRUCTION = clip_features(
    "scene_reconstruction",
    ("is_valid", "inlier_share"),
    [pl.col("is_valid").mean().alias("valid"), pl.col("inlier_share").median()],
    {"valid": SHARES, "inlier_share": SHARES},
    made_from="clips",
    success="valid",
)
