"""The episodes of a lake with the MANO parameters of their hands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.exports.episode import ExportEpisode, Numbers
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lake_episodes import nobody_objects
from ego_assets.exports.motion.columns import known_columns
from ego_assets.exports.motion.lake import MotionEpisodes
from ego_assets.exports.motion.settings import PlacedContent
from ego_assets.exports.settings import ContentSettings
from ego_assets.exports.states import HandArrays
from ego_assets.exports.vitra.writer import mano_of
from ego_assets.reading import LakeReader
from ego_assets.rows import SIDES

_KEY = ("clip_id", "track_id", "frame_index")
_VALUES = ("mano_pose", "mano_betas", "joints_camera_m")


class VitraEpisodes(MotionEpisodes):
    """Episodes with MANO parameters as `hand_poses` has them, not cleaned: joints and parameters
    have to be of one hand."""

    def __init__(
        self,
        reader: LakeReader,
        content: PlacedContent,
        max_side_px: int,
        left_out: Callable[[str], str | None] = nobody_objects,
    ) -> None:
        chosen = ContentSettings(
            split=content.split, frame="world", faces=content.faces, **content.wanted
        )
        super().__init__(reader, chosen, max_side_px, left_out, every_frame=True)
        self._poses: tuple[str, dict[tuple[Any, ...], np.ndarray]] = ("", {})

    def _episode(
        self, row: Mapping[str, Any], tables: Any, settings: ContentSettings
    ) -> ExportEpisode:
        plain = super()._episode(row, tables, settings)
        poses = self._poses_of(row["shard"])
        frames = plain.grid.frames
        keys = HandArrays.of(tables.hands.get(row["episode_id"]), frames, "world").keys
        columns: dict[str, Numbers] = {}
        for side in SIDES:
            values = np.full((len(frames), 121), np.nan)
            for n, key in enumerate(keys[side]):
                if key in poses:
                    values[n] = poses[key]
            columns |= known_columns(mano_of(side), values, plain.grid)
        if not columns:
            raise ExportError(
                "its hands have no MANO parameters: estimate them with `hand_estimator: hamer`"
            )
        return replace(plain, columns={**plain.columns, **columns})

    def _poses_of(self, shard: str) -> dict[tuple[Any, ...], np.ndarray]:
        """{clip, track and frame: pose, shape, joints (121,)}, kept until the next shard."""
        if self._poses[0] != shard:
            columns = [*_KEY, *_VALUES, "is_valid"]
            rows = self.reader.table("hand_poses", columns=columns, shards=[shard])
            rows = rows.filter(pc.field("is_valid") & pc.is_valid(pc.field("mano_pose")))
            keys = zip(*(rows[c].to_pylist() for c in _KEY), strict=True)
            self._poses = shard, dict(zip(keys, _flat(rows), strict=True))
        return self._poses[1]


def _flat(rows: pa.Table) -> np.ndarray:
    sizes = zip(_VALUES, (48, 10, 63), strict=True)
    parts = [array_of(rows[name]).reshape(-1, size) for name, size in sizes]
    return np.concatenate(parts, axis=1).astype(np.float64)
