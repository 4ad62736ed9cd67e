"""The object pose estimator that needs no weights: a model of each object, built as it is seen.

Here: tracks, frames of reference, rows, what a take carries. Not here: features
(`object_tracks`), geometry of one object (`object_model`).

An object that lies still is mapped with the cameras of the scene, so its scale is the scene's.
While it moves, its pose is PnP against that map, which grows by what comes into sight. An object
that never lies still is mapped from its own motion; its scale is then its own, and it has no
pose in the world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ego_assets.objects.baseline import model as object_model
from ego_assets.objects.baseline.features import FeatureTracks
from ego_assets.objects.baseline.model import ObjectModel, Observations
from ego_assets.objects.confidence import confidence_of
from ego_assets.objects.settings import ObjectPoseSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput
from ego_assets.vision.cameras import lens_of_cameras, normalised_points
from ego_assets.vision.geometry import (
    invert_pose,
    matrix_from_quaternion,
    pose_matrix,
    quaternion_from_matrix,
)
from ego_assets.vision.mask_scaling import decode_nearest
from ego_assets.vision.threads import allowed_threads, each, side_by_side

CARRIED_FRAMES = 60


@dataclass
class _Track:
    """What is found of one object in this clip. has_scene_scale: its units are the scene's."""

    model: ObjectModel
    frame_name: str
    has_scene_scale: bool


class BaselineObjectPoseEstimator:
    """`object_masks`, cameras and frames → `object_poses`."""

    name = "baseline"
    version = "3"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: ObjectPoseSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """One row per mask row; a pose is null where it is not valid."""
        masks = clip.tables["object_masks"].to_pylist()
        if not masks:
            return ClipOutput({"object_poses": []})
        with side_by_side():
            return self._process(clip, masks, carried or {})

    def _process(
        self, clip: ClipInput, masks: list[dict[str, Any]], carried: Carried
    ) -> ClipOutput:
        cameras = _cameras(clip)
        observations = self._observe(clip, masks)
        rows: list[dict[str, Any]] = []
        state: dict[str, Any] = {}
        tracks = sorted({r["track_id"] for r in masks})

        def solve(track: str) -> _Track | None:
            return self._solve(clip, observations[track], cameras, carried.get(track))

        for track, found in zip(tracks, each(solve, tracks), strict=True):
            mine = [r for r in masks if r["track_id"] == track]
            rows.extend(self._rows(clip, mine, found, cameras))
            if found is not None:
                state[track] = _carry(found)
        rows.sort(key=lambda r: (r["frame_index"], r["track_id"]))
        return ClipOutput({"object_poses": rows}, carried=state)

    def _observe(self, clip: ClipInput, masks: list[dict[str, Any]]) -> dict[str, Observations]:
        """Features of every track by frame, normalised, from one reading of the frames."""
        by_frame: dict[int, list[dict[str, Any]]] = {}
        for row in masks:
            by_frame.setdefault(row["frame_index"], []).append(row)
        tracks = {r["track_id"]: FeatureTracks() for r in masks}
        names = sorted(tracks)
        count = min(allowed_threads(), len(names))
        shares = [names[first::count] for first in range(count)]
        scale = 1.0
        for frame in clip.frames.read(max_side_px=self.settings.work_side_px):
            scale = frame.scale
            grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
            shown = {r["track_id"]: r for r in by_frame.get(frame.index, [])}

            def step(
                names: list[str],
                index: int = frame.index,
                grey: np.ndarray = grey,
                shown: Any = shown,
            ) -> None:
                small = [_small_mask(shown.get(name), grey.shape) for name in names]
                FeatureTracks.step_together([tracks[n] for n in names], index, grey, small)

            for _ in each(step, shares):
                pass
        lens = lens_of_cameras(clip)
        found: dict[str, Observations] = {}
        for track, features in tracks.items():
            found[track] = {}
            for index, places in features.places.items():
                pixels = np.array(list(places.values())).reshape(-1, 2)
                flat = normalised_points(lens, (pixels + 0.5) / scale - 0.5)
                found[track][index] = dict(zip(places, flat, strict=True))
        return found

    def _solve(
        self,
        clip: ClipInput,
        observations: Observations,
        cameras: dict[int, np.ndarray],
        known: dict[str, Any] | None,
    ) -> _Track | None:
        frames = sorted(f for f, places in observations.items() if places)
        if not frames:
            return None
        limit = self._limit_px(clip) / lens_of_cameras(clip).fx
        model, start, scene_scale = ObjectModel(), [frames[0]], False
        name = ""
        if known is not None:
            poses = {f: np.array(p) for f, p in known["poses"] if f in observations}
            model.points, _ = object_model.points_of(observations, poses, sorted(poses), 2 * limit)
            if len(model.points) >= object_model.MIN_POINTS:
                start, name = sorted(poses), known["object_frame"]
                scene_scale = known["has_scene_scale"]
        if not name:
            begun = self._begin(observations, cameras, frames, limit)
            if begun is None:
                return None
            start, model.points, scene_scale = begun
        share = self.settings.min_inlier_share
        object_model.extend(model, observations, frames, start, limit, share)
        if not model.poses:
            return None
        if not name:
            object_model.refine(model, observations, limit, share, rounds=3)
            first = min(model.poses)
            name = f"first_sight:{first}"
            shift = object_model.recentred(model, first)
            model.poses = {f: p @ shift for f, p in model.poses.items()}
        return _Track(model, name, scene_scale)

    def _limit_px(self, clip: ClipInput) -> float:
        """Error beyond which a feature is an outlier, in pixels of the full-size picture."""
        side = max(clip.frames.width, clip.frames.height)
        return self.settings.max_reprojection_error_px * max(1.0, side / self.settings.work_side_px)

    def _begin(
        self,
        observations: Observations,
        cameras: dict[int, np.ndarray],
        frames: list[int],
        limit: float,
    ) -> tuple[list[int], dict[int, np.ndarray], bool] | None:
        still = object_model.static_start(observations, cameras, frames, limit)
        if still is not None:
            return still[0], still[1], True
        moving = object_model.two_view_start(observations, frames, limit)
        if moving is not None:
            return moving[0], moving[1], False
        return None

    def _rows(
        self,
        clip: ClipInput,
        masks: list[dict[str, Any]],
        found: _Track | None,
        cameras: dict[int, np.ndarray],
    ) -> list[dict[str, Any]]:
        worlds = {r["frame_index"]: r for r in clip.tables["scene_reconstruction"].to_pylist()}
        rows = []
        focal = lens_of_cameras(clip).fx
        for mask in masks:
            frame = mask["frame_index"]
            row = clip.row(frame, mask["pts_s"]) | empty_columns(mask["track_id"])
            row |= {"backend": self.name, "quality_tier": self.quality_tier}
            rows.append(row)
            if found is None:
                row["invalid_reason"] = "no model of its shape"
                continue
            row["object_frame"] = found.frame_name
            pose = found.model.poses.get(frame)
            if pose is None:
                row["invalid_reason"] = found.model.reasons.get(frame, "no feature in view")
                continue
            inliers = found.model.inliers[frame]
            error_px = found.model.errors[frame] * focal
            row |= {
                "is_valid": True,
                "camera_from_object_m": pose[:3, 3].tolist(),
                "camera_from_object_xyzw": quaternion_from_matrix(pose[:3, :3]).tolist(),
                "inliers": inliers,
                "reprojection_error_px": error_px,
                "score": float(np.clip(inliers / 30, 0.05, 1.0) * mask["score"]),
            }
            row["confidence"] = confidence_of(row, self._limit_px(clip))
            world = worlds.get(frame)
            if found.has_scene_scale and frame in cameras and world is not None:
                placed = invert_pose(cameras[frame]) @ pose
                row |= {
                    "world_from_object_m": placed[:3, 3].tolist(),
                    "world_from_object_xyzw": quaternion_from_matrix(placed[:3, :3]).tolist(),
                    "world_id": world["world_id"],
                    "scale_kind": world["scale_kind"],
                }
        return rows


