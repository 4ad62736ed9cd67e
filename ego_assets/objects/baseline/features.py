"""Features on one object, tracked through a clip: observations for its pose.

Here: where features are, frame by frame, in normalised coordinates. Not here: 3D (`object_pose`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ego_assets.vision.rle import edges_of

MAX_FEATURES = 80
_MIN_DISTANCE_PX = 4
_MARGIN_PX = 6
"""Around a mask, so wide that what lies beyond has no effect on corners inside."""
_KLT = {
    "winSize": (13, 13),
    "maxLevel": 3,
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 25, 0.02),
}


@dataclass
class FeatureTracks:
    """Pixel places of features by frame: places[frame] = {feature: (x, y)} at work size."""

    places: dict[int, dict[int, np.ndarray]] = field(default_factory=dict)
    next_feature: int = 0
    _alive: list[int] = field(default_factory=list)
    _points: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 2), np.float32))
    _before: np.ndarray | None = None

    @classmethod
    def step_together(
        cls,
        tracks: Sequence[FeatureTracks],
        frame: int,
        grey: np.ndarray,
        masks: Sequence[np.ndarray | None],
    ) -> None:
        """Track objects that have seen the same frames into the next one.

        masks: (H, W) uint8 of the visible part of each, or None.
        """
        cls._follow([t for t in tracks if t._before is not None and t._alive], grey)
        for track, mask in zip(tracks, masks, strict=True):
            track._enter(frame, grey, mask)

    def _enter(self, frame: int, grey: np.ndarray, mask: np.ndarray | None) -> None:
        if mask is None:
            self._alive, self._points = [], np.zeros((0, 1, 2), np.float32)
        else:
            self._drop_outside(mask)
            self._replenish(grey, mask)
        self.places[frame] = dict(zip(self._alive, self._points[:, 0].copy(), strict=True))
        self._before = grey

    @staticmethod
    def _follow(tracks: Sequence[FeatureTracks], grey: np.ndarray) -> None:
        """Follow the features of all at once: each call makes its pyramids of both pictures."""
        if not tracks:
            return
        before, points = tracks[0]._before, np.concatenate([t._points for t in tracks])
        moved, found, _ = cv2.calcOpticalFlowPyrLK(before, grey, points, None, **_KLT)  # type: ignore[call-overload]
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(grey, before, moved, None, **_KLT)  # type: ignore[call-overload]
        error = np.linalg.norm((back - points)[:, 0], axis=1)
        good = (found.ravel() == 1) & (found_back.ravel() == 1) & (error < 0.5)
        ends = np.cumsum([len(t._alive) for t in tracks])[:-1]
        for track, kept, there in zip(
            tracks, np.split(good, ends), np.split(moved, ends), strict=True
        ):
            track._keep(kept, there)

    def _keep(self, good: np.ndarray, points: np.ndarray) -> None:
        self._alive = [f for f, g in zip(self._alive, good, strict=True) if g]
        self._points = points[good]

    def _drop_outside(self, mask: np.ndarray) -> None:
        if not len(self._alive):
            return
        height, width = mask.shape
        x = np.clip(np.round(self._points[:, 0, 0]).astype(int), 0, width - 1)
        y = np.clip(np.round(self._points[:, 0, 1]).astype(int), 0, height - 1)
        self._keep(mask[y, x] > 0, self._points)

    def _replenish(self, grey: np.ndarray, mask: np.ndarray) -> None:
        if len(self._alive) >= 0.8 * MAX_FEATURES:
            return
        free = cv2.erode(mask, np.ones((3, 3)))
        for x, y in self._points[:, 0]:
            cv2.circle(free, (int(x), int(y)), _MIN_DISTANCE_PX, 0, -1)
        room = MAX_FEATURES - len(self._alive)
        edges = edges_of(free)
        if edges is None:
            return
        left, top, right, bottom = edges
        x, y = max(0, left - _MARGIN_PX), max(0, top - _MARGIN_PX)
        part = slice(y, bottom + _MARGIN_PX), slice(x, right + _MARGIN_PX)
        corners = cv2.goodFeaturesToTrack(grey[part], room, 0.01, _MIN_DISTANCE_PX, mask=free[part])
        if corners is None:
            return
        corners += np.array([x, y], np.float32)
        fresh = range(self.next_feature, self.next_feature + len(corners))
        self._alive = [*self._alive, *fresh]
        self._points = np.concatenate([self._points, corners.astype(np.float32)])
        self.next_feature += len(corners)
