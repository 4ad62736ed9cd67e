"""Places a hand's joints in space: bones of fixed lengths, seen through the true lens.

Here: pure geometry of one hand. Not here: what is measured (`measure`), which rows are right
(`validity`), clips and rows (`estimator`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ego_assets.hands.skeleton import BONES
from ego_assets.operator import Intrinsics
from ego_assets.vision.cameras import seen_points

_STARTS, _ENDS = np.array(BONES).T


@dataclass(frozen=True, eq=False)
class PlacedHand:
    """A hand in the camera frame.

    joints: (21, 3) metres; residual: root mean square distance of its joints, projected, from where
    they were seen, as a share of the hand's size.
    """

    joints: np.ndarray
    residual: float


def lengths_of(hands: np.ndarray) -> np.ndarray:
    """(N, 20) metres: the bones of (N, 21, 3) joints."""
    return np.asarray(np.linalg.norm(hands[:, _ENDS] - hands[:, _STARTS], axis=-1))


def with_lengths(hands: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(N, 21, 3) joints whose bones point as before, and are of (20,) lengths."""
    bones = hands[:, _ENDS] - hands[:, _STARTS]
    norms = np.linalg.norm(bones, axis=-1, keepdims=True)
    bones = bones / np.maximum(norms, 1e-9) * np.asarray(lengths)[None, :, None]
    found = np.empty_like(hands)
    found[:, 0] = hands[:, 0]
    for number, (start, end) in enumerate(BONES):
        found[:, end] = found[:, start] + bones[:, number]
    return np.asarray(found - found.mean(axis=1, keepdims=True))


def place(hand: np.ndarray, points: np.ndarray, intrinsics: Intrinsics) -> PlacedHand | None:
    """Where a hand is: (21, 3) joints about its middle, along the axes of the picture, and (21, 2)
    pixels. None: the lens cannot have seen them, or they lie behind the camera.

    Perspective-n-point (Lepetit et al. 2009; refined by Levenberg and Marquardt) from the pose in
    which the hand is seen along its own ray.
    """
    rays = seen_points(intrinsics, points)
    if rays is None:
        return None
    middle = np.array([*rays.mean(axis=0), 1.0])
    ray = middle / np.linalg.norm(middle)
    # The net looked along this ray: its axes are those of a camera that is turned there.
    axis = np.cross([0.0, 0.0, 1.0], ray)
    angle = np.arctan2(np.linalg.norm(axis), ray[2])
    turn = axis / max(float(np.linalg.norm(axis)), 1e-9) * angle
    spread = float(np.sqrt(((rays - rays.mean(axis=0)) ** 2).sum()))
    real = float(np.sqrt((hand[:, :2] ** 2).sum()))
    start = real / max(spread, 1e-9) * middle
    try:
        rotation, shift = cv2.solvePnPRefineLM(
            hand, rays, np.eye(3), None, turn.reshape(3, 1), start.reshape(3, 1)
        )
    except cv2.error:
        return None
    joints = hand @ np.asarray(cv2.Rodrigues(rotation)[0]).T + np.asarray(shift).ravel()
    if not np.isfinite(joints).all() or joints[:, 2].min() <= 0.01:
        return None
    apart = joints[:, :2] / joints[:, 2:] - rays
    size = float(np.ptp(rays, axis=0).max())
    return PlacedHand(joints, float(np.sqrt((apart**2).sum(axis=1).mean())) / max(size, 1e-9))
