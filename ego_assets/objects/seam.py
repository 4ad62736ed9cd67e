"""How much two clips of a take disagree about the objects of the frames that both have."""

from __future__ import annotations

import numpy as np

from ego_assets.quality.seam import Frames, Seam


def _objects(first: Frames, second: Frames) -> list[float]:
    found = []
    for index in first:
        for track in first[index].keys() & second[index].keys():
            a, b = first[index][track], second[index][track]
            valid = a["is_valid"] and b["is_valid"]
            if valid and a["object_frame"] == b["object_frame"]:
                at_a, at_b = (np.array(r["camera_from_object_m"]) for r in (a, b))
                distance = np.linalg.norm(at_b)
                if distance > 0:
                    found.append(float(np.linalg.norm(at_a - at_b) / distance))
    return found


OBJECTS = Seam(
    "share of the distance to the camera",
    ("is_valid", "object_frame", "camera_from_object_m"),
    _objects,
    "max_object_seam",
)
