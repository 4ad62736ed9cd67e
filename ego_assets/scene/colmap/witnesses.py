"""Judges poses by features that took no part in the map.

Here: features of a few pictures a second, matched from picture to picture, and how many of them lie
where the poses say they must. Not here: the tracks that the map is made of (`point_tracks`).

A map of dough, or of a person who walks, is consistent in itself: what does not fit was never
mapped, or is no longer tracked. Features that are found again after a second, wherever they are,
do not know which points the map chose. Where another motion explains far more of them than a pose
does, it is not the pose of the camera.

Source: Rublee et al., "ORB: an efficient alternative to SIFT or SURF", 2011.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from ego_assets.operator import Frame, Intrinsics
from ego_assets.scene.colmap.point_tracks import MaskOf, TrackTable
from ego_assets.scene.colmap.registration import Registration
from ego_assets.scene.settings import ReconstructSettings
from ego_assets.vision.cameras import normalised_points
from ego_assets.vision.geometry import invert_pose

_STEP_S = 0.25
_GAPS = (1, 2, 4)
"""Pictures apart: from a quarter of a second, in which little moves, to one."""
_MOST = 2000
_CELLS = 8
_MOST_A_CELL = 8
"""Of 64 parts of the picture: a small thing of rich texture must not outvote a room."""
_RATIO = 0.8
"""Of the distance to the next best match, below which one is unique."""
_LEAST = 12
"""Features without which a pair of pictures says nothing."""
_RIGID_PX = 1.5
_TRIALS = 500


@dataclass(frozen=True)
class _View:
    """Features of a picture: pixels (n, 2) of the shrunken picture, descriptors (n, 32) uint8."""

    frame_index: int
    pts_s: float
    xy: np.ndarray
    descriptors: np.ndarray


class Witnesses:
    """Features of the pictures that pass, a few a second."""

    def __init__(self) -> None:
        self._views: list[_View] = []
        self._detector = cv2.ORB.create(_MOST, fastThreshold=7)

    def watch(self, frames: Iterator[Frame], mask_of: MaskOf) -> Iterator[Frame]:
        """Yield the frames as they come, and remember features of some of them."""
        for frame in frames:
            if not self._views or frame.pts_s - self._views[-1].pts_s >= _STEP_S - 1e-3:
                self._remember(frame, mask_of)
            yield frame

    def _remember(self, frame: Frame, mask_of: MaskOf) -> None:
        grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        forbidden = mask_of(frame.index, (grey.shape[0], grey.shape[1]))
        free = None if forbidden is None else np.where(forbidden, 0, 255).astype(np.uint8)
        spread = _spread(self._detector.detect(grey, free), grey.shape)
        keypoints, found = self._detector.compute(grey, spread)
        xy = np.array([k.pt for k in keypoints], np.float64).reshape(-1, 2)
        descriptors: Any = np.empty((0, 32)) if found is None else found
        view = _View(frame.index, frame.pts_s, xy, np.asarray(descriptors).astype(np.uint8))
        self._views.append(view)

    def agreeing(
        self,
        tracks: TrackTable,
        found: Sequence[Registration],
        intrinsics: Intrinsics,
        settings: ReconstructSettings,
    ) -> np.ndarray:
        """Return how many features agree with each frame's pose, over the most that any rigid scene
        explains, (F,), 1 at most; NaN: none can tell.

        Of the pairs of pictures around a frame it is the median. intrinsics: of the shrunken
        picture.
        """
        poses = {
            int(f): r.pose for f, r in zip(tracks.frame_index, found, strict=True)
            if r.pose is not None
        }  # fmt: skip
        limit = settings.max_reprojection_error_px / intrinsics.fx
        begins, ends, shares = [], [], []
        for i, first in enumerate(self._views):
            for second in (self._views[i + g] for g in _GAPS if i + g < len(self._views)):
                poses_of = (poses.get(first.frame_index), poses.get(second.frame_index))
                if poses_of[0] is None or poses_of[1] is None:
                    continue
                matched = _matched(first, second)
                most = _most_rigid(*matched)
                if most < _LEAST:
                    continue
                a, b = (normalised_points(intrinsics, xy) for xy in matched)
                off = epipolar_errors(invert_pose(poses_of[1]) @ poses_of[0], a, b)
                begins.append(first.pts_s)
                ends.append(second.pts_s)
                shares.append(min(1.0, float(np.sum(off < limit)) / most))
        begin, end, share = np.array(begins), np.array(ends), np.array(shares)
        result = np.full(len(tracks), np.nan)
        for position, at in enumerate(tracks.pts_s):
            around = (begin <= at + _STEP_S) & (end >= at - _STEP_S)
            if around.any():
                result[position] = np.median(share[around])
        return result


def _spread(keypoints: Sequence[cv2.KeyPoint], size: Sequence[int]) -> list[cv2.KeyPoint]:
    """Return the strongest of each part of a picture of `size` (height, width)."""
    count: Counter[tuple[int, int]] = Counter()
    kept = []
    for keypoint in sorted(keypoints, key=lambda k: (-k.response, k.pt)):
        x, y = keypoint.pt
        cell = int(x * _CELLS / size[1]), int(y * _CELLS / size[0])
        count[cell] += 1
        if count[cell] <= _MOST_A_CELL:
            kept.append(keypoint)
    return kept


def _matched(first: _View, second: _View) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (m, 2), (m, 2) of features that are each other's only likeness."""
    if min(len(first.xy), len(second.xy)) < 2:
        return np.empty((0, 2)), np.empty((0, 2))
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
    there = matcher.knnMatch(first.descriptors, second.descriptors, k=2)
    back = {m.queryIdx: m.trainIdx for m in matcher.match(second.descriptors, first.descriptors)}
    good = [
        best
        for best, other in there
        if best.distance < _RATIO * other.distance and back[best.trainIdx] == best.queryIdx
    ]
    return first.xy[[m.queryIdx for m in good]], second.xy[[m.trainIdx for m in good]]


