"""The truth of a sample as rows of the tables: perfect upstream for an operator on its own.

Here: rows from `samples.Truth`. Not here: metrics, and anything an operator may import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.graph_run import SHARD
from ego_assets.operator import Rows
from ego_assets.vision.geometry import invert_pose, quaternion_from_matrix
from ego_assets.vision.rle import encode_mask, mask_box

SIDES = ("left", "right")
_BACKEND = {"backend": "truth", "quality_tier": "reference"}


def hand_rotation(joints: np.ndarray, side: str) -> np.ndarray:
    """(3, 3) rotation of the hand frame of (21, 3) joints: x to the middle knuckle, z backward."""
    x = joints[9] - joints[0]
    x = x / np.linalg.norm(x)
    y = (joints[5] - joints[17]) * (1.0 if side == "right" else -1.0)
    y = y - x * (x @ y)
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


class TruthTables:
    """True rows of one sample video, by table and clip. `truth` is a `samples.Truth`."""

    def __init__(self, truth: Any) -> None:
        self.truth = truth
        self.starts = [0, *truth.cuts]
        self._makers = {
            "object_masks": self._object_masks,
            "hand_masks": self._hand_masks,
            "hand_poses": self._hand_poses,
            "scene_reconstruction": self._cameras,
            "object_poses": self._object_poses,
        }

    def rows(self, table: str, clip: Mapping[str, Any]) -> Rows:
        """True rows of a table for the frames of a clip."""
        first_new = clip["start_frame"] + clip["context_frames"]
        made: Rows = []
        for frame in range(clip["start_frame"], min(clip["end_frame"], self.truth.frame_count)):
            base = {
                "video_id": clip["video_id"],
                "shard": SHARD,
                "clip_id": clip["clip_id"],
                "frame_index": frame,
                "pts_s": float(self.truth.pts_s[frame]),
                "is_context": frame < first_new,
            }
            made += [base | row for row in self._makers[table](frame, clip)]
        return made

    def _mask_row(self, mask: np.ndarray, track: str, label: str) -> dict[str, Any]:
        return {
            "track_id": track,
            "label": label,
            "score": 1.0,
            "box": mask_box(mask),
            "area_px": int(mask.sum()),
            "height_px": mask.shape[0],
            "width_px": mask.shape[1],
            "rle": encode_mask(mask),
        } | _BACKEND

    def _object_masks(self, frame: int, clip: Mapping[str, Any]) -> Rows:
        rows = []
        for o in np.flatnonzero(self.truth.object_visible[frame]):
            mask = self.truth.object_mask(frame, int(o))
            if mask.any():
                rows.append(self._mask_row(mask, f"{clip['take_id']}-o{o:03d}", "object"))
        return rows

    def _hand_masks(self, frame: int, clip: Mapping[str, Any]) -> Rows:
        rows = []
        for h in np.flatnonzero(self.truth.hand_visible[frame]):
            mask = self.truth.hand_mask(frame, int(h))
            if mask.any():
                row = self._mask_row(mask, f"{clip['take_id']}-h{h:03d}", "hand")
                rows.append(row | {"side": SIDES[h], "is_wearer": True})
        return rows

    def _hand_poses(self, frame: int, clip: Mapping[str, Any]) -> Rows:
        rows = []
        for h in np.flatnonzero(self.truth.hand_visible[frame]):
            joints = np.asarray(self.truth.joints_camera_m[frame, h], dtype=np.float64)
            pixels = np.asarray(self.truth.joints_px[frame, h], dtype=np.float64)
            if not (np.isfinite(joints).all() and np.isfinite(pixels).all()):
                continue
            rotation = hand_rotation(joints, SIDES[h])
            rows.append(
                {
                    "track_id": f"{clip['take_id']}-h{h:03d}",
                    "side": SIDES[h],
                    "is_valid": True,
                    "invalid_reason": None,
                    "joints_px": pixels.tolist(),
                    "joints_camera_m": joints.tolist(),
                    "camera_from_hand_m": joints[0].tolist(),
                    "camera_from_hand_xyzw": quaternion_from_matrix(rotation).tolist(),
                    "mano_pose": None,
                    "mano_betas": None,
                    "box": [*pixels.min(axis=0).tolist(), *pixels.max(axis=0).tolist()],
                    "score": 1.0,
                }
                | _BACKEND
            )
        return rows

    def _world_id(self, clip: Mapping[str, Any]) -> str:
        return f"{clip['take_id']}-truth"

    def _cameras(self, frame: int, clip: Mapping[str, Any]) -> Rows:
        pose = self.truth.world_from_camera[frame]
        t = self.truth
        return [
            {
                "world_id": self._world_id(clip),
                "is_valid": True,
                "invalid_reason": None,
                "world_from_camera_m": pose[:3, 3].tolist(),
                "world_from_camera_xyzw": quaternion_from_matrix(pose[:3, :3]).tolist(),
                "registration": "keyframe",
                "inliers": 100,
                "inlier_share": 1.0,
                "reprojection_error_px": 0.0,
                "scale_kind": "metric",
                "scale_spread": None,
                "scale_samples": None,
                "camera_model": "PINHOLE",
                "fx_px": float(t.fx),
                "fy_px": float(t.fy),
                "cx_px": float(t.cx),
                "cy_px": float(t.cy),
                "distortion": [],
                "intrinsics_source": "calibration_file",
                "points_uri": None,
            }
            | _BACKEND
        ]

    def _object_poses(self, frame: int, clip: Mapping[str, Any]) -> Rows:
        rows = []
        camera_from_world = invert_pose(self.truth.world_from_camera[frame])
        for o in np.flatnonzero(self.truth.object_visible[frame]):
            world = self.truth.world_from_object[frame, o]
            camera = camera_from_world @ world
            rows.append(
                {
                    "track_id": f"{clip['take_id']}-o{o:03d}",
                    "is_valid": True,
                    "invalid_reason": None,
                    "camera_from_object_m": camera[:3, 3].tolist(),
                    "camera_from_object_xyzw": quaternion_from_matrix(camera[:3, :3]).tolist(),
                    "world_from_object_m": world[:3, 3].tolist(),
                    "world_from_object_xyzw": quaternion_from_matrix(world[:3, :3]).tolist(),
                    "world_id": self._world_id(clip),
                    "object_frame": "mesh",
                    "mesh_uri": None,
                    "scale_kind": "metric",
                    "inliers": 100,
                    "reprojection_error_px": 0.0,
                    "score": 1.0,
                }
                | _BACKEND
            )
        return rows
