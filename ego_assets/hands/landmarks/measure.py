"""Joints of hands that are known by their masks alone: what the landmark net says of each.

Here: regions from boxes, and looks at frames. Not here: masks that have joints already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.models.hand_nets.landmarks import HandLook, LandmarkNet
from ego_assets.models.hand_nets.palms import Region
from ego_assets.operator import FrameSource

_GROWTH = 1.7
"""The size of a hand's region over that of its mask."""
_TURNS = tuple(np.arange(8) * np.pi / 4)
_SURE = 0.8


@dataclass(frozen=True, eq=False)
class Measured:
    """What is seen of a hand in a frame: (21, 2) pixels, (21, 3) metres about its middle."""

    points: np.ndarray
    metres: np.ndarray
    presence: float


def measured_by_mask(row: Mapping[str, Any]) -> Measured | None:
    """The joints that a row of `hand_masks` has; None: it has none."""
    if row["keypoints_px"] is None or row["keypoints_hand_m"] is None:
        return None
    presence = row["presence"] if row["presence"] is not None else row["score"]
    return Measured(
        np.asarray(row["keypoints_px"], np.float64),
        np.asarray(row["keypoints_hand_m"], np.float64),
        float(presence),
    )


def measure(
    rows: Sequence[Mapping[str, Any]], frames: FrameSource, folder: Path, max_side_px: int
) -> dict[tuple[int, str], Measured]:
    """{(frame, track): joints} of rows of `hand_masks` that have none."""
    by_frame: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_frame.setdefault(row["frame_index"], []).append(row)
    if not by_frame:
        return {}
    net = LandmarkNet(folder)
    found: dict[tuple[int, str], Measured] = {}
    last: dict[str, HandLook] = {}
    for frame in frames.read(indices=sorted(by_frame), max_side_px=max_side_px):
        for row in by_frame[frame.index]:
            look = _look(net, frame.image, row, frame.scale, last.get(row["track_id"]))
            last[row["track_id"]] = look
            points = (look.points + 0.5) / frame.scale - 0.5
            key = frame.index, row["track_id"]
            found[key] = Measured(points, look.metres, look.presence)
    return found


def _look(
    net: LandmarkNet,
    image: np.ndarray,
    row: Mapping[str, Any],
    scale: float,
    before: HandLook | None,
) -> HandLook:
    """Look at the hand of a mask: turned as it was in the frame before, else all ways round."""
    x0, y0, x1, y1 = (v * scale for v in row["box"])
    middle, side = ((x0 + x1) / 2 - 0.5, (y0 + y1) / 2 - 0.5), _GROWTH * max(x1 - x0, y1 - y0)
    if before is not None and before.presence >= _SURE:
        look = net.look(image, Region(*middle, side, before.next_region.angle))
        if look.presence >= _SURE:
            return look
    first = [net.look(image, Region(*middle, side, float(turn))) for turn in _TURNS]
    best = max(first, key=lambda look: look.presence)
    again = net.look(image, best.next_region)
    return max((best, again), key=lambda look: look.presence)