def _most_rigid(a: np.ndarray, b: np.ndarray) -> int:
    """Return how many of the matches one rigid scene can explain, whatever its lens and poses: on
    a chessboard many are taken for each other."""
    if len(a) < _LEAST:
        return 0
    cv2.setRNGSeed(0)
    try:
        _, rigid = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, _RIGID_PX, 0.999, _TRIALS)
    except cv2.error:  # of features in degenerate places
        return 0
    return 0 if rigid is None else int(np.count_nonzero(rigid))


def epipolar_errors(second_from_first: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (n,) distances on z = 1 of (n, 2) points of two pictures from where the poses allow
    them: from the epipolar line, or, without any way between the two, from where a turn puts them.
    """
    turn, way = second_from_first[:3, :3], second_from_first[:3, 3]
    first, second = (np.column_stack([p, np.ones(len(p))]) for p in (a, b))
    length = float(np.linalg.norm(way))
    if length < 1e-9:
        turned = first @ turn.T
        off: np.ndarray = np.linalg.norm(turned[:, :2] / turned[:, 2:] - b, axis=1)
        return off
    x, y, z = way / length
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ turn
    lines, back = first @ essential.T, second @ essential
    norm = (lines[:, :2] ** 2).sum(axis=1) + (back[:, :2] ** 2).sum(axis=1)
    errors: np.ndarray = np.abs((second * lines).sum(axis=1)) / np.sqrt(np.maximum(norm, 1e-18))
    return errors


def without_contradicted(
    found: Sequence[Registration], share: np.ndarray, least: float
) -> list[Registration]:
    """Return the registrations, each with the `share` of features that agree with it, without those
    that fewer than `least` agree with."""
    kept = []
    for here, agreeing in zip(found, share.tolist(), strict=True):
        if here.pose is not None and agreeing < least:
            here = Registration(
                None, inliers=here.inliers, matches=here.matches, error=here.error,
                reason="other features disagree",
            )  # fmt: skip
        kept.append(replace(here, agreeing=None if np.isnan(agreeing) else agreeing))
    return kept
