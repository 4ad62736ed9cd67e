"""One world for a take: the similarity between a clip's reconstruction and that of the clip before.

Here: what a clip carries to the next, and the alignment on the frames and points that both saw.
Not here: tracking, mapping, rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ego_assets.operator import Intrinsics
from ego_assets.vision.geometry import (
    matrix_from_quaternion,
    mean_rotation,
    pose_matrix,
    quaternion_from_matrix,
    rotation_angle_deg,
)

_LENS = ("fx", "fy", "cx", "cy")
_MIN_FRAMES = 3
_MIN_POINTS = 12
_MAX_TURN_DEG = 1.5
_MAX_SCALE_SPREAD = 0.08
_MAX_CENTRE_OVER_DEPTH = 0.03


@dataclass(frozen=True)
class Anchors:
    """The end of the clip before, in the take's world.

    poses: world_from_camera (4, 4) by frame index; points (P, 3); and, for each frame index, the
    points seen (n,) at pixels (n, 2) of the full-size picture. intrinsics: those that the clip
    before was mapped with, of the full-size picture; is_metric: of a world that has no scale of
    its own, since the camera has stood still in it.
    """

    world_id: str
    poses: dict[int, np.ndarray]
    points: np.ndarray
    seen: dict[int, tuple[np.ndarray, np.ndarray]]
    intrinsics: Intrinsics
    is_metric: bool = False

    def to_carried(self) -> dict[str, Any]:
        """Flat JSON values and arrays: what `ClipOutput.carried` may hold."""
        frames = sorted(self.poses)
        poses = np.array([self.poses[f] for f in frames]).reshape(-1, 4, 4)
        views = [self.seen.get(f, (np.empty(0, int), np.empty((0, 2)))) for f in frames]
        return {
            "world_id": self.world_id,
            "frames": np.array(frames, np.int64),
            "poses": np.concatenate(
                [poses[:, :3, 3], quaternion_from_matrix(poses[:, :3, :3])], axis=1
            ),
            "points": np.asarray(self.points, np.float64),
            "view_counts": np.array([len(v[0]) for v in views], np.int64),
            "view_points": np.concatenate([v[0] for v in views]).astype(np.int32),
            "view_px": np.concatenate([v[1] for v in views]).astype(np.float32),
            "camera_model": self.intrinsics.model,
            "camera_px": np.array([getattr(self.intrinsics, k) for k in _LENS], np.float64),
            "distortion": np.array(self.intrinsics.distortion, np.float64),
            "intrinsics_source": self.intrinsics.source,
            "focal_std_px": self.intrinsics.focal_std_px,
            "is_metric": self.is_metric,
        }

    @staticmethod
    def from_carried(carried: Mapping[str, Any] | None) -> Anchors | None:
        """None where the clip before left no reconstruction."""
        if not carried or not carried.get("world_id") or not len(carried["frames"]):
            return None
        frames = [int(f) for f in carried["frames"]]
        vectors = np.asarray(carried["poses"], np.float64)
        poses = pose_matrix(matrix_from_quaternion(vectors[:, 3:]), vectors[:, :3])
        ends = np.cumsum(np.asarray(carried["view_counts"], np.int64))[:-1]
        names = np.split(np.asarray(carried["view_points"]), ends)
        pixels = np.split(np.asarray(carried["view_px"]), ends)
        lens = dict(zip(_LENS, (float(v) for v in carried["camera_px"]), strict=True))
        return Anchors(
            world_id=str(carried["world_id"]),
            poses=dict(zip(frames, poses, strict=True)),
            points=np.asarray(carried["points"], np.float64).reshape(-1, 3),
            seen={f: (n, p) for f, n, p in zip(frames, names, pixels, strict=True)},
            intrinsics=Intrinsics(
                model=str(carried["camera_model"]),
                distortion=tuple(float(d) for d in carried["distortion"]),
                source=str(carried["intrinsics_source"]),
                focal_std_px=carried.get("focal_std_px"),
                **lens,
            ),
            is_metric=bool(carried.get("is_metric", False)),
        )


@dataclass(frozen=True)
class Similarity:
    """target = scale * rotation @ source + translation."""

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    def pose(self, world_from_camera: np.ndarray) -> np.ndarray:
        """The pose of the same camera in the target's world."""
        return pose_matrix(
            self.rotation @ world_from_camera[:3, :3],
            self.points(world_from_camera[None, :3, 3])[0],
        )

    def points(self, points: np.ndarray) -> np.ndarray:
        moved: np.ndarray = self.scale * points @ self.rotation.T + self.translation
        return moved


