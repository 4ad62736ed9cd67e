"""The camera of every frame: perspective-n-point on a map's points, with the evidence.

Here: PnP, its refinement, the rejection of jumps. Not here: the map (`mapping`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ego_assets.scene.colmap.mapping import SparseMap
from ego_assets.scene.colmap.point_tracks import TrackTable, cells_of
from ego_assets.scene.settings import ReconstructSettings
from ego_assets.scene.tables import CameraReason
from ego_assets.vision.cameras import normalised_points
from ego_assets.vision.geometry import invert_pose, pose_matrix, rotation_angle_deg

_RANSAC_TRIALS = 200
_REFINE_STEPS = 8
_MAX_JUMP_OVER_DEPTH = 0.03
_MAX_JUMP_DEG = 3.0
_JUMP_FACTOR = 4.0


@dataclass(frozen=True)
class Registration:
    """One frame's camera, or why there is none.

    pose: world_from_camera (4, 4); error: RMS over the inliers, pixels of the shrunken picture;
    points: rows of the map's points that support the pose (n,), at `xy` (n, 2); agreeing: share of
    the features that took no part in the map which agree with the pose (`witnesses`), None if none
    can tell.
    """

    pose: np.ndarray | None
    kind: str | None = None
    inliers: int = 0
    matches: int = 0
    error: float = 0.0
    reason: CameraReason | None = None
    points: np.ndarray | None = None
    xy: np.ndarray | None = None
    agreeing: float | None = None

    @property
    def share(self) -> float:
        return self.inliers / self.matches if self.matches else 0.0


def by_frame(tracks: TrackTable, found: Sequence[Registration]) -> dict[int, Registration]:
    """{frame index: registration} of one for each frame of `tracks`, in order."""
    return {int(f): r for f, r in zip(tracks.frame_index, found, strict=True)}


def register_frames(
    tracks: TrackTable, scene: SparseMap, settings: ReconstructSettings
) -> list[Registration]:
    """One registration for each frame of `tracks`, in order; jumps are already rejected."""
    found: list[Registration] = []
    guess: np.ndarray | None = None
    for position in range(len(tracks)):
        registration = _register(tracks, scene, position, guess, settings)
        guess = registration.pose
        found.append(registration)
    return reject_jumps(found, tracks.pts_s, _typical_depth(found, scene))


def _register(
    tracks: TrackTable,
    scene: SparseMap,
    position: int,
    guess: np.ndarray | None,
    settings: ReconstructSettings,
) -> Registration:
    ids, xy = tracks.at(position)
    rows = np.searchsorted(scene.track, ids)
    rows = np.minimum(rows, len(scene.track) - 1)
    known = scene.track[rows] == ids
    rows, xy = rows[known], xy[known]
    count = len(rows)
    if count < settings.min_inliers:
        return Registration(None, matches=count, reason="few mapped points in view")
    points = scene.points[rows]
    flat = normalised_points(scene.intrinsics, xy)
    focal = scene.intrinsics.fx
    limit = settings.max_reprojection_error_px / focal
    pose = scene.poses.get(position)
    kind = "pnp" if pose is None else "keyframe"
    if pose is None:
        pose = _solve(points, flat, guess, limit, settings)
    if pose is None:
        return Registration(None, matches=count, reason="few mapped points agree")
    camera_from_world = invert_pose(pose)
    if kind == "pnp":
        camera_from_world = refine_pose(camera_from_world, points, flat, limit)
    error = _residuals(camera_from_world, points, flat)
    good = error < limit
    inliers = int(good.sum())
    rms = float(np.sqrt(np.mean(error[good] ** 2))) * focal if inliers else 0.0
    evidence: dict[str, Any] = {"inliers": inliers, "matches": count, "error": rms}
    if inliers < settings.min_inliers or inliers < settings.min_inlier_share * count:
        return Registration(None, reason="few mapped points agree", **evidence)
    # What lies in one corner may be a thing that moves, and hardly tells a turn from a way.
    if len(np.unique(cells_of(xy[good], tracks.size))) < settings.min_inlier_cells:
        return Registration(None, reason="mapped points in one part of the picture", **evidence)
    return Registration(
        invert_pose(camera_from_world), kind, points=rows[good], xy=xy[good], **evidence
    )


def _solve(
    points: np.ndarray,
    flat: np.ndarray,
    guess: np.ndarray | None,
    limit: float,
    settings: ReconstructSettings,
) -> np.ndarray | None:
    """world_from_camera, from the neighbour's pose if that nearly fits, else by RANSAC."""
    if guess is not None:
        near = refine_pose(invert_pose(guess), points, flat, 4 * limit)
        share = float(np.mean(_residuals(near, points, flat) < limit))
        if share >= max(0.8, settings.min_inlier_share):
            return invert_pose(near)
    cv2.setRNGSeed(settings.seed)
    try:
        ok, turn, shift, inliers = cv2.solvePnPRansac(
            points, flat, np.eye(3), None, iterationsCount=_RANSAC_TRIALS,
            reprojectionError=limit, confidence=0.999, flags=cv2.SOLVEPNP_EPNP,
        )  # fmt: skip
    except cv2.error:
        return None
    if not ok or inliers is None or not (np.isfinite(turn).all() and np.isfinite(shift).all()):
        return None
    return invert_pose(pose_matrix(cv2.Rodrigues(turn)[0], shift.ravel()))


