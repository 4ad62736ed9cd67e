"""How much two clips of a take disagree about the hands of the frames that both have."""

from __future__ import annotations

import numpy as np

from ego_assets.quality.seam import Frames, Seam


def _hands(first: Frames, second: Frames) -> list[float]:
    found = []
    for index in first:
        for track in first[index].keys() & second[index].keys():
            a, b = first[index][track], second[index][track]
            if a["is_valid"] and b["is_valid"]:
                apart = np.array(a["joints_px"]) - np.array(b["joints_px"])
                found.append(float(np.linalg.norm(apart, axis=1).mean()))
    return found


HANDS = Seam("pixels, mean over the joints", ("is_valid", "joints_px"), _hands, "max_hand_seam_px")
