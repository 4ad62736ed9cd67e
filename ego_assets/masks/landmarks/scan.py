"""Looks for hands in a picture: palms in windows, then the joints of each.

Here: which windows, and which finds are one hand. Not here: hands over time (`follow`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from ego_assets.models.hand_nets.landmarks import HandLook, LandmarkNet
from ego_assets.models.hand_nets.palms import PalmDetector, Region, windows, wrapped
from ego_assets.vision.threads import each

MIN_PALM = 0.5
MIN_PRESENCE, KEEP_PRESENCE = 0.5, 0.25
"""A hand begins to be followed with the first, and is lost under the second."""
_TURNS = (0.0, np.pi / 2, np.pi, -np.pi / 2)
"""One a scan: each turn alone finds six of seven of the hands that all four find."""
_SIDES = (1.4, 1.0, 0.6, 0.36, 0.22)
"""Of the windows, as shares of the longer side of the picture. In one that is larger, a hand at the
border is not cut off, but lies in front of black."""
_LEAST_SIDE = 384
"""Smaller windows, in pixels, show nothing that larger ones do not."""
_ROUNDS, _HOPELESS = 2, 0.003
_THUMBNAIL = 48
_CHANGE = 10.0
_CELLS = 2
"""Changed cells of the thumbnail that are a reason to look at a window again."""
_AROUND = 2.5
"""Sides of a lost hand's region that the window has in which it is searched for."""
_SAME = 0.35
"""Hands whose joints are closer, on average, than this share of their size are one."""


class HandScan:
    """Finds hands anywhere in a picture."""

    def __init__(self, folder: Path) -> None:
        self._palms = PalmDetector(folder)
        self._joints = LandmarkNet(folder)
        self._before: deque[np.ndarray] = deque(maxlen=len(_TURNS))
        """Thumbnails of the last pictures, one for each turn."""
        self._scans = self._searches = 0

    def look(self, image: np.ndarray, region: Region) -> HandLook:
        """What is in one region."""
        return self._joints.look(image, region)

    def _settled(self, image: np.ndarray, region: Region) -> HandLook:
        """Look at a region, then at the one that its own joints give, until there is a hand."""
        hand = self.look(image, region)
        for _ in range(_ROUNDS):
            if hand.presence < _HOPELESS:
                break
            hand = self.look(image, hand.next_region)
            if hand.presence >= MIN_PRESENCE:
                break
        return hand

    def forget(self) -> None:
        """Look at everything the next time."""
        self._before.clear()
        self._scans = self._searches = 0

    def find(self, image: np.ndarray, known: Sequence[HandLook]) -> list[HandLook]:
        """Hands anywhere in a picture, (H, W, 3) uint8 RGB, that are not known.

        The first time, windows are looked at by all turns, then by one after the other. A window is
        looked at where the picture has changed since it was last looked at by the same turn, away
        from the known hands: the nets say the same of the same picture.
        """
        height, width = image.shape[:2]
        changed = self._changes(image, known)
        due = [w for w in self._windows(width, height) if _has_changed(changed, w, width)]
        return self._in_windows(image, due, known)

    def search(
        self, image: np.ndarray, known: Sequence[HandLook], lost: Iterable[Region]
    ) -> list[HandLook]:
        """Hands around the regions where some were lost."""
        turn = _TURNS[self._searches % len(_TURNS)]
        self._searches += 1
        around = [Region(r.x, r.y, _AROUND * r.side, wrapped(r.angle + turn)) for r in lost]
        return self._in_windows(image, around, known)

    def _in_windows(
        self, image: np.ndarray, looked_at: Iterable[Region], known: Sequence[HandLook]
    ) -> list[HandLook]:
        found: list[HandLook] = []
        for palms in each(lambda w: self._palms.find(image, w, MIN_PALM), looked_at):
            for palm in palms:
                if any(_is_looked_at(palm.region, hand) for hand in (*known, *found)):
                    continue
                hand = self._settled(image, palm.region)
                if hand.presence >= MIN_PRESENCE:
                    found.append(hand)
        return distinct(found, known)

    def _windows(self, width: int, height: int) -> list[Region]:
        """The squares of one scan."""
        turns = [_TURNS[self._scans % len(_TURNS)]] if self._scans else _TURNS
        self._scans += 1
        longer = max(width, height)
        sides = [s for s in _SIDES if s > 0.5 or s * longer >= _LEAST_SIDE]
        return windows(width, height, sides, turns)

    def _changes(self, image: np.ndarray, known: Sequence[HandLook]) -> np.ndarray:
        """(h, w) bool: cells that are not as they were in the last scan that had the turn of this
        one, away from known hands."""
        height, width = image.shape[:2]
        scale = _THUMBNAIL / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        cells = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        then = self._before[0] if self._before else None
        self._before.append(cells)
        if then is None or then.shape != cells.shape:
            return np.ones(cells.shape[:2], bool)
        changed: np.ndarray = np.abs(cells - then).max(axis=2) > _CHANGE
        for hand in known:
            x0, y0, x1, y1 = (box_of(hand.points) * scale).astype(int)
            changed[max(0, y0) : max(0, y1 + 1), max(0, x0) : max(0, x1 + 1)] = False
        return changed


def _has_changed(changed: np.ndarray, window: Region, width: int) -> bool:
    scale = changed.shape[1] / width
    x, y, half = window.x * scale, window.y * scale, window.side * scale / 2
    part = changed[max(0, int(y - half)) : int(y + half) + 1, max(0, int(x - half)) :][
        :, : int(2 * half) + 1
    ]
    return int(np.count_nonzero(part)) >= _CELLS


def _is_looked_at(region: Region, hand: HandLook) -> bool:
    """Whether a palm is that of a hand which is known already."""
    there = hand.next_region
    apart = np.hypot(region.x - there.x, region.y - there.y)
    ratio = region.side / there.side
    return bool(apart < 0.25 * there.side and 0.5 < ratio < 2.0)


def box_of(points: np.ndarray) -> np.ndarray:
    """(4,) x_min, y_min, x_max, y_max of points."""
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def size_of(points: np.ndarray) -> float:
    """The longer side of the box of a hand's joints."""
    return float(np.ptp(points, axis=0).max())


def are_one(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two sets of (21, 2) joints are of one hand."""
    apart = float(np.linalg.norm(one - other, axis=1).mean())
    return apart < _SAME * min(size_of(one), size_of(other))


def distinct(found: Iterable[HandLook], known: Iterable[HandLook] = ()) -> list[HandLook]:
    """The hands without those that are another one, or a known one, again; the surest first."""
    kept: list[HandLook] = []
    others = list(known)
    for hand in sorted(found, key=lambda h: -h.presence):
        if not any(are_one(hand.points, other.points) for other in (*others, *kept)):
            kept.append(hand)
    return kept