def refine_pose(
    camera_from_world: np.ndarray, points: np.ndarray, flat: np.ndarray, limit: float
) -> np.ndarray:
    """Gauss-Newton with Cauchy weights on normalised residuals; `limit` is an outlier's error.

    points (N, 3) world, flat (N, 2) on z = 1. Points behind the camera have no weight.
    """
    pose = camera_from_world.copy()
    for _ in range(_REFINE_STEPS):
        camera = points @ pose[:3, :3].T + pose[:3, 3]
        ahead = camera[:, 2] > 1e-6
        if ahead.sum() < 4:
            return pose
        x, y, z = camera[ahead].T
        u, v = x / z, y / z
        error = np.stack([u - flat[ahead, 0], v - flat[ahead, 1]], axis=1)
        weight = 1.0 / (1.0 + (np.sum(error**2, axis=1) / (0.5 * limit) ** 2))
        zero = np.zeros_like(u)
        rows_u = np.stack([1 / z, zero, -u / z, -u * v, 1 + u * u, -v], axis=1)
        rows_v = np.stack([zero, 1 / z, -v / z, -1 - v * v, u * v, u], axis=1)
        jacobian = np.stack([rows_u, rows_v], axis=1)
        weighted = jacobian * weight[:, None, None]
        normal = np.einsum("nki,nkj->ij", weighted, jacobian)
        gradient = np.einsum("nki,nk->i", weighted, error)
        # Damping in proportion keeps a step finite where the points leave a direction open.
        normal[np.diag_indices(6)] *= 1.0 + 1e-6
        try:
            step = -np.linalg.solve(normal, gradient)
        except np.linalg.LinAlgError:
            return pose
        change = pose_matrix(cv2.Rodrigues(step[3:])[0], step[:3])
        pose = change @ pose
        if np.abs(step).max() < 1e-9:
            break
    return pose


def _residuals(camera_from_world: np.ndarray, points: np.ndarray, flat: np.ndarray) -> np.ndarray:
    camera = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    ahead = camera[:, 2] > 1e-6
    error = np.full(len(points), np.inf)
    error[ahead] = np.linalg.norm(camera[ahead, :2] / camera[ahead, 2:] - flat[ahead], axis=1)
    return error


def _typical_depth(found: Sequence[Registration], scene: SparseMap) -> float:
    depths = [
        np.median(depths_in(r.pose, scene.points[r.points]))
        for r in found
        if r.pose is not None and r.points is not None
    ]
    return float(np.median(depths)) if depths else 1.0


def depths_in(world_from_camera: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Depth along z of world points (N, 3) in a camera."""
    depths: np.ndarray = (points - world_from_camera[:3, 3]) @ world_from_camera[:3, 2]
    return depths


def reject_jumps(
    found: Sequence[Registration], pts_s: np.ndarray, depth: float
) -> list[Registration]:
    """Drop frames by PnP that lie off the line between their registered neighbours.

    Off is more than 4 times the neighbours' own step and a small share of the scene's depth (or
    a few degrees): a head turns smoothly at video rate, a wrong pose does not.
    """
    kept = list(found)
    valid = [i for i, r in enumerate(found) if r.pose is not None]
    for before, here, after in zip(valid, valid[1:], valid[2:], strict=False):
        middle = found[here]
        if middle.kind != "pnp" or pts_s[after] - pts_s[before] > 0.5:
            continue
        a, b, c = (np.asarray(found[i].pose) for i in (before, here, after))
        share = (pts_s[here] - pts_s[before]) / max(pts_s[after] - pts_s[before], 1e-9)
        off = float(np.linalg.norm(b[:3, 3] - (1 - share) * a[:3, 3] - share * c[:3, 3]))
        step = float(np.linalg.norm(c[:3, 3] - a[:3, 3]))
        turn_step = float(rotation_angle_deg(a[:3, :3], c[:3, :3]))
        turn = min(
            float(rotation_angle_deg(a[:3, :3], b[:3, :3])),
            float(rotation_angle_deg(c[:3, :3], b[:3, :3])),
        )
        if off > max(_JUMP_FACTOR * step, _MAX_JUMP_OVER_DEPTH * depth) or turn > max(
            _JUMP_FACTOR * turn_step, _MAX_JUMP_DEG
        ):
            kept[here] = Registration(
                None, inliers=middle.inliers, matches=middle.matches, error=middle.error,
                reason="jumps",
            )  # fmt: skip
    return kept
