"""Gravity of the frames of a shard, in their cameras and in their worlds.

Here: the operator of the stage, tables in and rows out. A video whose telemetry has no
accelerations in the camera's axes has no rows: gravity is never assumed. Not here: the direction
itself (`gravity`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.operator import ClipOutput, Rows, TablesInput
from ego_assets.telemetry.gravity import (
    Directions,
    GravityRules,
    gravity_at,
    mean_direction,
)
from ego_assets.telemetry.settings import GravitySettings
from ego_assets.vision.geometry import matrix_from_quaternion

_CAMERA = ("is_valid", "world_id", "world_from_camera_xyzw")


class GravityFinder:
    """`telemetry` and `scene_reconstruction` of a shard → rows of `gravity`."""

    name = "imu"
    version = "2"
    quality_tier = "baseline"
    weights_hash = ""
    reads: ClassVar[dict[str, list[str]]] = {
        "telemetry": ["video_id", "source", "pts_s", "accel_mps2", "gyro_radps"],
        "scene_reconstruction": [
            *("video_id", "clip_id", "frame_index", "pts_s", "is_context"),
            *_CAMERA,
        ],
    }

    def __init__(self, settings: GravitySettings) -> None:
        self.settings = settings
        self._rules = GravityRules(
            **{n: getattr(settings, n) for n in GravityRules.__annotations__}
        )

    def process(self, item: TablesInput) -> ClipOutput:
        """Rows of the frames of all videos of the shard whose gravity is known."""
        rows: Rows = []
        for tables in item.shards.values():
            telemetry, cameras = tables["telemetry"], tables["scene_reconstruction"]
            for video, source, directions, frames in self._videos(telemetry, cameras):
                rows += self._rows(item.shard, video, source, directions, frames)
        return ClipOutput(tables={"gravity": rows})

    def _videos(
        self, telemetry: pa.Table, cameras: pa.Table
    ) -> Iterator[tuple[str, str, Directions, pa.Table]]:
        accels = telemetry.filter(pc.is_valid(telemetry["accel_mps2"]))
        for video, source in _best_sources(accels):
            is_mine = (pc.field("video_id") == video) & (pc.field("source") == source)
            accel, mine = accels.filter(is_mine), telemetry.filter(is_mine)
            gyro = mine.filter(pc.is_valid(mine["gyro_radps"]))
            frames = cameras.filter(pc.field("video_id") == video).sort_by("frame_index")
            if not frames.num_rows:
                continue
            directions = gravity_at(
                frames["pts_s"].to_numpy(),
                *_samples(accel, "accel_mps2"),
                *_samples(gyro, "gyro_radps"),
                self._rules,
            )
            yield video, source, directions, frames

    def _rows(
        self, shard: str, video: str, source: str, directions: Directions, frames: pa.Table
    ) -> Iterator[dict[str, Any]]:
        worlds = self._worlds(directions, frames)
        names = ("clip_id", "frame_index", "pts_s", "is_context")
        nothing = dict.fromkeys(("gravity_world", "world_spread_deg", "world_frames"))
        for at, frame in enumerate(frames.select([*names, *_CAMERA[:2]]).to_pylist()):
            if np.isnan(directions.down[at, 0]):
                continue
            world = frame["world_id"] if frame["is_valid"] else None
            yield {
                "video_id": video,
                "shard": shard,
                **{name: frame[name] for name in names},
                "source": source,
                "gravity_camera": directions.down[at].tolist(),
                "uncertainty_deg": float(directions.uncertainty_deg[at]),
                "used_share": float(directions.used_share[at]),
                "world_id": world,
                **worlds.get(world or "", nothing),
            }

    def _worlds(self, directions: Directions, frames: pa.Table) -> dict[str, dict[str, Any]]:
        """Gravity of each world of a video, of all its frames with a camera."""
        known = ~np.isnan(directions.down[:, 0])
        valid = frames["is_valid"].to_numpy(zero_copy_only=False) & known
        mine = frames.filter(pa.array(valid))
        if not mine.num_rows:
            return {}
        turned = matrix_from_quaternion(array_of(mine["world_from_camera_xyzw"]).astype(float))
        downs = np.einsum("nij,nj->ni", turned, directions.down[valid])
        names = np.array(mine["world_id"].to_pylist(), dtype=object)
        found = {}
        for world in dict.fromkeys(names):
            mean, spread = mean_direction(downs[names == world])
            is_one = spread <= self.settings.max_world_spread_deg
            found[world] = {
                "gravity_world": mean.tolist() if is_one else None,
                "world_spread_deg": spread,
                "world_frames": int((names == world).sum()),
            }
        return found


def _best_sources(accels: pa.Table) -> list[tuple[str, str]]:
    """(video, source) with the most accelerations of each video."""
    counts = (
        pl.DataFrame(accels.select(["video_id", "source"]))
        .group_by("video_id", "source")
        .len()
        .sort("video_id", "len", "source", descending=[False, True, False])
        .unique("video_id", keep="first", maintain_order=True)
    )
    return list(zip(counts["video_id"], counts["source"], strict=True))


def _samples(rows: pa.Table, column: str) -> tuple[np.ndarray, np.ndarray]:
    rows = rows.sort_by("pts_s")
    if not rows.num_rows:
        return np.empty(0), np.empty((0, 3))
    return rows["pts_s"].to_numpy(), array_of(rows[column]).astype(np.float64)
