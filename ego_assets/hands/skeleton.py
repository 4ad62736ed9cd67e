"""An anatomical hand of 21 joints in MANO order: lengths, limits, forward kinematics.

Here: geometry of a hand in its own frame. Not here: fitting it to pictures (`hands`).

The hand frame has its origin at the wrist, x towards the middle knuckle, z out of the back of the
hand. Right hands have the thumb at +y; a left hand is the mirror image (y negated).
Lengths are fractions of the hand's length (Buchholz, Armstrong and Goldstein 1992); a hand is
taken to be HAND_LENGTH_M long, the mean of men and women (Greiner 1991).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ego_assets.vision.geometry import quaternion_from_matrix

HAND_LENGTH_M = 0.183
TIPS = (4, 8, 12, 16, 20)
BASES = (1, 5, 9, 13, 17)
_METACARPAL = np.array([0.118, 0.463, 0.446, 0.421, 0.414])
_METACARPAL_YAW = np.radians([48.0, 15.0, 2.0, -11.0, -24.0])
_PHALANGES = np.array(
    [
        [0.251, 0.196, 0.158],
        [0.245, 0.143, 0.112],
        [0.266, 0.170, 0.118],
        [0.244, 0.165, 0.116],
        [0.204, 0.117, 0.104],
    ]
)
_RADII = np.array(
    [
        [0.070, 0.060, 0.052, 0.044],
        [0.056, 0.048, 0.043, 0.038],
        [0.056, 0.049, 0.044, 0.039],
        [0.053, 0.047, 0.042, 0.037],
        [0.048, 0.042, 0.037, 0.034],
    ]
)
FLEXION_SHARES = np.array([[0.3, 0.4, 0.3], *[[0.42, 0.38, 0.20]] * 4])
"""How the flexion of a finger is shared between its joints (they move together when grasping)."""
FLEXION_LIMITS = (-0.2, 3.6)
SPREAD_LIMITS = (-0.35, 0.35)

BONES = tuple(
    (a, b)
    for f in range(5)
    for a, b in zip((0, *range(1 + 4 * f, 4 + 4 * f)), range(1 + 4 * f, 5 + 4 * f), strict=True)
)
"""20 bones as pairs of joints, finger by finger from the wrist."""
BONE_RADII = (
    np.concatenate([np.column_stack([[0.075, *r[:-1]], r]) for r in _RADII]) * HAND_LENGTH_M
)
"""(20, 2) radius of the flesh at both ends of each bone, metres at scale 1."""


SIZE = 14
"""Parameters of a hand: rotation vector 3, translation 3 (x / z, y / z, log z), flexion 5, spread
of the thumb, of the fingers, and flexion that all fingers share."""


def rest_bases() -> np.ndarray:
    """(5, 3) first joint of each finger of a right hand in the hand frame, metres."""
    length = _METACARPAL * HAND_LENGTH_M
    bases = np.column_stack(
        [length * np.cos(_METACARPAL_YAW), length * np.sin(_METACARPAL_YAW), np.zeros(5)]
    )
    bases[0, 2] = -0.04 * HAND_LENGTH_M
    return bases


_BASES = rest_bases()
_YAW = _METACARPAL_YAW * np.array([0.75, 0.5, 0.5, 0.5, 0.5])
_PITCH = np.array([0.35, 0, 0, 0, 0])
_JOINTS = np.array([[b + bone for b in BASES] for bone in range(4)])
"""(4, 5) which joints lie at the start, and at the end of each phalanx, of the fingers."""


def hand_joints(flexion: np.ndarray, spread: np.ndarray, side: str, scale: float) -> np.ndarray:
    """(N, 21, 3) joints in the hand frame, metres.

    flexion: (N, 5) radians of each whole finger; spread: (N, 5) radians sideways at its base;
    side: left or right; scale: of all lengths.
    """
    count = len(flexion)
    joints = np.zeros((count, 21, 3))
    at = np.broadcast_to(_BASES, (count, 5, 3))
    yaw = _YAW + spread
    cosine, sine = np.cos(yaw), np.sin(yaw)
    pitch = np.zeros((count, 5)) + _PITCH
    joints[:, _JOINTS[0]] = at
    direction = np.empty((count, 5, 3))
    for bone in range(3):
        pitch = pitch + flexion * FLEXION_SHARES[:, bone]
        level = np.cos(pitch)
        np.multiply(cosine, level, out=direction[..., 0])
        np.multiply(sine, level, out=direction[..., 1])
        np.negative(np.sin(pitch), out=direction[..., 2])
        at = at + (_PHALANGES[:, bone, None] * HAND_LENGTH_M) * direction
        joints[:, _JOINTS[bone + 1]] = at
    if side == "left":
        joints[..., 1] *= -1
    return joints * scale


def bone_lengths(joints: np.ndarray) -> np.ndarray:
    """(20,) metres."""
    ends = joints[np.array(BONES)]
    lengths: np.ndarray = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    return lengths


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
