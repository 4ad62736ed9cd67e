"""Finds the 21 joints of a hand in a region of a picture, and says whether there is a hand.

Here: the landmark net, and the region in which a hand's own joints have it looked at next. Not
here: where hands are looked for first (`palms`), what becomes of a hand over time.

Joints are in MANO order: the wrist, then four a finger from palm to tip, from thumb to little.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ego_assets.models.hand_nets.palms import Region, wrapped
from ego_assets.models.hand_nets.runtime import Runtime, load_net

SIDE = 224
FILE = "hand_landmark_full.tflite"
_POINTS, _PRESENCE, _RIGHT, _METRES = "Identity", "Identity_1", "Identity_2", "Identity_3"
_STEADY = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
"""Joints that the next region is cut around: the tips move too much."""
_GROWTH, _AHEAD = 2.0, 0.1


@dataclass(frozen=True, eq=False)
class HandLook:
    """What the net says of one region.

    points: (21, 2) pixels of the picture; presence: 0 to 1, that there is a hand; right: 0 to 1,
    that it is a right one; metres: (21, 3) in the hand's own frame, which has the axes of the
    upright camera (x right, y down, z forward) and its origin in the middle of the hand; region:
    what was looked at.
    """

    points: np.ndarray
    presence: float
    right: float
    metres: np.ndarray
    region: Region

    @property
    def next_region(self) -> Region:
        """Where the hand is to be looked at again."""
        return region_of(self.points)


class LandmarkNet:
    """The landmark net."""

    def __init__(self, folder: Path, runtime: Runtime | None = None) -> None:
        names = (_POINTS, _PRESENCE, _RIGHT, _METRES)
        self._net = load_net(folder / FILE, names, runtime)

    def look(self, image: np.ndarray, region: Region) -> HandLook:
        """Look at a region of a picture, (H, W, 3) uint8 RGB."""
        found = self._net.run(region.crop(image, SIDE))
        flat = found[_POINTS].reshape(21, 3)[:, :2].astype(np.float64)
        to_picture = region.to_picture(SIDE)
        points = (flat - 0.5) @ to_picture[:, :2].T + to_picture[:, 2]
        cosine, sine = np.cos(region.angle), np.sin(region.angle)
        metres = found[_METRES].reshape(21, 3).astype(np.float64)
        metres[:, :2] = metres[:, :2] @ np.array([[cosine, sine], [-sine, cosine]])
        return HandLook(
            points,
            float(found[_PRESENCE].ravel()[0]),
            float(found[_RIGHT].ravel()[0]),
            metres,
            region,
        )


def region_of(points: np.ndarray) -> Region:
    """The region of a hand by its (21, 2) joints."""
    knuckles = 0.25 * points[5] + 0.5 * points[9] + 0.25 * points[13]
    ahead = knuckles - points[0]
    angle = float(np.arctan2(ahead[0], -ahead[1]))
    along = np.array([np.sin(angle), -np.cos(angle)])
    across = np.array([np.cos(angle), np.sin(angle)])
    steady = points[list(_STEADY)]
    spans = [np.array([(steady @ axis).min(), (steady @ axis).max()]) for axis in (across, along)]
    side = float(max(span[1] - span[0] for span in spans))
    middle = spans[0].mean() * across + spans[1].mean() * along + _AHEAD * side * along
    return Region(float(middle[0]), float(middle[1]), max(1.0, _GROWTH * side), wrapped(angle))
