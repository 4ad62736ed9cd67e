"""Objects beside the hands that landmarks find: for now those of the baseline, seeded with them.

Here: what the object part looks at. A better object part takes the place of this
module: it sees each frame, then the hands of the clip, and gives things and what is carried on.
"""

from __future__ import annotations

import cv2

from ego_assets.masks.baseline.carry import ScannedClip, Thing, carry, name_tracks
from ego_assets.masks.baseline.segmenter import find_objects, see_motion
from ego_assets.masks.baseline.skin import SkinModel
from ego_assets.masks.landmarks.persons import Hand
from ego_assets.masks.settings import SegmentSettings
from ego_assets.operator import Carried, Frame
from ego_assets.vision.patches import Patch
from ego_assets.vision.threads import side_by_side


class ObjectLook:
    """The frames of a clip, as the object part keeps them."""

    def __init__(self, settings: SegmentSettings) -> None:
        self.settings = settings
        self._look = ScannedClip()

    @property
    def pts_s(self) -> dict[int, float]:
        return self._look.pts_s

    def see(self, frame: Frame) -> None:
        """Keep a frame, shrunk to work size."""
        height, width = frame.image.shape[:2]
        scale = min(1.0, self.settings.work_side_px / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        self._look.images[frame.index] = small
        self._look.pts_s[frame.index] = frame.pts_s
        self._look.shape = small.shape[:2]

    def find(self, hands: list[Hand], before: Carried, first: int) -> tuple[list[Thing], Carried]:
        """Objects of the clip, and what the next clip of the take gets of them."""
        look, settings = self._look, self.settings
        covered: dict[int, Patch] = {}
        for hand in hands:
            for frame, drawn in hand.drawn.items():
                mask = _shrunk(drawn.mask, look.shape)
                covered[frame] = covered[frame].joined(mask) if frame in covered else mask
        least = max(12, int(settings.min_area_share * look.shape[0] * look.shape[1]))
        with side_by_side():
            see_motion(look, settings.motion_gap_s)
            things, _ = find_objects(look, covered, least, settings.max_objects, before)
        counts = {"h": 0, "o": int(before.get("objects", first))}
        name_tracks(things, before, counts)
        return things, carry(look, [], things, counts, SkinModel())


def _shrunk(mask: Patch, shape: tuple[int, int]) -> Patch:
    """A mask at another size: the pixels that it covers at least half of."""
    if mask.shape == shape:
        return mask
    soft = cv2.resize(
        mask.whole().view("u1") * 255, (shape[1], shape[0]), interpolation=cv2.INTER_AREA
    )
    return Patch.of(soft >= 128)
