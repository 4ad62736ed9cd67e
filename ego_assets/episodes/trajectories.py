"""The cameras and hands of an episode as rows, in the camera frame and in the world.

Here: frames of reference. Not here: cleaning (`cleaning`), which frames (`rules`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ego_assets.episodes.cleaning import (
    ABSENT,
    FILLED,
    MEASURED,
    SMOOTHED,
    CleanPath,
    continuous,
    fill,
    fillable,
)
from ego_assets.episodes.takes import TakeFrames

_ORIGINS = {MEASURED: "measured", SMOOTHED: "smoothed", FILLED: "filled"}


@dataclass(frozen=True)
class EpisodeCameras:
    """The cameras of an episode of n frames in metres, with short gaps filled; NaN where not
    known. origin: (n,); is_whole: known in every frame."""

    origin: np.ndarray
    position: np.ndarray
    xyzw: np.ndarray

    @classmethod
    def of(cls, take: TakeFrames, here: slice, fill_gap_s: float) -> EpisodeCameras:
        known, pts = take.camera.is_metric[here], take.pts_s[here]
        position = np.where(known[:, None], take.camera.position[here], np.nan)
        xyzw = continuous(np.where(known[:, None], take.camera.xyzw[here], np.nan))
        origin = np.where(known, MEASURED, ABSENT)
        for first, last in fillable(pts, known, fill_gap_s):
            origin[first:last] = FILLED
        fill(pts, known, origin == FILLED, position, xyzw, np.empty((len(pts), 0, 3)))
        return cls(origin, position, xyzw)

    @property
    def is_whole(self) -> bool:
        return bool((self.origin != ABSENT).all())

    def rows(
        self, take: TakeFrames, here: slice, base: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        columns = (
            take.frames[here].tolist(),
            take.pts_s[here].tolist(),
            _or_none(self.position, self.origin != ABSENT),
            _or_none(self.xyzw, self.origin != ABSENT),
            self.origin.tolist(),
        )
        for frame, pts, position, xyzw, origin in zip(*columns, strict=True):
            yield {
                **base,
                "frame_index": frame,
                "pts_s": pts,
                "world_from_camera_m": position,
                "world_from_camera_xyzw": xyzw,
                "camera_origin": _ORIGINS.get(origin),
            }

    def to_world(self, position: np.ndarray, xyzw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Poses in the camera as poses in the world."""
        from scipy.spatial.transform import Rotation

        camera = Rotation.from_quat(self.xyzw)
        turned = np.full_like(xyzw, np.nan)
        known = np.isfinite(xyzw).all(axis=1)
        turned[known] = (camera[known] * Rotation.from_quat(xyzw[known])).as_quat()
        return camera.apply(position) + self.position, turned


def in_hand(
    hand_m: np.ndarray, hand_xyzw: np.ndarray, joints_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(position, rotation, joints in the hand frame) of hand poses; NaN stays."""
    from scipy.spatial.transform import Rotation

    local = np.full_like(joints_m, np.nan)
    known = np.isfinite(hand_xyzw).all(axis=1)
    if known.any():
        matrix = Rotation.from_quat(hand_xyzw[known]).as_matrix()
        local[known] = (joints_m[known] - hand_m[known][:, None]) @ matrix
    return hand_m, hand_xyzw, local


def hand_rows(
    take: TakeFrames, side: str, here: slice, path: CleanPath, camera: EpisodeCameras
) -> Iterator[dict[str, Any]]:
    """The rows of a hand, in the camera and, where that is known in metres, in the world."""
    from scipy.spatial.transform import Rotation

    at = np.flatnonzero(path.origin != ABSENT)
    turn = Rotation.from_quat(path.xyzw[at])
    position, matrix = path.position[at], turn.as_matrix()
    in_world = camera.origin[at] != ABSENT
    of_camera = Rotation.from_quat(np.where(in_world[:, None], camera.xyzw[at], [0, 0, 0, 1.0]))
    camera_m = np.where(in_world[:, None], camera.position[at], 0.0)
    if camera.is_whole:  # then the path is one in the world
        world_m, world_turn = position, turn
        position, turn = of_camera.inv().apply(position - camera_m), of_camera.inv() * turn
        matrix = turn.as_matrix()
    else:
        world_m, world_turn = of_camera.apply(position) + camera_m, of_camera * turn
    joints = np.einsum("nij,npj->npi", matrix, path.local[at]) + position[:, None]
    world = np.einsum("nij,npj->npi", of_camera.as_matrix(), joints) + camera_m[:, None]
    row = np.where(path.origin[at] == FILLED, -1, take.hands[side].row[here][at])
    columns = {
        "frame_index": take.frames[here][at].tolist(),
        "pts_s": take.pts_s[here][at].tolist(),
        "origin": [_ORIGINS[o] for o in path.origin[at].tolist()],
        "clip_id": _names(take.hand_rows["clip_id"], row),
        "track_id": _names(take.hand_rows["track_id"], row),
        "joints_camera_m": joints.tolist(),
        "camera_from_hand_m": position.tolist(),
        "camera_from_hand_xyzw": turn.as_quat().tolist(),
        "joints_world_m": _or_none(world, in_world),
        "world_from_hand_m": _or_none(world_m, in_world),
        "world_from_hand_xyzw": _or_none(world_turn.as_quat(), in_world),
    }
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True)) | {"side": side}


def _or_none(values: np.ndarray, is_there: np.ndarray) -> list[Any]:
    pairs = zip(values.tolist(), is_there.tolist(), strict=True)
    return [value if there else None for value, there in pairs]


def _names(column: pa.ChunkedArray, row: np.ndarray) -> list[str | None]:
    """The values of a column in some rows; None for row -1."""
    picked: list[str | None] = column.take(pa.array(row, mask=row < 0)).to_pylist()
    return picked
