"""Poses as EgoVerse has them: position, then the quaternion with w first."""

from __future__ import annotations

import numpy as np

from ego_assets.vision.geometry import quaternion_from_matrix

ABSENT = 1e9
"""Stands in positions for a hand that is not there; the rotation is then the identity."""
_PALM = (0, 5, 9, 13)
"""Wrist, and the knuckles of index, middle and ring finger."""


def pose_of(xyz_xyzw: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(T, 7) x y z w x y z of poses (T, 7) x y z x y z w."""
    found = np.array(xyz_xyzw[:, [0, 1, 2, 6, 3, 4, 5]], np.float64)
    found[:, 3:] /= np.linalg.norm(found[:, 3:], axis=1, keepdims=True)
    return _without(found, known)


def keypoints_of(joints: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(T, 63) joints, `ABSENT` where the hand is not known."""
    return np.where(known[:, None], joints, ABSENT)


def hand_pose_of(joints: np.ndarray, known: np.ndarray, side: str) -> np.ndarray:
    """(T, 7) `obs_ee_pose` of joints (T, 63), as EgoVerse's guide derives it (§6.2).

    The place is the mean of wrist and three knuckles. z points there from the wrist, y out of the
    palm, so a flat hand with the palm down, held forward, has the axes of the camera.
    """
    points = joints.reshape(-1, 21, 3)
    wrist = points[:, 0]
    place = points[:, _PALM].mean(axis=1)
    normal = np.cross(points[:, 5] - wrist, points[:, 17] - wrist)
    normal = normal if side == "right" else -normal
    z = _unit(place - wrist)
    y = _unit(normal - (normal * z).sum(axis=1, keepdims=True) * z)
    axes = np.stack([np.cross(y, z), y, z], axis=2)
    good = known & np.isfinite(axes).all(axis=(1, 2))
    axes[~good] = np.eye(3)
    return pose_of(np.concatenate([place, quaternion_from_matrix(axes)], axis=1), good)


def nowhere(count: int) -> np.ndarray:
    """(T, 7) of a hand that is never there."""
    return _without(np.zeros((count, 7)), np.zeros(count, bool))


def _without(poses: np.ndarray, known: np.ndarray) -> np.ndarray:
    poses[~known] = [ABSENT, ABSENT, ABSENT, 1.0, 0.0, 0.0, 0.0]
    return poses


def _unit(vectors: np.ndarray) -> np.ndarray:
    """NaN where there is no direction."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: np.ndarray = vectors / np.where(lengths > 1e-9, lengths, np.nan)
    return found