@dataclass(frozen=True)
class Alignment:
    """A similarity into the take's world with its evidence; `problem` says why it is not safe."""

    similarity: Similarity | None
    problem: str | None
    frames: int = 0
    points: int = 0
    turn_deg: float = 0.0
    centre_over_depth: float = 0.0
    scale_spread: float = 0.0


def align(
    anchors: Anchors,
    poses: Mapping[int, np.ndarray],
    pairs: tuple[np.ndarray, np.ndarray],
) -> Alignment:
    """Similarity from a clip's own world into that of `anchors`.

    poses: the clip's world_from_camera by frame index; pairs: the same points in the clip's world
    and in the anchors' (N, 3), (N, 3). Orientations give the rotation, the points' depths in the
    shared frames the scale, camera centres the rest: centres alone hardly move within an overlap.
    """
    shared = sorted(set(anchors.poses) & set(poses))
    if len(shared) < _MIN_FRAMES:
        return Alignment(None, f"only {len(shared)} shared frames are registered in both clips")
    old = np.array([anchors.poses[f] for f in shared])
    new = np.array([poses[f] for f in shared])
    rotation = mean_rotation(old[:, :3, :3] @ np.swapaxes(new[:, :3, :3], 1, 2))
    turn = float(np.median(rotation_angle_deg(rotation @ new[:, :3, :3], old[:, :3, :3])))
    scale, spread, depth = _scale(old, new, pairs)
    if scale is None:
        return Alignment(None, f"scale is open: {len(pairs[0])} shared points", len(shared))
    shift = np.median(old[:, :3, 3] - scale * new[:, :3, 3] @ rotation.T, axis=0)
    similarity = Similarity(scale, rotation, shift)
    off = np.linalg.norm(similarity.points(new[:, :3, 3]) - old[:, :3, 3], axis=1)
    centre = float(np.sqrt(np.mean(off**2))) / max(depth, 1e-12)
    problem = None
    if turn > _MAX_TURN_DEG or centre > _MAX_CENTRE_OVER_DEPTH or spread > _MAX_SCALE_SPREAD:
        problem = (
            f"the overlap disagrees: {turn:.2f} deg, {100 * centre:.1f} % of the depth, "
            f"scale within {100 * spread:.1f} %"
        )
    return Alignment(similarity, problem, len(shared), len(pairs[0]), turn, centre, spread)


def _scale(
    old: np.ndarray, new: np.ndarray, pairs: tuple[np.ndarray, np.ndarray]
) -> tuple[float | None, float, float]:
    """(scale or None, relative spread, median depth in the old world)."""
    source, target = pairs
    if len(source) >= _MIN_POINTS:
        ratios, depths = [], []
        for a, b in zip(new, old, strict=True):
            before = (source - a[:3, 3]) @ a[:3, 2]
            after = (target - b[:3, 3]) @ b[:3, 2]
            ahead = (before > 1e-9) & (after > 1e-9)
            ratios.append(after[ahead] / before[ahead])
            depths.append(after[ahead])
        ratio = np.concatenate(ratios)
        if len(ratio) >= _MIN_POINTS:
            scale = float(np.median(ratio))
            spread = float(np.median(np.abs(ratio / scale - 1.0)))
            return scale, spread, float(np.median(np.concatenate(depths)))
    return None, 0.0, 1.0
