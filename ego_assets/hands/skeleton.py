"""The 21 joints of a hand in MANO order: its bones, and the frame it has of its own.

The hand frame has its origin at the wrist, x towards the middle knuckle, z out of the back of the
hand. Right hands have the thumb at +y; a left hand is the mirror image (y negated).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ego_assets.vision.geometry import quaternion_from_matrix

BONES = tuple(
    (a, b)
    for f in range(5)
    for a, b in zip((0, *range(1 + 4 * f, 4 + 4 * f)), range(1 + 4 * f, 5 + 4 * f), strict=True)
)
"""20 bones as pairs of joints, finger by finger from the wrist."""
BACKWARD_DEG = -8.0
"""Mean flexion under which fingers bend backward: no hand does that."""


def hand_axes(joints: np.ndarray, side: str) -> np.ndarray:
    """(3, 3) camera_from_hand rotation: x to the middle knuckle, z out of the back of the hand."""
    x = joints[9] - joints[0]
    x = x / np.linalg.norm(x)
    across = joints[5] - joints[17]  # towards the thumb
    z = np.cross(x, across) if side == "right" else np.cross(across, x)
    z = z / np.linalg.norm(z)
    return np.column_stack([x, np.cross(z, x), z])


def placed_columns(joints: np.ndarray, side: str) -> dict[str, Any]:
    """Return the columns of `hand_poses` that say where a hand is, of (21, 3) joints in metres in
    the camera frame."""
    return {
        "joints_camera_m": joints.tolist(),
        "camera_from_hand_m": joints[0].tolist(),
        "camera_from_hand_xyzw": quaternion_from_matrix(hand_axes(joints, side)).tolist(),
    }


def finger_flexion_deg(joints: np.ndarray, is_right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles of (N, 21, 3) joints: (N, 4, 3) of knuckle, middle and end joint of the fingers,
    positive toward the palm, and (N, 2) of the thumb's two outer joints, without a sign.

    is_right: (N,) the side that the hand is said to be.
    """
    joints = np.asarray(joints, np.float64)
    forward = _unit(joints[:, 9] - joints[:, 0])
    across = (joints[:, 5] - joints[:, 17]) * np.where(is_right, 1.0, -1.0)[:, None]
    hinge = _unit(across - forward * (across * forward).sum(axis=1, keepdims=True))
    bones = np.stack([joints[:, b] - joints[:, a] for a, b in BONES], axis=1).reshape(-1, 5, 4, 3)
    fingers = bones[:, 1:]
    fingers = fingers - hinge[:, None, None] * (fingers * hinge[:, None, None]).sum(
        -1, keepdims=True
    )
    before, after = fingers[:, :, :-1], fingers[:, :, 1:]
    turn = (np.cross(before, after) * hinge[:, None, None]).sum(axis=-1)
    flexion = np.degrees(np.arctan2(turn, (before * after).sum(axis=-1)))
    thumb = _unit(bones[:, 0, 1:])
    cosine = (thumb[:, :-1] * thumb[:, 1:]).sum(axis=-1)
    return flexion, np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit
