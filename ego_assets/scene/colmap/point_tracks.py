"""Points followed through the frames of a clip: the raw material of the reconstruction.

Here: corner detection, KLT with a forward-backward check, the table of tracks. Not here: what
the tracks mean (`keyframes`, `mapping`, `registration`).
Sources: Shi and Tomasi, "Good features to track", 1994; Bouguet's pyramidal Lucas-Kanade;
Kalal et al., "Forward-backward error", 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ego_assets.operator import Frame

MaskOf = Callable[[int, tuple[int, int]], np.ndarray | None]
"""(frame index, (height, width)) to a bool picture of what must not be tracked, or None."""

_SIDE_CELLS = 4
CELLS = _SIDE_CELLS**2
"""Parts of a picture, to tell whether points lie all over it."""
_WINDOW_PX = 15
_LEVELS = 4
_MAX_BACKWARD_ERROR_PX = 0.5
_MIN_CORNER_QUALITY = 0.004
_MIN_EIGENVALUE = 2e-4


@dataclass(frozen=True)
class TrackTable:
    """Every observation of a clip, sorted by frame, then track.

    frame_index, pts_s: (F,) frames of the clip; starts: (F + 1,) where each frame's slice of
    `track` (M,) int and `xy` (M, 2) float32 begins, in pixels of the shrunken picture of `size`
    (width, height). `colours` (T, 3) uint8: colour of each track where it was born.
    """

    frame_index: np.ndarray
    pts_s: np.ndarray
    starts: np.ndarray
    track: np.ndarray
    xy: np.ndarray
    colours: np.ndarray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.frame_index)

    def at(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Tracks (n,) ascending and their pixels (n, 2) in the frame at `position`."""
        part = slice(self.starts[position], self.starts[position + 1])
        return self.track[part], self.xy[part]

    def common(self, first: int, second: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tracks seen in both frames (n,), and their pixels in each (n, 2), (n, 2)."""
        ids_a, xy_a = self.at(first)
        ids_b, xy_b = self.at(second)
        ids, in_a, in_b = np.intersect1d(ids_a, ids_b, assume_unique=True, return_indices=True)
        return ids, xy_a[in_a], xy_b[in_b]


@dataclass(frozen=True)
class Seeds:
    """Points to follow besides those that are found: they become tracks 0..N-1.

    xy_px: (N, 2) in the picture of frame `frame_index`, of full size `full_size` (width, height);
    those outside it are not followed.
    """

    frame_index: int
    xy_px: np.ndarray
    full_size: tuple[int, int]

    def at_size(self, size: tuple[int, int]) -> np.ndarray:
        """(N, 2) in the picture shrunk to `size`."""
        scale = np.array([size[0] / self.full_size[0], size[1] / self.full_size[1]])
        places: np.ndarray = ((self.xy_px + 0.5) * scale - 0.5).astype(np.float32)
        return places


class PointTracker:
    """Follows up to `max_tracks` corners from frame to frame.

    `reserved` track numbers, from 0 up, are kept for seeds.
    """

    def __init__(self, max_tracks: int, reserved: int = 0) -> None:
        self.max_tracks = max_tracks
        self._previous: np.ndarray | None = None
        self._ids = np.empty(0, np.int64)
        self._xy = np.empty((0, 2), np.float32)
        self._next_id = reserved
        self._since_detection = 0
        self.colours = [np.zeros((reserved, 3), np.uint8)]

    def advance(
        self, image: np.ndarray, forbidden: np.ndarray | None, seeds: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tracks and pixels in the next picture (H, W, 3) uint8; `forbidden` (H, W) bool.

        `seeds` (N, 2) are pixels that become the reserved tracks 0..N-1; once.
        """
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if self._previous is not None and len(self._ids):
            self._follow(grey, forbidden)
        if seeds is not None and len(seeds):
            self._sow(np.asarray(seeds, np.float32), grey, forbidden, image)
        self._since_detection += 1
        if self._previous is None or (
            len(self._ids) < 0.8 * self.max_tracks and self._since_detection >= 4
        ):
            self._detect(grey, forbidden, image)
            self._since_detection = 0
        self._previous = grey
        return self._ids, self._xy

    def _follow(self, grey: np.ndarray, forbidden: np.ndarray | None) -> None:
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01)
        window = (_WINDOW_PX, _WINDOW_PX)
        start = self._xy.reshape(-1, 1, 2)
        assert self._previous is not None
        there, found, _ = cv2.calcOpticalFlowPyrLK(
            self._previous, grey, start, start.copy(), winSize=window, maxLevel=_LEVELS,
            criteria=criteria, minEigThreshold=_MIN_EIGENVALUE,
        )  # fmt: skip
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(
            grey, self._previous, there, start.copy(), winSize=window, maxLevel=0,
            criteria=criteria, flags=cv2.OPTFLOW_USE_INITIAL_FLOW, minEigThreshold=_MIN_EIGENVALUE,
        )  # fmt: skip
        error = np.linalg.norm((back - start).reshape(-1, 2), axis=1)
        good = (found.ravel() > 0) & (found_back.ravel() > 0) & (error < _MAX_BACKWARD_ERROR_PX)
        self._xy = np.asarray(there, np.float32).reshape(-1, 2)
        good &= np.isfinite(self._xy).all(axis=1)
        good[good] &= _inside(self._xy[good], grey.shape, forbidden)
        self._keep(good)

    def _keep(self, good: np.ndarray) -> None:
        self._ids, self._xy = self._ids[good], self._xy[good]

    def _sow(
        self, seeds: np.ndarray, grey: np.ndarray, forbidden: np.ndarray | None, image: np.ndarray
    ) -> None:
        good = _inside(seeds, grey.shape, forbidden)
        self.colours[0] = _colours(image, seeds)
        # In front: the numbers of the tracks must ascend.
        self._ids = np.concatenate([np.flatnonzero(good), self._ids])
        self._xy = np.concatenate([seeds[good], self._xy])

    def _add(self, points: np.ndarray, image: np.ndarray) -> None:
        count = len(points)
        self.colours.append(_colours(image, points))
        self._ids = np.concatenate([self._ids, np.arange(self._next_id, self._next_id + count)])
        self._xy = np.concatenate([self._xy, points.astype(np.float32)])
        self._next_id += count

    def _detect(self, grey: np.ndarray, forbidden: np.ndarray | None, image: np.ndarray) -> None:
        free = np.full(grey.shape, 255, np.uint8)
        if forbidden is not None:
            free[forbidden] = 0
        height, width = grey.shape
        distance = max(4, round(0.6 * (height * width / self.max_tracks) ** 0.5))
        for x, y in np.rint(self._xy).astype(int):
            cv2.circle(free, (int(x), int(y)), distance, 0, -1)
        wanted = self.max_tracks - len(self._ids)
        found = cv2.goodFeaturesToTrack(
            grey, maxCorners=wanted, qualityLevel=_MIN_CORNER_QUALITY, minDistance=distance,
            mask=free, blockSize=5,
        )  # fmt: skip
        if found is None or not len(found):
            return
        points = found.reshape(-1, 2)
        self._add(points[_inside(points, grey.shape, None)], image)


def collect_tracks(
    frames: Iterator[Frame], mask_of: MaskOf, max_tracks: int, seeds: Seeds | None = None
) -> TrackTable:
    """Follow points through `frames`, and `seeds` from their frame on.

    One picture is held at a time; the table grows by 16 bytes an observation.
    """
    tracker = PointTracker(max_tracks, 0 if seeds is None else len(seeds.xy_px))
    index, pts, counts = [], [], [0]
    tracks, pixels = [np.empty(0, np.int64)], [np.empty((0, 2), np.float32)]
    size = (0, 0)
    for frame in frames:
        size = (frame.image.shape[1], frame.image.shape[0])
        forbidden = mask_of(frame.index, (size[1], size[0]))
        sown = seeds.at_size(size) if seeds and seeds.frame_index == frame.index else None
        ids, xy = tracker.advance(frame.image, forbidden, sown)
        index.append(frame.index)
        pts.append(frame.pts_s)
        counts.append(len(ids))
        tracks.append(ids.copy())
        pixels.append(xy.copy())
    return TrackTable(
        frame_index=np.asarray(index, np.int64),
        pts_s=np.asarray(pts, np.float64),
        starts=np.cumsum(counts),
        track=np.concatenate(tracks),
        xy=np.concatenate(pixels),
        colours=np.concatenate(tracker.colours),
        size=size,
    )


def cells_of(xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which of the `CELLS` parts of a picture of `size` (width, height) points (N, 2) lie in."""
    column, row = np.clip((xy / np.array(size) * _SIDE_CELLS).astype(int), 0, _SIDE_CELLS - 1).T
    cells: np.ndarray = row * _SIDE_CELLS + column
    return cells


def _colours(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    x = np.clip(np.rint(points[:, 0]), 0, width - 1).astype(int)
    y = np.clip(np.rint(points[:, 1]), 0, height - 1).astype(int)
    colours: np.ndarray = image[y, x]
    return colours


def _inside(points: np.ndarray, shape: tuple[int, ...], forbidden: np.ndarray | None) -> np.ndarray:
    """(N,) bool: within the picture by a small border and not in the forbidden region."""
    height, width = shape[:2]
    border = 3
    x, y = points[:, 0], points[:, 1]
    good = (x >= border) & (y >= border) & (x < width - border) & (y < height - border)
    if forbidden is not None:
        column = np.clip(np.rint(x), 0, width - 1).astype(int)
        row = np.clip(np.rint(y), 0, height - 1).astype(int)
        good &= ~forbidden[row, column]
    return good
