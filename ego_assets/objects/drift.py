"""The numbers by which shards of object poses and movements are compared."""

from __future__ import annotations

import polars as pl

from ego_assets.quality.drift import COUNTS, SHARES, clip_features

_LENGTH = pl.col("end_frame") - pl.col("start_frame")

OBJECT_POSES = clip_features(
    "object_poses",
    ("is_valid", "score"),
    [
        pl.col("is_valid").mean().alias("valid"),
        pl.col("score").filter("is_valid").median(),
    ],
    {"valid": SHARES, "score": SHARES},
    made_from="object_masks",
    success="valid",
)
OBJECT_MOVEMENTS = clip_features(
    "object_movements",
    ("state", "start_frame", "end_frame"),
    [
        pl.len().alias("intervals"),
        (_LENGTH.filter(pl.col("state") == "held").sum() / _LENGTH.sum()).alias("held"),
    ],
    {"intervals": COUNTS, "held": SHARES},
    then={"intervals": pl.col("intervals").fill_null(0)},
)