def empty_columns(track: str) -> dict[str, Any]:
    """The columns of a row without a pose."""
    empty = (
        "invalid_reason confidence camera_from_object_m camera_from_object_xyzw "
        "world_from_object_m world_from_object_xyzw world_id mesh_uri inliers "
        "reprojection_error_px"
    )
    return dict.fromkeys(empty.split()) | {
        "track_id": track,
        "is_valid": False,
        "object_frame": "none",
        "scale_kind": "arbitrary",
        "score": 0.0,
    }


def _cameras(clip: ClipInput) -> dict[int, np.ndarray]:
    """camera_from_world by frame, of the world that most frames share."""
    rows = [r for r in clip.tables["scene_reconstruction"].to_pylist() if r["is_valid"]]
    worlds = [r["world_id"] for r in rows]
    if not worlds:
        return {}
    most = max(sorted(set(worlds)), key=worlds.count)
    found = {}
    for row in rows:
        if row["world_id"] == most:
            rotation = matrix_from_quaternion(np.array(row["world_from_camera_xyzw"]))
            pose = pose_matrix(rotation, np.array(row["world_from_camera_m"]))
            found[row["frame_index"]] = invert_pose(pose)
    return found


def _small_mask(row: dict[str, Any] | None, shape: tuple[int, ...]) -> np.ndarray | None:
    if row is None:
        return None
    mask = decode_nearest(row["rle"], row["height_px"], row["width_px"], (shape[0], shape[1]))
    return cv2.erode(mask, np.ones((3, 3)))


def _carry(found: _Track) -> dict[str, Any]:
    """Poses of the last frames: the next clip shows some of them again."""
    last = sorted(found.model.poses)[-CARRIED_FRAMES:]
    return {
        "object_frame": found.frame_name,
        "has_scene_scale": found.has_scene_scale,
        "poses": [[f, found.model.poses[f].tolist()] for f in last],
    }
