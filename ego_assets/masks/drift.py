"""The numbers by which shards of detections and masks are compared."""

from __future__ import annotations

import numpy as np
import polars as pl

from ego_assets.quality.drift import COUNTS, SHARES, DriftFeatures, clip_features

_AREAS = np.geomspace(1e-4, 0.5, 11)

DETECTIONS = clip_features(
    "detections",
    ("score",),
    [pl.len().alias("rows"), pl.col("score").median()],
    {"per_frame": COUNTS, "score": SHARES},
    then={"per_frame": pl.col("rows").fill_null(0) / pl.col("frames")},
)


def _of_masks(table: str) -> DriftFeatures:
    pixels = pl.col("height_px").cast(pl.Float64) * pl.col("width_px")
    return clip_features(
        table,
        ("track_id", "frame_index", "area_px", "height_px", "width_px", "score"),
        [
            pl.col("track_id").n_unique().alias("tracks"),
            pl.col("frame_index").n_unique().alias("seen"),
            (pl.col("area_px") / pixels).median().alias("area"),
            pl.col("score").median(),
        ],
        {"tracks": COUNTS, "blank": SHARES, "area": _AREAS, "score": SHARES},
        then={
            "tracks": pl.col("tracks").fill_null(0),
            "blank": 1 - pl.col("seen").fill_null(0) / pl.col("frames"),
        },
    )


OBJECT_MASKS = _of_masks("object_masks")
HAND_MASKS = _of_masks("hand_masks")
