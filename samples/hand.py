"""An articulated hand: 21 joints in MANO order, and the capsules that are drawn.

The hand frame: origin at the wrist, x to the middle knuckle, z out of the back of the hand. A right
hand has its thumb at +y, a left one at -y. Bone lengths are those of an adult (means of the
anthropometric tables of Greiner 1991, rounded), times a scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KNUCKLES_M = np.array(
    [
        [0.022, 0.024, -0.010],  # thumb: carpometacarpal joint
        [0.090, 0.026, 0.000],
        [0.092, 0.003, 0.002],
        [0.086, -0.018, 0.000],
        [0.078, -0.036, -0.004],
    ]
)
PHALANGES_M = np.array(
    [
        [0.046, 0.033, 0.027],
        [0.042, 0.025, 0.022],
        [0.046, 0.029, 0.024],
        [0.042, 0.027, 0.024],
        [0.034, 0.020, 0.021],
    ]
)
RADII_M = np.array(
    [
        [0.0125, 0.0105, 0.0095, 0.0080],
        [0.0105, 0.0090, 0.0080, 0.0070],
        [0.0105, 0.0092, 0.0082, 0.0072],
        [0.0100, 0.0088, 0.0078, 0.0068],
        [0.0090, 0.0078, 0.0070, 0.0062],
    ]
)


@dataclass(frozen=True)
class Articulation:
    """Flexion (5, 3) of each finger's joints and spread (5,) at its base, radians."""

    flexion: np.ndarray
    spread: np.ndarray

    def mixed(self, other: Articulation, x: float) -> Articulation:
        return Articulation(
            (1 - x) * self.flexion + x * other.flexion, (1 - x) * self.spread + x * other.spread
        )


OPEN = Articulation(
    np.array(
        [[0.15, 0.15, 0.1], [0.15, 0.2, 0.1], [0.15, 0.2, 0.1], [0.18, 0.22, 0.1], [0.2, 0.2, 0.1]]
    ),
    np.array([0.75, 0.10, 0.0, -0.10, -0.22]),
)
GRASP = Articulation(
    np.array(
        [[0.35, 0.35, 0.3], [0.85, 0.6, 0.3], [0.9, 0.6, 0.3], [0.9, 0.65, 0.3], [0.9, 0.6, 0.3]]
    ),
    np.array([0.95, 0.05, 0.0, -0.05, -0.12]),
)


def joints_in_hand(articulation: Articulation, side: int, scale: float) -> np.ndarray:
    """(21, 3) joints in the hand frame, metres. side: 0 left, 1 right."""
    joints = np.zeros((21, 3))
    for finger in range(5):
        at = KNUCKLES_M[finger].copy()
        joints[1 + 4 * finger] = at
        yaw = articulation.spread[finger]
        pitch = 0.25 if finger == 0 else 0.0
        for bone in range(3):
            pitch += articulation.flexion[finger, bone]
            direction = np.array(
                [np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)]
            )
            at = at + PHALANGES_M[finger, bone] * direction
            joints[2 + 4 * finger + bone] = at
    if side == 0:
        joints[:, 1] *= -1
    return joints * scale


def capsules(joints: np.ndarray, scale: float) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
    """(start, end, start radius, end radius) of the hand's flesh, from 21 joints in any frame."""
    found = []
    for finger in range(5):
        base = 1 + 4 * finger
        radii = RADII_M[finger] * scale
        wrist_radius = (0.014 if finger == 0 else 0.013) * scale
        found.append((joints[0], joints[base], wrist_radius, radii[0] * 1.15))
        for bone in range(3):
            start, end = joints[base + bone], joints[base + bone + 1]
            found.append((start, end, radii[bone], radii[bone + 1]))
    for one, other in ((5, 9), (9, 13), (13, 17)):
        found.append((joints[one], joints[other], 0.0110 * scale, 0.0105 * scale))
        for share in (0.35, 0.7):  # the palm between two bones
            middle = (joints[one] + joints[other]) / 2
            start = joints[0] + 0.15 * (middle - joints[0])
            found.append(
                (start, start + share * 1.2 * (middle - start), 0.0155 * scale, 0.014 * scale)
            )
    web = joints[1] + 0.55 * (joints[2] - joints[1])
    found.append((web, joints[0] + 0.75 * (joints[5] - joints[0]), 0.012 * scale, 0.012 * scale))
    found.append(
        (joints[1], joints[0] + 0.5 * (joints[9] - joints[0]), 0.015 * scale, 0.015 * scale)
    )
    return found
