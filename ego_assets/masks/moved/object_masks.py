"""Object masks of a clip: what a hand moves, found while it moves and followed through the clip.

Here: seeds from motion, cutting out, following forwards and backwards. Not here: hands, rows.

A thing is cut out (GrabCut, Rother et al. 2004) in the frame in which it moves most clearly. Then
its whole outline is carried from frame to frame by the motion of features on it, and drawn anew
where the colours say so. What a hand covers stays part of the outline, and is taken off at the
end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ego_assets.masks.colors import ColorCounts, bins_of
from ego_assets.vision.patches import BitFrames, Patch, Shelf
from ego_assets.vision.rle import edges_of, mask_iou
from ego_assets.vision.threads import each

LEARN_EVERY = 4
LIKELY, UNLIKELY, SURELY = 0.25, 0.05, 0.45
MIN_POINTS = 6
REDRAW_EVERY = 3
MAX_AREA_SHARE = 0.12
_GC_MARGIN = 0.35


class Lazily:
    """Something of each frame that is made when it is asked for, and not kept."""

    def __init__(self, make: Callable[[int], np.ndarray]) -> None:
        self._make = make

    def __getitem__(self, frame: int) -> np.ndarray:
        return self._make(frame)


Steps = Iterator[tuple[int, Patch, float]]


@dataclass
class FollowedObject:
    """Outline (whole, as if nothing lay in front) by frame, and how well it is followed, 0 to 1.

    seed: the frame in which it was drawn; ways: forwards and backwards from there, as far as they
    have not been gone yet. Most that is drawn turns out to be nothing within a few frames.
    """

    seed: int
    ways: tuple[Steps, Steps]
    outlines: dict[int, Patch] = field(default_factory=dict)
    trust: dict[int, float] = field(default_factory=dict)
    _reached: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def near(self, distance: int) -> list[int]:
        """The frames at most so far from the seed in which it is seen: it, later, earlier ones."""
        self.reach(distance)
        later = range(self.seed, self.seed + distance + 1)
        earlier = range(self.seed - 1, self.seed - distance - 1, -1)
        return [frame for frame in (*later, *earlier) if frame in self.outlines]

    def reach(self, distance: float) -> None:
        """Follow it both ways for so many frames, or until it is lost."""

        def go(way: int) -> list[tuple[int, Patch, float]]:
            found = []
            while self._reached[way] < distance:
                step = next(self.ways[way], None)
                if step is not None:
                    found.append(step)
                self._reached[way] = abs(step[0] - self.seed) if step else math.inf
            return found

        for steps in each(go, (0, 1)):
            for frame, outline, trust in steps:
                self.outlines[frame], self.trust[frame] = outline, trust


@dataclass(frozen=True)
class Seed:
    """A part that moves on its own in one frame."""

    frame: int
    mask: Patch
    strength: float


class Motion:
    """How fast things move on their own, kept where a seed may be.

    That is where the picture has changed, and in the small gaps between.
    """

    def __init__(self, changed: BitFrames, shelf: Shelf) -> None:
        self._changed = changed
        self._shelf = shelf

    def keep(self, frame: int, residual: np.ndarray, changed: np.ndarray) -> None:
        """residual: (H, W) pixels of motion; changed: (H, W) bool."""
        self._changed[frame] = changed
        self._shelf["speed", frame] = residual[_closed(changed)].astype(np.float16)

    def speed(self, frame: int) -> np.ndarray:
        """(H, W) float16, 0 where it was not kept."""
        where = _closed(self._changed[frame])
        found = np.zeros(where.shape, np.float16)
        found[where] = self._shelf["speed", frame]
        return found


def _closed(changed: np.ndarray) -> np.ndarray:
    """(H, W) bool, holes closed as in `find_seeds`."""
    return cv2.morphologyEx(changed.view(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7))).view(bool)


def mover_colors(
    images: Mapping[int, np.ndarray], changed: BitFrames, moving: BitFrames, barred: Lazily
) -> np.ndarray:
    """(bins,) 0 to 1: how much each colour of the clip belongs to what moves, hands left out."""
    parts = ColorCounts()

    def look(frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        still = ~(cv2.dilate(moving[frame].view(np.uint8), np.ones((5, 5))) > 0)
        free = ~barred[frame]
        return bins_of(images[frame]), changed[frame] & free, still & free

    for seen in each(look, sorted(images)[::LEARN_EVERY]):
        parts.learn(*seen)
    return parts.shares()


def arm_parts(moving: np.ndarray, hands: Patch | None) -> np.ndarray:
    """(H, W) bool: what moves and hangs together with the border, hands taken out: sleeves."""
    rest: np.ndarray = moving.view(np.uint8).copy()
    if hands is not None:
        window = hands.window(3)
        rest[window][hands.grown(7, window)] = 0
    count, labels = cv2.connectedComponents(rest, connectivity=4)
    at_border = np.zeros(count, bool)
    for edge in (labels[-3:], labels[:, :3], labels[:, -3:]):
        at_border[edge] = True
    at_border[0] = False
    if not at_border.any():
        return np.zeros(moving.shape, bool)
    return cv2.dilate(at_border[labels].view(np.uint8), np.ones((5, 5))).view(bool)


def find_seeds(
    changed: BitFrames,
    motion: Motion,
    likely: Lazily,
    hands: Mapping[int, Patch],
    arms: BitFrames,
    min_area: int,
) -> list[Seed]:
    """Moving parts beside a hand that are no hand and no sleeve, the strongest first.

    likely: how much a pixel's colour belongs to what moves, by frame with a hand.
    """

    def look(frame: int) -> list[Seed]:
        hand = hands[frame]
        rest: np.ndarray = (changed[frame] & (likely[frame] > LIKELY)).view(np.uint8)
        rest = cv2.morphologyEx(rest, cv2.MORPH_CLOSE, np.ones((7, 7)))
        rest[arms[frame]] = 0
        window = hand.window(1)
        rest[window][hand.grown(3, window)] = 0
        rest = cv2.morphologyEx(rest, cv2.MORPH_OPEN, np.ones((5, 5)))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(rest, connectivity=4)
        areas = stats[:, cv2.CC_STAT_AREA]
        size = hand.shape[0] * hand.shape[1]
        numbers = [i for i in range(1, count) if min_area <= areas[i] <= MAX_AREA_SHARE * size]
        if not numbers:
            return []
        window = hand.window(7)
        touching = np.unique(labels[window][hand.grown(15, window)])
        speed = motion.speed(frame)
        found = []
        for i in numbers:
            if i not in touching:
                continue
            left, top, width, height = (int(v) for v in stats[i, :4])
            box = slice(top, top + height), slice(left, left + width)
            part = labels[box] == i
            pace = float(np.median(speed[box][part]))
            patch = Patch.of(part, (left, top), hand.shape)
            found.append(Seed(frame, patch, int(areas[i]) * min(pace, 8.0)))
        return found

    seeds = [seed for some in each(look, hands) for seed in some]
    return sorted(seeds, key=lambda s: -s.strength)


def cut_out(image: np.ndarray, mask: np.ndarray, barred: np.ndarray, rounds: int) -> np.ndarray:
    """Draw a rough mask anew along the colours. barred: pixels that cannot be the object.

    Returns (H, W) bool; the rough mask itself if nothing better is found.
    """
    view = _view(mask, _GC_MARGIN)
    if view is None:
        return mask
    picture = np.ascontiguousarray(image[view])
    inside = mask[view].astype(np.uint8)
    size = max(3, int(np.sqrt(inside.sum()) * 0.22) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    sure = cv2.erode(inside, kernel)
    far = cv2.dilate(inside, kernel) == 0
    labels = np.full(inside.shape, cv2.GC_PR_BGD, np.uint8)
    labels[inside > 0] = cv2.GC_PR_FGD
    labels[sure > 0] = cv2.GC_FGD
    labels[far | barred[view]] = cv2.GC_BGD
    foreground = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).sum()
    if foreground < 20 or (labels == cv2.GC_BGD).sum() < 20:
        return mask
    cv2.setRNGSeed(0)
    background_model, object_model = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = np.ascontiguousarray(picture[..., ::-1])
    whole = (0, 0, bgr.shape[1], bgr.shape[0])  # of no effect: the labels start the cut
    cv2.grabCut(bgr, labels, whole, background_model, object_model, rounds, cv2.GC_INIT_WITH_MASK)
    cut = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    found = np.zeros_like(mask)
    found[view] = _largest(cut)
    return found if found.sum() > 0.3 * mask.sum() else mask


def free_frame(
    thing: FollowedObject, frames: Sequence[int], hands: Mapping[int, Patch]
) -> int | None:
    """The frame nearest to the seed in which no hand is at the object; None if there is none."""
    for frame in sorted(frames, key=lambda f: (abs(f - thing.seed), f)):
        thing.reach(abs(frame - thing.seed))
        if frame not in thing.outlines:
            continue
        hand = hands.get(frame)
        outline = thing.outlines[frame]
        window = outline.window(0)
        if hand is None or not (hand.grown(5, window) & outline.pixels()).any():
            return frame
    return None


def whole_object(
    image: np.ndarray, outline: np.ndarray, likely: np.ndarray, barred: np.ndarray
) -> np.ndarray:
    """The object around an outline that may be a part of it, where nothing hides it.

    likely: how much each pixel's colour belongs to what moves; barred: hands and sleeves.
    """
    reach = int(0.5 * np.sqrt(outline.sum())) | 1
    allowed = cv2.dilate(outline.view(np.uint8), np.ones((2 * reach + 1,) * 2)).view(bool) & ~barred
    rough: np.ndarray = (((likely > LIKELY) | outline) & allowed).astype(np.uint8)
    rough = cv2.morphologyEx(rough, cv2.MORPH_CLOSE, np.ones((5, 5)))
    rough = cv2.morphologyEx(rough, cv2.MORPH_OPEN, np.ones((5, 5)))
    count, labels = cv2.connectedComponents(rough, connectivity=4)
    inside = np.bincount(labels[outline], minlength=count)
    inside[0] = 0
    if not inside.any():
        return outline
    grown = labels == int(inside.argmax())
    never = barred | (likely < UNLIKELY)
    return cut_out(image, grown, never, rounds=4)


def _view(mask: np.ndarray, margin: float) -> tuple[slice, slice] | None:
    edges = edges_of(mask)
    if edges is None:
        return None
    left, top, right, bottom = edges
    pad = int(max(8, margin * max(bottom - 1 - top, right - 1 - left)))
    rows = slice(max(0, top - pad), min(mask.shape[0], bottom + pad))
    return rows, slice(max(0, left - pad), min(mask.shape[1], right + pad))


def _largest(mask: np.ndarray) -> np.ndarray:
    small = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
    small = cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((5, 5)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(small, connectivity=4)
    if count < 2:
        return mask
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    largest: np.ndarray = labels == best
    return largest


class Follower:
    """Carries an outline from frame to frame over the pictures of a clip."""

    def __init__(self, images: Mapping[int, np.ndarray], hands: Mapping[int, Patch]) -> None:
        self.images = images
        self.hands = hands
        self.frames = sorted(images)

    def begin(self, frame: int, mask: np.ndarray) -> FollowedObject:
        """What is drawn in `frame`, to be followed as far as somebody wants to know."""
        place = self.frames.index(frame)
        later, earlier = self.frames[place + 1 :], self.frames[:place][::-1]
        ways = (self._walk(frame, mask, later), self._walk(frame, mask, earlier))
        return FollowedObject(frame, ways, {frame: Patch.of(mask)}, {frame: 1.0})

    def follow(self, frame: int, mask: np.ndarray) -> FollowedObject:
        """From `frame` to both ends of the clip."""
        found = self.begin(frame, mask)
        found.reach(math.inf)
        return found

    def _walk(self, start: int, mask: np.ndarray, path: list[int]) -> Steps:
        outline, trust = mask, 1.0
        patch, before, grey = Patch.of(mask), start, self._grey(start)
        reference = float(patch.area)
        for frame in path:
            there = self._grey(frame)
            motion, points = self._motion(grey, there, patch, self.hands.get(before))
            if motion is None:
                trust *= 0.9
            else:
                outline = _warp(outline, motion)
                trust = min(1.0, 0.7 * trust + 0.3 * min(1.0, points / 20))
            patch = Patch.of(outline)
            if patch.area < 12 or trust < 0.15:
                return
            if frame % REDRAW_EVERY == 0:
                outline = self._redraw(frame, outline, patch, reference)
                patch = Patch.of(outline)
            yield frame, patch, trust
            before, grey = frame, there
            reference = 0.95 * reference + 0.05 * float(patch.area)

    def _grey(self, frame: int) -> np.ndarray:
        return cv2.cvtColor(self.images[frame], cv2.COLOR_RGB2GRAY)

    def _motion(
        self, one: np.ndarray, other: np.ndarray, outline: Patch, hand: Patch | None
    ) -> tuple[np.ndarray | None, int]:
        """(2, 3) similarity from one grey picture to another of the features on the visible part
        of an outline, and how many agree."""
        # So much wider that the edge of the window is of no effect on corners in the outline.
        window = outline.window(6)
        visible = outline.within(window) & ~_grown(hand, 3, window)
        inner = cv2.erode(visible.view(np.uint8), np.ones((3, 3)))
        corners = cv2.goodFeaturesToTrack(one[window], 60, 0.01, 3, mask=inner)
        if corners is None or len(corners) < MIN_POINTS:
            return None, 0
        corners += np.array([window[1].start, window[0].start], np.float32)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.03)
        options = {"winSize": (13, 13), "maxLevel": 3, "criteria": criteria}
        moved, ok, _ = cv2.calcOpticalFlowPyrLK(one, other, corners, None, **options)  # type: ignore[call-overload]
        back, ok2, _ = cv2.calcOpticalFlowPyrLK(other, one, moved, None, **options)  # type: ignore[call-overload]
        error = np.linalg.norm((back - corners).reshape(-1, 2), axis=1)
        good = (ok.ravel() == 1) & (ok2.ravel() == 1) & (error < 0.7)
        if good.sum() < MIN_POINTS:
            return None, 0
        cv2.setRNGSeed(0)
        motion, inliers = cv2.estimateAffinePartial2D(
            corners[good], moved[good], ransacReprojThreshold=1.5
        )
        if motion is None or inliers.sum() < MIN_POINTS:
            return None, 0
        scale = float(np.hypot(motion[0, 0], motion[1, 0]))
        return (motion, int(inliers.sum())) if 0.9 < scale < 1.1 else (None, 0)

    def _redraw(
        self, frame: int, outline: np.ndarray, patch: Patch, reference: float
    ) -> np.ndarray:
        """Let the colours correct the outline, away from hands and within reason."""
        whole = slice(0, outline.shape[0]), slice(0, outline.shape[1])
        hand = _grown(self.hands.get(frame), 3, whole)
        covered = (outline & hand).sum() / max(1, patch.area)
        if covered > 0.6:
            return outline
        cut = cut_out(self.images[frame], outline & ~hand, hand, rounds=1)
        near = cv2.dilate(hand.view(np.uint8), np.ones((9, 9))) > 0
        # Beside the hand the colours say nothing of the object's edge: the outline stays.
        mixed = np.where(near, outline, cut)
        change = mixed.sum() / max(1.0, reference)
        fits = 0.75 < change < 1.3 and mask_iou(mixed, outline) > 0.75
        return mixed if fits else outline


def _grown(mask: Patch | None, size: int, window: tuple[slice, slice]) -> np.ndarray:
    """(h, w) bool of a window; nothing without a mask."""
    if mask is not None:
        return mask.grown(size, window)
    rows, columns = window
    return np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)


def _warp(mask: np.ndarray, motion: np.ndarray) -> np.ndarray:
    soft = cv2.warpAffine(
        mask.astype(np.float32), motion, (mask.shape[1], mask.shape[0]), flags=cv2.INTER_LINEAR
    )
    return soft > 0.5
