"""Camera models in numpy and OpenCV: pixels to rays and back, for every model of the contract.

Here: `Intrinsics` applied to points, and intrinsics of a shrunken picture. Not here: poses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from ego_assets.operator import ClipInput, Intrinsics, intrinsics_of

_FAR = 10.0
"""A normalised coordinate beyond it is one that the lens model cannot undo."""


def lens_of_cameras(clip: ClipInput) -> Intrinsics:
    """The lens that a clip's rows of `scene_reconstruction` were found through: the one given, or
    the one that they were calibrated with. What is placed with these cameras needs the same."""
    rows = clip.tables["scene_reconstruction"].slice(0, 1).to_pylist()
    return lens_of_scene(rows[0] if rows else {}, clip.intrinsics)


def lens_of_scene(row: Mapping[str, Any], given: Intrinsics) -> Intrinsics:
    """The lens of a clip's poses. row: one of its rows of `scene_reconstruction`, empty if it has
    none; given: that of its video."""
    return intrinsics_of(row) if row.get("intrinsics_source") == "self_calibrated" else given


def scaled_intrinsics(intrinsics: Intrinsics, scale_x: float, scale_y: float) -> Intrinsics:
    """Intrinsics of the picture resized by (scale_x, scale_y); pixel centres at integers."""
    return dataclasses.replace(
        intrinsics,
        fx=intrinsics.fx * scale_x,
        fy=intrinsics.fy * scale_y,
        cx=(intrinsics.cx + 0.5) * scale_x - 0.5,
        cy=(intrinsics.cy + 0.5) * scale_y - 0.5,
        focal_std_px=intrinsics.focal_std_px and intrinsics.focal_std_px * scale_x,
    )


def normalised_points(intrinsics: Intrinsics, points_px: np.ndarray) -> np.ndarray:
    """(N, 2) pixels to (N, 2) undistorted coordinates on the plane z = 1.

    Fisheye points beyond what the model can undo are far outside (OpenCV's -1e6): callers that
    gate by distance drop them.
    """
    points = np.ascontiguousarray(points_px, dtype=np.float64).reshape(-1, 1, 2)
    if not len(points):
        return np.empty((0, 2))
    matrix = intrinsics.matrix()
    if intrinsics.model == "OPENCV_FISHEYE":
        lens = np.asarray(_four(intrinsics.distortion))
        return cv2.fisheye.undistortPoints(points, matrix, lens).reshape(-1, 2)
    if intrinsics.model == "OPENCV" and any(intrinsics.distortion):
        lens = np.asarray(_four(intrinsics.distortion))
        return cv2.undistortPoints(points, matrix, lens).reshape(-1, 2)
    flat = points.reshape(-1, 2)
    return (flat - (intrinsics.cx, intrinsics.cy)) / (intrinsics.fx, intrinsics.fy)


def seen_points(intrinsics: Intrinsics, points_px: np.ndarray) -> np.ndarray | None:
    """As `normalised_points`; None unless the lens can have seen every one of them."""
    points = normalised_points(intrinsics, points_px)
    return points if np.isfinite(points).all() and np.abs(points).max() <= _FAR else None


def project_points(intrinsics: Intrinsics, points_camera: np.ndarray) -> np.ndarray:
    """(N, 3) points of the camera frame, z > 0, to (N, 2) pixels."""
    points = np.ascontiguousarray(points_camera, dtype=np.float64).reshape(-1, 1, 3)
    if not len(points):
        return np.empty((0, 2))
    zero, matrix = np.zeros(3), intrinsics.matrix()
    lens = np.asarray(_four(intrinsics.distortion))
    if intrinsics.model == "OPENCV_FISHEYE":
        projected, _ = cv2.fisheye.projectPoints(points, zero, zero, matrix, lens)
    else:
        projected, _ = cv2.projectPoints(points, zero, zero, matrix, lens)
    return projected.reshape(-1, 2)


def undistortion(
    intrinsics: Intrinsics, matrix: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Maps for `cv2.remap` from a picture of `size` (width, height) to what a pinhole camera of the
    same size and of `matrix` (3, 3) would see; None: it is one already."""
    if intrinsics.model == "PINHOLE" and np.array_equal(matrix, intrinsics.matrix()):
        return None
    lens, here = np.asarray(_four(intrinsics.distortion)), intrinsics.matrix()
    make: Any = cv2.initUndistortRectifyMap
    if intrinsics.model == "OPENCV_FISHEYE":
        make = cv2.fisheye.initUndistortRectifyMap
    maps = make(here, lens, np.eye(3), matrix, size, cv2.CV_32FC1)
    return maps[0], maps[1]


def _four(distortion: tuple[float, ...]) -> tuple[float, ...]:
    return (tuple(distortion) + (0.0,) * 4)[:4]
