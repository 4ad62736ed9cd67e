"""The episodes of a lake with what EgoDex has: every joint of the hands, in a world in metres."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ego_assets.exports.egodex.joints import CAMERA, joint_names
from ego_assets.exports.egodex.settings import FPS, EgoDexContent
from ego_assets.exports.egodex.writer import CONFIDENCES, TRANSFORMS
from ego_assets.exports.episode import ExportEpisode, Numbers
from ego_assets.exports.grid import ExportError, Grid
from ego_assets.exports.lake_episodes import LakeEpisodes, nobody_objects
from ego_assets.exports.settings import ContentSettings
from ego_assets.exports.states import held
from ego_assets.reading import LakeReader
from ego_assets.rows import SIDES
from ego_assets.vision.geometry import matrix_from_quaternion

_KEY = ("clip_id", "track_id", "frame_index")


class EgoDexEpisodes(LakeEpisodes):
    """Episodes whose columns are transforms and confidences."""

    def __init__(
        self,
        reader: LakeReader,
        content: EgoDexContent,
        max_side_px: int,
        left_out: Callable[[str], str | None] = nobody_objects,
    ) -> None:
        chosen = ContentSettings(
            split=content.split, frame="world", fps=FPS, faces=content.faces, **content.wanted
        )
        super().__init__(reader, chosen, max_side_px, left_out)
        self._scores: tuple[str, dict[tuple[Any, ...], float]] = ("", {})

    def _episode(
        self, row: Mapping[str, Any], tables: Any, settings: ContentSettings
    ) -> ExportEpisode:
        plain = super()._episode(row, tables, settings)
        if not plain.columns["camera_known"].values.all():
            raise ExportError("its cameras are not known in metres in every frame")
        cameras = tables.cameras[row["episode_id"]].sort_by("frame_index")
        frames = cameras["frame_index"].to_numpy()
        rotations = matrix_from_quaternion(_rows(cameras["world_from_camera_xyzw"]))
        poses = _poses(rotations, _rows(cameras["world_from_camera_m"])[:, None])
        columns = {TRANSFORMS + CAMERA: _flat(plain.grid.take(poses[:, 0]))}
        hands = tables.hands.get(row["episode_id"])
        if hands is not None:
            columns |= self._hands(hands, frames, plain.grid, row["shard"])
        if len(columns) == 1:
            raise ExportError("it has no hands")
        return replace(plain, columns=columns)

    def _hands(
        self, rows: pa.Table, frames: np.ndarray, grid: Grid, shard: str
    ) -> dict[str, Numbers]:
        """Transforms and confidences of the hands that are there at all."""
        columns: dict[str, Numbers] = {}
        scores = self._scores_of(shard)
        keys = zip(*(rows[c].to_pylist() for c in _KEY), strict=True)
        confidence = np.array([scores.get(key, 0.0) for key in keys], np.float32)
        sides = np.array(rows["side"].to_pylist())
        at = np.searchsorted(frames, rows["frame_index"].to_numpy())
        rotations = matrix_from_quaternion(_rows(rows["world_from_hand_xyzw"]))
        poses = _poses(rotations, _rows(rows["joints_world_m"]))
        for side in SIDES:
            mine = sides == side
            if not mine.any():
                continue
            known = np.full((len(frames), *poses.shape[1:]), np.nan)
            known[at[mine]] = poses[mine]
            sure = np.zeros((len(frames), 1), np.float32)
            sure[at[mine], 0] = confidence[mine]
            whole = held(known.reshape(len(frames), -1)).reshape(known.shape)
            for n, name in enumerate(joint_names(side)):
                columns[TRANSFORMS + name] = _flat(grid.take(whole[:, n]))
                columns[CONFIDENCES + name] = Numbers(grid.take(sure))
        return columns

    def _scores_of(self, shard: str) -> dict[tuple[Any, ...], float]:
        """Scores of hand poses by clip, track and frame. A shard's are kept until the next one."""
        if self._scores[0] != shard:
            rows = self.reader.table("hand_poses", columns=[*_KEY, "score"], shards=[shard])
            keys = zip(*(rows[c].to_pylist() for c in _KEY), strict=True)
            self._scores = shard, dict(zip(keys, rows["score"].to_pylist(), strict=True))
        return self._scores[1]


def _rows(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist(), np.float64)


def _poses(rotations: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(N, J, 4, 4) of one rotation (N, 3, 3) a row, and J positions (N, J, 3)."""
    poses = np.zeros((*positions.shape[:2], 4, 4))
    poses[..., :3, :3] = rotations[:, None]
    poses[..., :3, 3] = positions
    poses[..., 3, 3] = 1
    return poses


def _flat(poses: np.ndarray) -> Numbers:
    return Numbers(poses.reshape(len(poses), 16).astype(np.float32))
