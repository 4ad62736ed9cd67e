"""The episodes of a lake with where everything is: camera, hands, robot joints, objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.exports.episode import ExportEpisode, Numbers
from ego_assets.exports.grid import ExportError, Grid, typical_rate
from ego_assets.exports.lake_episodes import LakeEpisodes, nobody_objects
from ego_assets.exports.motion.columns import (
    CAMERA,
    OBJECT,
    hand_in,
    joints_in,
    known_columns,
    pose_columns,
    robot_of,
)
from ego_assets.exports.motion.objects import ShardObjects
from ego_assets.exports.settings import ContentSettings
from ego_assets.exports.states import HandArrays
from ego_assets.reading import LakeReader
from ego_assets.rows import SIDES


class MotionEpisodes(LakeEpisodes):
    """Episodes whose columns are those of `motion.columns`.

    every_frame: a tick is a frame, at its own time, and no grid is laid over them.
    """

    def __init__(
        self,
        reader: LakeReader,
        chosen: ContentSettings,
        max_side_px: int,
        left_out: Callable[[str], str | None] = nobody_objects,
        *,
        every_frame: bool = False,
        with_objects: bool = False,
    ) -> None:
        super().__init__(reader, chosen, max_side_px, left_out)
        self._every_frame, self._with_objects = every_frame, with_objects
        self._objects: tuple[str, ShardObjects | None] = ("", None)

    def lay_grid(self, cameras: pa.Table, settings: ContentSettings) -> Grid:
        if self._every_frame:
            return grid_of_frames(cameras)
        return super().lay_grid(cameras, settings)

    def _episode(
        self, row: Mapping[str, Any], tables: Any, settings: ContentSettings
    ) -> ExportEpisode:
        plain = super()._episode(row, tables, settings)
        name, grid = row["episode_id"], plain.grid
        cameras = tables.cameras[name].sort_by("frame_index")
        frames = cameras["frame_index"].to_numpy()
        columns: dict[str, Numbers] = pose_columns(
            CAMERA, _poses(cameras, "world_from_camera"), grid
        )
        hands = tables.hands.get(name)
        if hands is not None:
            columns |= _hands(hands, frames, grid)
        if tables.joints is not None:
            joints = tables.joints.of(HandArrays.of(hands, frames, settings.frame).keys)
            for side in SIDES:
                if joints.names[side]:
                    columns |= known_columns(
                        robot_of(side), joints.values[side], grid, joints.names[side]
                    )
        if not self._with_objects:
            return replace(plain, columns=columns)
        objects = self._objects_of(row["shard"]).of(row["take_id"], frames, "camera")
        for number, each in enumerate(objects):
            columns |= pose_columns(f"{OBJECT}{number:02d} {each.name}", each.poses, grid)
        said = {"object_poses": [each.said() for each in objects]}
        return replace(plain, columns=columns, provenance={**plain.provenance, **said})

    def _objects_of(self, shard: str) -> ShardObjects:
        """The objects of a shard, which are kept until the next one."""
        if self._objects[0] != shard or self._objects[1] is None:
            self._objects = shard, ShardObjects.read(self.reader, shard)
        found = self._objects[1]
        assert found is not None
        return found


def grid_of_frames(rows: pa.Table) -> Grid:
    """A tick a frame, at its own time. rows: of `episode_frames`, in order. Raises ExportError if
    times do not rise."""
    frames, pts_s = rows["frame_index"].to_numpy(), rows["pts_s"].to_numpy()
    if (np.diff(frames) <= 0).any() or (np.diff(pts_s) <= 0).any():
        raise ExportError("frames and their times must rise")
    count = len(frames)
    fps = max(1, round(typical_rate(pts_s)))
    return Grid(fps, frames.astype(np.int64), np.arange(count), pts_s, np.zeros(count, bool))


def _hands(rows: pa.Table, frames: np.ndarray, grid: Grid) -> dict[str, Numbers]:
    """Wrists and joints of both hands, in the camera, and in the world where they are known."""
    columns: dict[str, Numbers] = {}
    for side in SIDES:
        mine = rows.filter(pc.field("side") == side)
        if not mine.num_rows:
            continue
        at = np.searchsorted(frames, mine["frame_index"].to_numpy())
        for frame in ("camera", "world"):
            joints = array_of(mine[f"joints_{frame}_m"])
            pose = np.full((len(frames), 7), np.nan)
            pose[at] = _poses(mine, f"{frame}_from_hand")
            flat = np.full((len(frames), 63), np.nan)
            flat[at] = joints.reshape(-1, 63)
            columns |= pose_columns(hand_in(frame, side), pose, grid)
            columns |= known_columns(joints_in(frame, side), flat, grid)
    return columns


def _poses(rows: pa.Table, name: str) -> np.ndarray:
    """(N, 7) positions and quaternions xyzw of rows, NaN where they are null."""
    parts = [array_of(rows[f"{name}_{part}"]) for part in ("m", "xyzw")]
    return np.concatenate(parts, axis=1).astype(np.float64)
