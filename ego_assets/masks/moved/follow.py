"""Follows an outline through the pictures of a clip.

Here: the motion of features on an object, and its outline drawn again in key frames. Not here:
where it is seen first (`holds`), rows.

The outline is whole, as if nothing lay in front. What a hand covers stays part of it, and is taken
off at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ego_assets.masks.moved.carry import ScannedClip
from ego_assets.masks.moved.cutting import CutWindow, cut_out, disc, largest, smooth
from ego_assets.vision.patches import Patch
from ego_assets.vision.rle import mask_iou
from ego_assets.vision.threads import each

_MIN_POINTS = 6
_MARGIN = 40
"""Pixels around an outline that it may move by from frame to frame."""
_LOST, _LEAST_AREA = 0.15, 12
_COVERED = 0.6
"""Of an outline: if a hand hides more, it is not drawn again."""
_OTHER_COLORS = 0.6
"""Less alike than that, an outline has lost what it was drawn around."""
_SAME, _PART, _MOST_GROWTH = 0.5, 0.8, 3.0
"""IoU with what is cut out at a hand, that it is the same thing; how much of it a cut must hold
that shows more of it, and how much more that may be."""
_NEAR, _MOST_LARGER, _SAME_COLORS = 0.2, 2.0, 0.9
"""IoU with what is cut out at a hand, how much larger that may be, and how alike the colours must
be, that it is the same thing though the outline has drifted."""
_BAND = 0.12
"""Of its side: how far an outline may be off."""

Steps = Iterator[tuple[int, Patch, float]]


@dataclass
class FollowedObject:
    """Outline (whole, as if nothing lay in front) by frame, and how well it is followed, 0 to 1."""

    outlines: dict[int, Patch] = field(default_factory=dict)
    trust: dict[int, float] = field(default_factory=dict)


class Follower:
    """Carries outlines from frame to frame over the pictures of a clip."""

    def __init__(
        self, look: ScannedClip, hands: Mapping[int, Patch], cuts: Mapping[int, Sequence[Patch]]
    ) -> None:
        """cuts: what hands hold, by frame, as cut out there."""
        self.look = look
        self.cuts = cuts
        self.hands = hands
        self.frames = look.frames

    def follow(self, frame: int, outline: Patch) -> FollowedObject:
        """From `frame` to both ends of the clip, or until it is lost."""
        place = self.frames.index(frame)
        ways = self.frames[place + 1 :], self.frames[:place][::-1]
        found = FollowedObject({frame: outline}, {frame: 1.0})
        for steps in each(lambda way: list(self._walk(frame, outline, way)), ways):
            for where, patch, trust in steps:
                found.outlines[where], found.trust[where] = patch, trust
        return found

    def _walk(self, start: int, patch: Patch, path: list[int]) -> Steps:
        trust, reference = 1.0, float(patch.area)
        before, grey = start, self.look.grey(start)
        colors = self._colors(start, patch)
        for frame in path:
            there = self.look.grey(frame)
            motion, points = _motion(grey, there, patch, self.hands.get(before))
            if motion is None:
                trust *= 0.9
            else:
                patch = _warped(patch, motion)
                trust = min(1.0, 0.7 * trust + 0.3 * min(1.0, points / 20))
            if patch.area < _LEAST_AREA or trust < _LOST:
                return
            if frame in self.look.keys:
                alike = _alike(colors, self._colors(frame, patch))
                if alike is not None and alike < _OTHER_COLORS:
                    return
                held = self._held(frame, patch, colors)
                patch = held or self._redrawn(frame, patch, reference)
            yield frame, patch, trust
            before, grey = frame, there
            reference = 0.95 * reference + 0.05 * float(patch.area)

    def _colors(self, frame: int, patch: Patch) -> np.ndarray | None:
        """Shares of coarse colours of the visible pixels; None if a hand hides most of them."""
        window = patch.window(0)
        visible = patch.pixels() & ~_grown(self.hands.get(frame), 3, window)
        if visible.sum() < max(12, (1 - _COVERED) * patch.area):
            return None
        lab = cv2.cvtColor(self.look.images[frame][window], cv2.COLOR_RGB2LAB)[visible]
        bins = np.array([[6, 16, 16]], np.float32)
        places = np.floor(lab * bins / 256).astype(int)
        counts = np.zeros((6, 16, 16), np.float32)
        np.add.at(counts, tuple(places.T), 1)
        soft: np.ndarray = cv2.GaussianBlur(counts.reshape(6 * 16, 16), (3, 3), 0)
        soft /= soft.sum()
        return soft

    def _held(self, frame: int, patch: Patch, colors: np.ndarray | None) -> Patch | None:
        """The outline as it is cut out at a hand in a frame, if that is of the same thing."""
        hand = self.hands.get(frame)
        found, best = None, 0.0
        for cut in self.cuts.get(frame, ()):
            both = patch.overlap(cut)
            hidden = patch.overlap(hand) if hand is not None else 0
            visible = max(1, patch.area - hidden)
            alike = both / max(1, visible + cut.area - both)
            is_part = both > _PART * visible and cut.area < _MOST_GROWTH * patch.area
            is_same = alike > _SAME or is_part or self._is_near(frame, patch, cut, colors)
            if is_same and alike > best:
                found, best = cut, alike
        if found is None or hand is None:
            return found
        window = patch.window(0)
        behind = Patch.of(
            patch.pixels() & _grown(hand, 3, window), (patch.left, patch.top), patch.shape
        )
        return found.joined(behind)

    def _is_near(self, frame: int, patch: Patch, cut: Patch, colors: np.ndarray | None) -> bool:
        """Whether what was cut out close to an outline that has drifted has its size and colours.

        What is smaller is a part, most likely.
        """
        if patch.iou(cut) < _NEAR or not 0.9 < cut.area / patch.area < _MOST_LARGER:
            return False
        alike = _alike(colors, self._colors(frame, cut))
        return alike is not None and alike > _SAME_COLORS

    def _redrawn(self, frame: int, patch: Patch, reference: float) -> Patch:
        """Let the colours correct an outline, away from hands and within reason."""
        side = math.sqrt(patch.area)
        low, high = np.array([patch.left, patch.top]), np.array([patch.right, patch.bottom])
        crop = CutWindow.around(low, high, max(6.0, 0.3 * side), patch.shape)
        if crop is None:
            return patch
        outline = crop.part(patch.within(crop.window))
        hand = crop.part(_grown(self.hands.get(frame), 3, crop.window))
        visible = outline & ~hand
        if visible.sum() < (1 - _COVERED) * outline.sum():
            return patch
        band = disc(_BAND * side * crop.scale)
        around = ~cv2.dilate(outline.view("u1"), band).view(bool)
        seed = cv2.erode(visible.view("u1"), band).view(bool)
        if seed.sum() < 8 or around.sum() < 30:
            return patch
        cut = cut_out(crop.picture(self.look.keys[frame]), visible, around | hand, ~outline, seed)
        if cut is None:
            return patch
        near = cv2.dilate(hand.view("u1"), disc(0.08 * crop.size[0])).view(bool)
        # Beside the hand the colours say nothing of the object's edge: the outline stays.
        mixed = np.where(near, outline, largest(smooth(cut)))
        drawn = crop.patch(mixed)
        change = drawn.area / max(1.0, reference)
        fits = 0.75 < change < 1.3 and mask_iou(mixed, outline) > 0.75
        return drawn if fits else patch


def _motion(
    one: np.ndarray, other: np.ndarray, outline: Patch, hand: Patch | None
) -> tuple[np.ndarray | None, int]:
    """(2, 3) similarity from one grey picture to another of the features on the visible part of an
    outline, and how many agree."""
    window = outline.window(_MARGIN)
    here, there = np.ascontiguousarray(one[window]), np.ascontiguousarray(other[window])
    visible = outline.within(window) & ~_grown(hand, 3, window)
    inner = cv2.erode(visible.view(np.uint8), np.ones((3, 3)))
    corners = cv2.goodFeaturesToTrack(here, 60, 0.01, 3, mask=inner)
    if corners is None or len(corners) < _MIN_POINTS:
        return None, 0
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.03)
    options = {"winSize": (13, 13), "maxLevel": 3, "criteria": criteria}
    moved, ok, _ = cv2.calcOpticalFlowPyrLK(here, there, corners, None, **options)  # type: ignore[call-overload]
    back, ok2, _ = cv2.calcOpticalFlowPyrLK(there, here, moved, None, **options)  # type: ignore[call-overload]
    error = np.linalg.norm((back - corners).reshape(-1, 2), axis=1)
    good = (ok.ravel() == 1) & (ok2.ravel() == 1) & (error < 0.7)
    if good.sum() < _MIN_POINTS:
        return None, 0
    offset = np.array([window[1].start, window[0].start], np.float32)
    cv2.setRNGSeed(0)
    motion, inliers = cv2.estimateAffinePartial2D(
        corners[good] + offset, moved[good] + offset, ransacReprojThreshold=1.5
    )
    if motion is None or inliers.sum() < _MIN_POINTS:
        return None, 0
    scale = float(np.hypot(motion[0, 0], motion[1, 0]))
    return (motion, int(inliers.sum())) if 0.9 < scale < 1.1 else (None, 0)


def _alike(one: np.ndarray | None, other: np.ndarray | None) -> float | None:
    """0 to 1: how alike two shares of colours are (Bhattacharyya); None if one is not known."""
    if one is None or other is None:
        return None
    return float(np.sqrt(one * other).sum())


def _grown(mask: Patch | None, size: int, window: tuple[slice, slice]) -> np.ndarray:
    """(h, w) bool of a window; nothing without a mask."""
    if mask is not None:
        return mask.grown(size, window)
    rows, columns = window
    return np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)


def _warped(mask: Patch, motion: np.ndarray) -> Patch:
    window = mask.window(_MARGIN)
    x, y = window[1].start, window[0].start
    local = motion.copy()
    local[:, 2] += motion[:, :2] @ (x, y) - (x, y)
    part = mask.within(window).astype(np.float32)
    soft = cv2.warpAffine(part, local, part.shape[::-1], flags=cv2.INTER_LINEAR)
    return Patch.of(soft > 0.5, (x, y), mask.shape)
