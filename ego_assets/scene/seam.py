"""How much two clips of a take disagree about the cameras of the frames that both have."""

from __future__ import annotations

import numpy as np

from ego_assets.quality.seam import Frames, Seam
from ego_assets.vision.geometry import matrix_from_quaternion, rotation_angle_deg


def _cameras(first: Frames, second: Frames) -> list[float]:
    """Relative to the first common frame: each clip may have a world of its own."""
    pairs = []
    for index in sorted(first):
        a, b = first[index].get(""), second[index].get("")
        if a and b and a["is_valid"] and b["is_valid"]:
            name = "world_from_camera_xyzw"
            pairs.append([matrix_from_quaternion(np.array(r[name])) for r in (a, b)])
    if len(pairs) < 2:
        return []
    (a0, b0), *rest = pairs
    return [float(rotation_angle_deg(a0.T @ a, b0.T @ b)) for a, b in rest]


CAMERAS = Seam(
    "degrees, rotation since the first common frame",
    ("is_valid", "world_from_camera_xyzw"),
    _cameras,
    "max_camera_seam_deg",
)
