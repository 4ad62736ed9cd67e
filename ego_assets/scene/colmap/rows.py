"""Rows and arrays of a reconstruction: what every frame of a clip is told with, pose or none.

Not here: the reconstruction (`reconstructor`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ego_assets.operator import Intrinsics
from ego_assets.scene.colmap.mapping import SparseMap
from ego_assets.scene.colmap.metric_scale import MetricScale
from ego_assets.scene.colmap.point_tracks import TrackTable
from ego_assets.scene.colmap.registration import Registration
from ego_assets.vision.geometry import quaternion_from_matrix


def camera_columns(
    world_id: str, intrinsics: Intrinsics, scale: MetricScale | None
) -> dict[str, Any]:
    """What all rows of a clip say: its world, in which scale, and the lens."""
    return {
        "world_id": world_id,
        "scale_kind": "arbitrary" if scale is None else scale.kind,
        "scale_spread": None if scale is None else scale.spread,
        "scale_samples": None if scale is None else scale.samples,
        "camera_model": intrinsics.model,
        "fx_px": float(intrinsics.fx),
        "fy_px": float(intrinsics.fy),
        "cx_px": float(intrinsics.cx),
        "cy_px": float(intrinsics.cy),
        "distortion": [float(d) for d in intrinsics.distortion],
        "intrinsics_source": intrinsics.source,
        "focal_std_px": intrinsics.focal_std_px,
        "points_uri": None,
    }


def evidence_of(found: Registration, full_px: float) -> dict[str, Any]:
    valid = found.pose is not None
    tried = found.matches > 0
    pose = found.pose
    motion = "static" if found.kind == "static" else "moving"
    return {
        "is_valid": valid,
        "invalid_reason": None if valid else found.reason,
        "motion_kind": motion if valid else "unknown",
        "world_from_camera_m": None if pose is None else pose[:3, 3].tolist(),
        "world_from_camera_xyzw": (
            None if pose is None else quaternion_from_matrix(pose[:3, :3]).tolist()
        ),
        "registration": found.kind if valid else None,
        "inliers": found.inliers if tried else None,
        "inlier_share": found.share if tried else None,
        "witness_share": found.agreeing,
        "reprojection_error_px": found.error * full_px if found.inliers else None,
    }


def arrays_of(tracks: TrackTable, scene: SparseMap, full_px: float) -> dict[str, np.ndarray]:
    return {
        "points": scene.points.astype(np.float32),
        "colors": tracks.colours[scene.track].astype(np.uint8).reshape(-1, 3),
        "errors": (scene.errors_px * full_px).astype(np.float32),
    }
