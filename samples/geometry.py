"""Rigid poses as (4, 4) matrices, their interpolation, and smooth timing."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation, Slerp


def pose(rotation: np.ndarray, translation: np.ndarray | list[float]) -> np.ndarray:
    """(4, 4) pose from a (3, 3) rotation and a translation."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = translation
    return matrix


def ease(x: float) -> float:
    """Minimum-jerk timing (Flash and Hogan 1985): 0 to 1 with no speed at both ends."""
    x = min(max(x, 0.0), 1.0)
    return min(1.0, x * x * x * (10 - 15 * x + 6 * x * x))  # rounding may pass 1


def blend(start: np.ndarray, end: np.ndarray, x: float) -> np.ndarray:
    """Pose between two poses: straight translation, shortest rotation."""
    rotations = Rotation.from_matrix(np.stack([start[:3, :3], end[:3, :3]]))
    rotation = Slerp([0.0, 1.0], rotations)(x).as_matrix()
    return pose(rotation, (1 - x) * start[:3, 3] + x * end[:3, 3])


def look_at(eye: np.ndarray, target: np.ndarray, roll_rad: float) -> np.ndarray:
    """world_from_camera of an OpenCV camera; the world's y axis points down."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    axes = np.column_stack([right, np.cross(forward, right), forward])
    return pose(axes @ Rotation.from_rotvec([0, 0, roll_rad]).as_matrix(), eye)
