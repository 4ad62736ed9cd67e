"""A hand as VITRA has it: MANO's right hand for both, of which a left one is the mirror image."""

from __future__ import annotations

from typing import Any

import numpy as np

from ego_assets.exports.motion.columns import KnownNumbers

_MIRROR = np.array([1.0, -1.0, -1.0])
"""Turns an axis-angle into that of the mirror image in x."""
_SAME_SHAPE = 1e-4


def hand_of(mano: KnownNumbers | None, world_from_camera: np.ndarray, side: str) -> dict[str, Any]:
    """The dictionary of a hand. mano: (T, 121) MANO's pose (48) as axis-angle of the hand itself,
    shape (10), joints in the camera (63), None: it is never there; world_from_camera: (T, 4, 4).

    `hand_pose` bends the right hand. Its mirror image in x is turned by `global_orient` about the
    wrist, and moved to `transl`. Frames with another shape than most are not kept.
    """
    from scipy.spatial.transform import Rotation

    count = len(world_from_camera)
    kept = np.zeros(count, np.int64)
    betas, pose, joints = np.zeros(10), np.zeros((count, 16, 3)), np.zeros((count, 21, 3))
    if mano is not None:
        shapes = mano.values[:, 48:58]
        kinds, counts = np.unique(shapes[mano.known], axis=0, return_counts=True)
        betas = kinds[counts.argmax()]
        alike = np.abs(shapes - betas).max(axis=1) < _SAME_SHAPE
        kept = (mano.known & alike).astype(np.int64)
        pose = mano.values[:, :48].reshape(-1, 16, 3)
        joints = mano.values[:, 58:].reshape(-1, 21, 3)
    bend = pose[:, 1:] * (_MIRROR if side == "left" else 1.0)
    turn = Rotation.from_rotvec(pose[:, 0]).as_matrix()
    rotation, place = world_from_camera[:, :3, :3], world_from_camera[:, :3, 3]
    in_world = joints @ rotation.transpose(0, 2, 1) + place[:, None]
    found = {
        "beta": betas,
        "global_orient_camspace": turn,
        "global_orient_worldspace": rotation @ turn,
        "hand_pose": Rotation.from_rotvec(bend.reshape(-1, 3)).as_matrix().reshape(-1, 15, 3, 3),
        "transl_camspace": joints[:, 0],
        "transl_worldspace": in_world[:, 0],
        "joints_camspace": joints,
        "joints_worldspace": in_world,
    }
    return {name: values.astype(np.float32) for name, values in found.items()} | {
        "kept_frames": kept
    }
