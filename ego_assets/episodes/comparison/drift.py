"""The numbers by which shards of footage and episodes are compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa

from ego_assets.quality.drift import SECONDS, SHARES, DriftFeatures

_METRES_PER_SECOND = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0])
_MM_PER_FRAME2 = np.array([0.2, 0.5, 1, 2, 3, 5, 8, 12.0])
_DROPPED = ("no hands", "idle", "few valid hands", "head motion")
"""Bins whose share of a video is a feature: rules that go by what models found."""
_SHARES = ("left_hand_share", "right_hand_share", "filled_hand_share", "valid_camera_share")


def _of_videos(tables: Mapping[str, pa.Table]) -> pl.DataFrame:
    rows = pl.DataFrame(tables["footage"]).with_columns(
        seconds=pl.col("end_pts_s") - pl.col("start_pts_s")
    )
    of_bin = {
        name: pl.col("seconds").filter(pl.col("bin") == name).sum() / pl.col("seconds").sum()
        for name in ("kept", *_DROPPED)
    }
    taken_in = rows.filter(pl.col("bin") != "rejected")
    return taken_in.group_by("video_id", maintain_order=True).agg(**of_bin)


def _of_episodes(tables: Mapping[str, pa.Table]) -> pl.DataFrame:
    return pl.DataFrame(tables["episodes"]).select(
        *_SHARES,
        "jitter_after_mm",
        duration_s=pl.col("end_pts_s") - pl.col("start_pts_s"),
    )


def _of_hands(tables: Mapping[str, pa.Table]) -> pl.DataFrame:
    """The typical speed of wrists in the camera frame, and how far they are from it."""
    rows = pl.DataFrame(tables["episode_hands"]).sort("episode_id", "side", "frame_index")
    place = pl.col("camera_from_hand_m").arr
    steps = [place.get(axis) - place.get(axis).shift() for axis in range(3)]
    moved = pl.sum_horizontal(step**2 for step in steps).sqrt()
    is_next = pl.col("frame_index").diff() == 1
    speed = pl.when(is_next).then(moved / pl.col("pts_s").diff())
    rows = rows.with_columns(speed_mps=speed.over("episode_id", "side"), depth_m=place.get(2))
    return rows.group_by("episode_id", maintain_order=True).agg(
        pl.col("speed_mps").median(), pl.col("depth_m").median()
    )


FOOTAGE = DriftFeatures(
    reads={"footage": ("video_id", "bin", "start_pts_s", "end_pts_s")},
    bins=dict.fromkeys(("kept", *_DROPPED), SHARES),
    measure=_of_videos,
)
EPISODES = DriftFeatures(
    reads={"episodes": (*_SHARES, "jitter_after_mm", "start_pts_s", "end_pts_s")},
    bins={"duration_s": SECONDS, "jitter_after_mm": _MM_PER_FRAME2}
    | dict.fromkeys(_SHARES, SHARES),
    measure=_of_episodes,
)
EPISODE_HANDS = DriftFeatures(
    reads={
        "episode_hands": ("episode_id", "side", "frame_index", "pts_s", "camera_from_hand_m"),
    },
    bins={
        "speed_mps": _METRES_PER_SECOND,
        "depth_m": np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5]),
    },
    measure=_of_hands,
)
