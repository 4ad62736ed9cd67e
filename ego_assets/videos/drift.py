"""The numbers by which shards of videos and clips are compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa

from ego_assets.quality.drift import SECONDS, DriftFeatures


def _of_videos(tables: Mapping[str, pa.Table]) -> pl.DataFrame:
    pixels = pl.col("width_px").cast(pl.Float64) * pl.col("height_px")
    return pl.DataFrame(tables["video_manifest"]).select(
        accepted=pl.col("accepted").cast(pl.Float64),
        has_audio=pl.when("accepted").then(pl.col("audio_codec").is_not_null().cast(pl.Float64)),
        duration_s=pl.when("accepted").then("duration_s"),
        megapixels=pl.when("accepted").then(pixels / 1e6),
    )


def _of_clips(tables: Mapping[str, pa.Table]) -> pl.DataFrame:
    rows = pl.DataFrame(tables["clips"])
    return rows.select(duration_s=pl.col("end_pts_s") - pl.col("start_pts_s"))


MANIFEST = DriftFeatures(
    reads={"video_manifest": ("accepted", "audio_codec", "duration_s", "width_px", "height_px")},
    bins={
        "accepted": np.array([0.5]),
        "has_audio": np.array([0.5]),
        "duration_s": SECONDS,
        "megapixels": np.array([0.3, 0.7, 1.2, 2.5, 5, 10.0]),
    },
    measure=_of_videos,
)
CLIPS = DriftFeatures(
    reads={"clips": ("clip_id", "start_pts_s", "end_pts_s")},
    bins={"duration_s": SECONDS},
    measure=_of_clips,
)
