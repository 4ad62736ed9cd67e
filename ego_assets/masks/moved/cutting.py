"""Cuts a part of a picture out along its colours, in a crop of little size.

Here: crops, the graph cut, small things about masks. Not here: where something is to be cut out
(`contact`, `follow`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ego_assets.vision.patches import Patch

SIDE = 112
"""Pixels of the longer side of the crop that an object is cut out in."""


@dataclass(frozen=True)
class CutWindow:
    """Part of a picture, and the size that it is looked at in."""

    left: int
    top: int
    right: int
    bottom: int
    shape: tuple[int, int]
    scale: float

    @classmethod
    def around(
        cls,
        low: np.ndarray,
        high: np.ndarray,
        margin: float,
        shape: tuple[int, ...],
        side: int = SIDE,
    ) -> CutWindow | None:
        """A box and a margin around it; None if next to nothing of it lies in the picture."""
        left, top = (max(0, int(v)) for v in np.floor(low - margin))
        right = min(shape[1], int(np.ceil(high[0] + margin)))
        bottom = min(shape[0], int(np.ceil(high[1] + margin)))
        if right - left < 16 or bottom - top < 16:
            return None
        scale = side / max(right - left, bottom - top)
        return cls(left, top, right, bottom, (shape[0], shape[1]), scale)

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) that it is looked at in."""
        return (
            max(8, round((self.right - self.left) * self.scale)),
            max(8, round((self.bottom - self.top) * self.scale)),
        )

    def points(self, xy: np.ndarray) -> np.ndarray:
        """(N, 2) pixels of the picture as pixels of the crop; centres lie at integers."""
        found: np.ndarray = (xy - (self.left, self.top) + 0.5) * self.scale - 0.5
        return found

    def picture(self, whole: np.ndarray) -> np.ndarray:
        ratio = whole.shape[1] / self.shape[1]
        x0, x1 = round(self.left * ratio), round(self.right * ratio)
        y0, y1 = round(self.top * ratio), round(self.bottom * ratio)
        part = whole[y0:y1, x0:x1]
        shrinks = part.shape[1] > self.size[0]
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.ascontiguousarray(cv2.resize(part, self.size, interpolation=way))

    def mask(self, whole: np.ndarray) -> np.ndarray:
        return self.part(whole[self.window])

    def part(self, mask: np.ndarray) -> np.ndarray:
        way = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        found: np.ndarray = cv2.resize(mask.view("u1") * 255, self.size, interpolation=way) >= 128
        return found

    def patch(self, mask: np.ndarray) -> Patch:
        """A mask of the crop, as a mask of the picture."""
        size = self.right - self.left, self.bottom - self.top
        way = cv2.INTER_AREA if self.scale > 1 else cv2.INTER_LINEAR
        soft = cv2.resize(mask.view("u1") * 255, size, interpolation=way)
        return Patch.of(soft >= 128, (self.left, self.top), self.shape)

    def ends(self, width: int) -> np.ndarray:
        """Its rim, where the picture goes on."""
        rim = np.zeros(self.size[::-1], bool)
        rim[:width] |= self.top > 0
        rim[:, :width] |= self.left > 0
        rim[-width:] |= self.bottom < self.shape[0]
        rim[:, -width:] |= self.right < self.shape[1]
        return rim


def cut_out(
    image: np.ndarray,
    seed: np.ndarray,
    never: np.ndarray,
    elsewhere: np.ndarray,
    sure: np.ndarray | None = None,
) -> np.ndarray | None:
    """(h, w) bool: the object that a seed is part of; None if too little is known.

    never: what is no part of it; elsewhere: what has the colours that it has not, most likely;
    sure: what is surely part of it, if not the seed without its rim.
    """
    if sure is None:
        sure = cv2.erode(seed.view("u1"), disc(1)).view(bool)
        sure = sure if sure.sum() >= 8 else seed
    rest = (never | elsewhere) & ~seed
    if sure.sum() < 6 or rest.sum() < 30:
        return None
    # Colours are learned from what is known alone: what is not may well be the object.
    known = np.concatenate([image[seed], image[rest]])[None]
    labels = np.full((1, known.shape[1]), cv2.GC_BGD, np.uint8)
    labels[0, : int(seed.sum())] = cv2.GC_FGD
    back, fore = np.zeros((1, 65)), np.zeros((1, 65))
    whole = (0, 0, 1, 1)  # of no effect: the labels start the cut
    cv2.setRNGSeed(0)
    cv2.grabCut(np.ascontiguousarray(known), labels, whole, back, fore, 0, cv2.GC_INIT_WITH_MASK)
    labels = np.where(seed, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[never] = cv2.GC_BGD
    labels[sure & ~never] = cv2.GC_FGD
    cv2.grabCut(image, labels, whole, back, fore, 1, cv2.GC_EVAL_FREEZE_MODEL)
    found: np.ndarray = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return found


def touching(mask: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The parts of a mask that have pixels in `where`."""
    count, labels = cv2.connectedComponents(mask.view("u1"), connectivity=4)
    keep = np.zeros(count, bool)
    keep[np.unique(labels[where & mask])] = True
    keep[0] = False
    found: np.ndarray = keep[labels]
    return found


def smooth(mask: np.ndarray) -> np.ndarray:
    small = cv2.morphologyEx(mask.view("u1"), cv2.MORPH_OPEN, disc(1))
    return cv2.morphologyEx(small, cv2.MORPH_CLOSE, disc(1)).view(bool)


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest part of a mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view("u1"), connectivity=4)
    if count < 2:
        return mask
    found: np.ndarray = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return found


def disc(radius: float) -> np.ndarray:
    side = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
