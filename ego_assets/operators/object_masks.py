"""Object masks of a clip: what a hand moves, found while it moves and followed through the clip.

Here: seeds from motion, cutting out, following forwards and backwards. Not here: hands, rows.

A thing is cut out (GrabCut, Rother et al. 2004) in the frame in which it moves most clearly. Then
its whole outline is carried from frame to frame by the motion of features on it, and drawn anew
where the colours say so. What a hand covers stays part of the outline, and is taken off at the
end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from ego_assets.operators.rle import mask_iou
from ego_assets.operators.skin import SkinModel, bins_of, relative_shares

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


@dataclass
class FollowedObject:
    """Outline (whole, as if nothing lay in front) by frame, and how well it is followed, 0 to 1."""

    key: int
    outlines: dict[int, np.ndarray] = field(default_factory=dict)
    trust: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Seed:
    """A part that moves on its own in one frame."""

    frame: int
    mask: np.ndarray
    strength: float


def mover_colors(
    images: dict[int, np.ndarray],
    changed: dict[int, np.ndarray],
    moving: dict[int, np.ndarray],
    barred: Lazily,
) -> np.ndarray:
    """(bins,) 0 to 1: how much each colour of the clip belongs to what moves, hands left out."""
    parts = SkinModel()
    for frame in sorted(images)[::LEARN_EVERY]:
        still = ~(cv2.dilate(moving[frame].astype(np.uint8), np.ones((5, 5))) > 0)
        hand = barred[frame]
        parts.learn(bins_of(images[frame]), changed[frame] & ~hand, still & ~hand)
    return relative_shares(parts.hand, parts.rest)


def arm_parts(moving: np.ndarray, hands: np.ndarray | None) -> np.ndarray:
    """(H, W) bool: what moves and hangs together with the border, hands taken out: sleeves."""
    rest: np.ndarray = moving.astype(np.uint8)
    if hands is not None:
        rest[cv2.dilate(hands.astype(np.uint8), np.ones((7, 7))) > 0] = 0
    count, labels = cv2.connectedComponents(rest, connectivity=4)
    edge = np.concatenate([labels[-3:].ravel(), labels[:, :3].ravel(), labels[:, -3:].ravel()])
    at_border = np.zeros(count, bool)
    at_border[np.unique(edge)] = True
    at_border[0] = False
    return cv2.dilate(at_border[labels].astype(np.uint8), np.ones((5, 5))) > 0


def find_seeds(
    changed: dict[int, np.ndarray],
    residual: dict[int, np.ndarray],
    likely: Lazily,
    hands: dict[int, np.ndarray],
    arms: dict[int, np.ndarray],
    min_area: int,
) -> list[Seed]:
    """Moving parts beside a hand that are no hand and no sleeve, the strongest first.

    likely: how much a pixel's colour belongs to what moves, by frame with a hand.
    """
    seeds = []
    for frame, hand in hands.items():
        grown = cv2.dilate(hand.astype(np.uint8), np.ones((3, 3))) > 0
        rest: np.ndarray = (changed[frame] & (likely[frame] > LIKELY)).astype(np.uint8)
        rest = cv2.morphologyEx(rest, cv2.MORPH_CLOSE, np.ones((7, 7)))
        rest[grown | arms[frame]] = 0
        rest = cv2.morphologyEx(rest, cv2.MORPH_OPEN, np.ones((5, 5)))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(rest, connectivity=4)
        touch = cv2.dilate(hand.astype(np.uint8), np.ones((15, 15))) > 0
        for i in range(1, count):
            area = int(stats[i, cv2.CC_STAT_AREA])
            part = labels == i
            if not min_area <= area <= MAX_AREA_SHARE * hand.size or not (part & touch).any():
                continue
            speed = float(np.median(residual[frame][part]))
            seeds.append(Seed(frame, part, area * min(speed, 8.0)))
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


def free_frame(thing: FollowedObject, seed: int, hands: dict[int, np.ndarray]) -> int | None:
    """The frame nearest to the seed in which no hand is at the object; None if there is none."""
    for frame in sorted(thing.outlines, key=lambda f: (abs(f - seed), f)):
        hand = hands.get(frame)
        if hand is None or not (_grown(hand, 5, hand) & thing.outlines[frame]).any():
            return frame
    return None


def whole_object(
    image: np.ndarray, outline: np.ndarray, likely: np.ndarray, barred: np.ndarray
) -> np.ndarray:
    """The object around an outline that may be a part of it, where nothing hides it.

    likely: how much each pixel's colour belongs to what moves; barred: hands and sleeves.
    """
    reach = int(0.5 * np.sqrt(outline.sum())) | 1
    allowed = _grown(outline, 2 * reach + 1, outline) & ~barred
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
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return None
    pad = int(max(8, margin * max(np.ptp(rows), np.ptp(columns))))
    top, bottom = max(0, rows.min() - pad), min(mask.shape[0], rows.max() + pad + 1)
    left, right = max(0, columns.min() - pad), min(mask.shape[1], columns.max() + pad + 1)
    return slice(top, bottom), slice(left, right)


def _largest(mask: np.ndarray) -> np.ndarray:
    small = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
    small = cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((5, 5)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(small, connectivity=4)
    if count < 2:
        return mask
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return labels == best


class Follower:
    """Carries an outline from frame to frame over the pictures of a clip."""

    def __init__(
        self,
        images: dict[int, np.ndarray],
        greys: dict[int, np.ndarray],
        hands: dict[int, np.ndarray],
    ) -> None:
        self.images = images
        self.greys = greys
        self.hands = hands
        self.frames = sorted(images)

    def follow(self, key: int, frame: int, mask: np.ndarray) -> FollowedObject:
        """From `frame` to both ends of the clip."""
        found = FollowedObject(key)
        found.outlines[frame], found.trust[frame] = mask, 1.0
        place = self.frames.index(frame)
        for path in (self.frames[place + 1 :], self.frames[:place][::-1]):
            self._walk(found, frame, path)
        return found

    def _walk(self, found: FollowedObject, start: int, path: list[int]) -> None:
        before, outline, trust = start, found.outlines[start], 1.0
        reference = float(outline.sum())
        for frame in path:
            motion, points = self._motion(before, frame, outline)
            if motion is None:
                trust *= 0.9
            else:
                outline = _warp(outline, motion)
                trust = min(1.0, 0.7 * trust + 0.3 * min(1.0, points / 20))
            if outline.sum() < 12 or trust < 0.15:
                return
            if frame % REDRAW_EVERY == 0:
                outline = self._redraw(frame, outline, reference)
            found.outlines[frame], found.trust[frame] = outline, trust
            before = frame
            reference = 0.95 * reference + 0.05 * float(outline.sum())

    def _motion(
        self, before: int, frame: int, outline: np.ndarray
    ) -> tuple[np.ndarray | None, int]:
        """(2, 3) similarity of the features on the visible part, and how many agree."""
        visible = outline & ~_grown(self.hands.get(before), 3, outline)
        inner = cv2.erode(visible.astype(np.uint8), np.ones((3, 3)))
        corners = cv2.goodFeaturesToTrack(self.greys[before], 60, 0.01, 3, mask=inner)
        if corners is None or len(corners) < MIN_POINTS:
            return None, 0
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.03)
        options = {"winSize": (13, 13), "maxLevel": 3, "criteria": criteria}
        one, other = self.greys[before], self.greys[frame]
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

    def _redraw(self, frame: int, outline: np.ndarray, reference: float) -> np.ndarray:
        """Let the colours correct the outline, away from hands and within reason."""
        hand = _grown(self.hands.get(frame), 3, outline)
        covered = (outline & hand).sum() / max(1, outline.sum())
        if covered > 0.6:
            return outline
        cut = cut_out(self.images[frame], outline & ~hand, hand, rounds=1)
        near = cv2.dilate(hand.astype(np.uint8), np.ones((9, 9))) > 0
        # Beside the hand the colours say nothing of the object's edge: the outline stays.
        mixed = np.where(near, outline, cut)
        change = mixed.sum() / max(1.0, reference)
        fits = 0.75 < change < 1.3 and mask_iou(mixed, outline) > 0.75
        return mixed if fits else outline


def _grown(mask: np.ndarray | None, size: int, like: np.ndarray) -> np.ndarray:
    if mask is None:
        return np.zeros_like(like)
    return cv2.dilate(mask.astype(np.uint8), np.ones((size, size))) > 0


def _warp(mask: np.ndarray, motion: np.ndarray) -> np.ndarray:
    soft = cv2.warpAffine(
        mask.astype(np.float32), motion, (mask.shape[1], mask.shape[0]), flags=cv2.INTER_LINEAR
    )
    return soft > 0.5
