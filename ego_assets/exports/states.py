"""Turns poses of hands, robot joints and cameras into the states that policies are trained on.

Here: from rows of a lake to arrays, and from arrays to columns on a grid; exports and training
share them. Not here: which episodes there are (`lake_episodes`). A hand's state is its wrist, the
wrist's rotation as the first two columns of its matrix (Zhou et al., *On the Continuity of Rotation
Representations in Neural Networks*, 2019), and either the five fingertips or the joints of a robot
hand. The action of a tick is the state of the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.exports.episode import Numbers
from ego_assets.exports.grid import ExportError, Grid
from ego_assets.exports.lake_joints import EpisodeJoints
from ego_assets.rows import SIDES

ORIGINS = {"measured": 1, "smoothed": 2, "filled": 3}
"""Values of `hand_origin`; 0: no hand, and the state is that of the last tick with one; before
the first, 0 with the identity as rotation."""
UNPLACED = "its cameras are not known in metres in every frame"
_TIPS = (4, 8, 12, 16, 20)
_FINGERS = ("thumb", "index", "middle", "ring", "little")
_AXES = ("x", "y", "z")
_NO_TURN = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Columns of the rotation of what is not known yet."""
_ROTATION = tuple(f"r{row}{column}" for column in (1, 2) for row in (1, 2, 3))
PoseKey = tuple[str, str, int]
"""Clip, track and frame of a hand pose."""


@dataclass(frozen=True)
class HandArrays:
    """Hands of an episode of N frames. position, xyzw, tips: by side, (N, 3), (N, 4), (N, 5, 3),
    NaN where there is none; origin: (N, 2); keys: by side, (clip, track, frame) of the pose."""

    position: Mapping[str, np.ndarray]
    xyzw: Mapping[str, np.ndarray]
    tips: Mapping[str, np.ndarray]
    origin: np.ndarray
    keys: Mapping[str, list[PoseKey | None]]

    @classmethod
    def of(cls, rows: pa.Table | None, frames: np.ndarray, frame: str) -> HandArrays:
        """rows: of `episode_hands`, or None; frames: (N,) rising; frame: camera or world."""
        count = len(frames)
        position = {s: np.full((count, 3), np.nan) for s in SIDES}
        xyzw = {s: np.full((count, 4), np.nan) for s in SIDES}
        tips = {s: np.full((count, 5, 3), np.nan) for s in SIDES}
        keys: dict[str, list[PoseKey | None]] = {s: [None] * count for s in SIDES}
        origin = np.zeros((count, 2), np.int64)
        found = cls(position, xyzw, tips, origin, keys)
        if rows is None:
            return found
        if rows[f"{frame}_from_hand_m"].null_count:
            raise ExportError(UNPLACED)
        for number, side in enumerate(SIDES):
            mine = rows.filter(pc.field("side") == side)
            indices = mine["frame_index"].to_numpy()
            at = np.searchsorted(frames, indices)
            position[side][at] = array_of(mine[f"{frame}_from_hand_m"])
            xyzw[side][at] = array_of(mine[f"{frame}_from_hand_xyzw"])
            tips[side][at] = array_of(mine[f"joints_{frame}_m"])[:, list(_TIPS)]
            origin[at, number] = [ORIGINS[o] for o in mine["origin"].to_pylist()]
            columns = (mine["clip_id"].to_pylist(), mine["track_id"].to_pylist(), indices.tolist())
            for n, key in zip(at.tolist(), zip(*columns, strict=True), strict=True):
                if key[1] is not None:
                    keys[side][n] = key
        return found


def state_and_action(
    hands: HandArrays, joints: EpisodeJoints | None, grid: Grid, *, with_tips: bool
) -> dict[str, Numbers]:
    """`observation.state` and `action` on a grid, of wrists with fingertips, joints, or both."""
    state, names = _state(hands, joints, grid, with_tips)
    return {
        "observation.state": Numbers(state, names),
        "action": Numbers(np.concatenate([state[1:], state[-1:]]), names),
    }


def _state(
    hands: HandArrays, joints: EpisodeJoints | None, grid: Grid, with_tips: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(T, n) state on the grid, and the names of the n."""
    parts: list[np.ndarray] = []
    names: list[str] = []
    for side in SIDES:
        columns = [held(hands.position[side]), held(rotation_6d(hands.xyzw[side]), _NO_TURN)]
        said = [f"wrist_{a}" for a in _AXES] + [f"wrist_{r}" for r in _ROTATION]
        if with_tips:
            columns.append(held(hands.tips[side].reshape(len(hands.origin), 15)))
            said += [f"{finger}_tip_{a}" for finger in _FINGERS for a in _AXES]
        if joints is not None:
            columns.append(held(joints.values[side]))
            said += list(joints.names[side])
        parts += columns
        names += [f"{side}_{name}" for name in said]
    return grid.take(np.concatenate(parts, axis=1)).astype(np.float32), tuple(names)


def camera_columns(cameras: pa.Table, grid: Grid) -> dict[str, Numbers]:
    """The camera in the world, and whether it is known."""
    known = pc.is_valid(cameras["world_from_camera_m"]).to_numpy(zero_copy_only=False)
    pose = np.full((len(known), 7), np.nan)
    rows = cameras.filter(pa.array(known))
    if rows.num_rows:
        pose[known, :3] = rows["world_from_camera_m"].to_pylist()
        pose[known, 3:] = rows["world_from_camera_xyzw"].to_pylist()
    turn = held(rotation_6d(pose[:, 3:]), _NO_TURN)
    state = np.concatenate([held(pose[:, :3]), turn], axis=1)
    return {
        "camera": Numbers(grid.take(state).astype(np.float32), (*_AXES, *_ROTATION)),
        "camera_known": Numbers(grid.take(known[:, None]), ("known",)),
    }


def object_columns(poses: Sequence[np.ndarray], count: int, grid: Grid) -> dict[str, Numbers]:
    """Poses (N, 7) of up to `count` objects in the frames of a grid, and at which ticks they are
    known; one that is missing never is."""
    if not count:
        return {}
    parts, known, names = [], [], []
    for number in range(count):
        # Held before the grid takes of it: the last pose may be of a frame between two ticks.
        if number < len(poses):
            pose, rows = poses[number], grid.rows
        else:
            pose, rows = np.full((1, 7), np.nan), np.zeros(len(grid), int)
        known.append(np.isfinite(pose).all(axis=1)[rows] & ~grid.is_held)
        parts += [held(pose[:, :3])[rows], held(rotation_6d(pose[:, 3:]), _NO_TURN)[rows]]
        names += [f"object{number}_{name}" for name in (*_AXES, *_ROTATION)]
    return {
        "observation.environment_state": Numbers(
            np.concatenate(parts, axis=1).astype(np.float32), tuple(names)
        ),
        "objects_known": Numbers(
            np.stack(known, axis=1), tuple(f"object{number}" for number in range(count))
        ),
    }


def rotation_6d(xyzw: np.ndarray) -> np.ndarray:
    """(N, 6) first and second column of the matrices of quaternions (N, 4); NaN stays."""
    x, y, z, w = (xyzw / np.linalg.norm(xyzw, axis=1, keepdims=True)).T
    first = (1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w))
    second = (2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w))
    return np.stack([*first, *second], axis=1)


def held(values: np.ndarray, before: Sequence[float] | float = 0.0) -> np.ndarray:
    """Values (N, n) where a row of NaN has what the last one before has that is known. Rows before
    the first one are `before`: what comes later must not be seen before its time."""
    known = np.isfinite(values).all(axis=1)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    found: np.ndarray = np.where(last[:, None] < 0, before, values[last])
    return found
