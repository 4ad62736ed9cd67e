"""Cuts out what moves with a hand, in one picture.

Here: one hand in one frame, seen beside the frame shortly before. Not here: what a hand touches
(`touched`), how what is cut out is followed through a clip (`follow`), which cuts are borne out
(`holds`).

What moves with a moving hand is held; what stays behind it is not. The former is a sample of the
object's colours.
The rest of the picture around the hand, as far as nothing speaks for the object, is a sample of
what it is not. A graph cut between the two (GrabCut, Rother et al. 2004) gives the outline.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ego_assets.masks.moved.cutting import CutWindow, cut_out, disc, smooth, touching
from ego_assets.vision.egomotion import MotionField
from ego_assets.vision.patches import Patch

REACHES = (1.3, 3.0, 5.0)
"""How far around the hand an object is looked for, in sizes of the hand: wider if it goes on."""
_MOVES_PX, _WITH, _STAYS = 1.5, 0.35, 0.25
"""Of work size: the least motion of a hand that tells; shares of it that pixels are off the hand's
motion, or the background's."""
_CHANGE, _LEFT = 5.0, 0.6
"""Grey values by which a picture differs from the one before where something moves; the share of
them that is left where it moves as is said."""
_LEAST_WITH = 0.05
"""Of the area of the hand."""
_KNOWN, _FAR = 0.15, 0.6
"""Share of a crop that is seen to stay, of which colours can be learned; else what lies so many
sizes of the hand away is taken for what the object is not."""
LEAST_AREA, _MOST_AREA = 0.06, 40.0
FRINGE, OFF_HAND = 0.1, 0.25
"""Of the size of a hand: so near to it may be flesh that its mask leaves out; the share of an
object that must lie further off."""
_CONTRAST, CLEAR = 7.0, 0.55
"""CIELAB distance across a border that is seen, and how much of a border must be seen."""
_FOR = 0.5
"""Of the pixels that speak against a cut, that must speak for it."""
_CUT_OFF = 0.25
"""Of the side of an object, that may lie at the end of the crop."""
_AT_BORDER = 0.6
"""Of the side of an object, that may lie at the border of the picture."""
_TIPS = ((3, 4), (7, 8), (11, 12), (15, 16), (19, 20))


@dataclass(frozen=True, eq=False)
class Cut:
    """What was cut out beside a hand: visible pixels at work size; how much of its border is seen,
    0 to 1; how much it looks like a thing at that hand, about 0 to 1; whether colours alone say so.
    """

    mask: Patch
    clear: float
    worth: float = 1.0
    is_region: bool = False


@dataclass(frozen=True, eq=False)
class HandSeen:
    """A hand at work size: its mask and its (21, 2) joints."""

    mask: np.ndarray
    points: np.ndarray

    @property
    def size(self) -> float:
        return float(max(8.0, (self.points.max(axis=0) - self.points.min(axis=0)).max()))


@dataclass(frozen=True, eq=False)
class SeenMotion:
    """How a picture came about from one shortly before: (H, W, 2) flow, flow of the background;
    (H, W) change that the background's motion does not explain, and that the flow does not."""

    flow: np.ndarray
    background: np.ndarray
    change: np.ndarray
    left: np.ndarray

    @classmethod
    def between(cls, field: MotionField, earlier: np.ndarray, later: np.ndarray) -> SeenMotion:
        flow, background, change = field.flows(earlier, later)
        columns = np.arange(later.shape[1], dtype=np.float32) + flow[..., 0]
        rows = np.arange(later.shape[0], dtype=np.float32)[:, None] + flow[..., 1]
        seen = cv2.remap(earlier, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        left = cv2.blur(cv2.absdiff(seen, later).astype(np.float32), (3, 3))
        return cls(flow, background, change, left)


def with_the_hand(moved: SeenMotion, hand: HandSeen) -> np.ndarray | None:
    """(H, W) int8: 1 what moves with a hand, -1 what stays behind, 0 what cannot be told; None if
    the hand hardly moves."""
    rows, columns = np.nonzero(hand.mask)
    if len(rows) < 24:
        return None
    step = max(1, len(rows) // 300)
    rows, columns = rows[::step], columns[::step]
    here = np.stack([columns, rows], axis=1).astype(np.float32)
    there = here + moved.flow[rows, columns]
    cv2.setRNGSeed(0)
    motion, inliers = cv2.estimateAffinePartial2D(
        here, np.ascontiguousarray(there, np.float32), ransacReprojThreshold=1.0
    )
    if motion is None or inliers.mean() < 0.4:
        return None
    low, high = hand.points.min(axis=0), hand.points.max(axis=0)
    crop = CutWindow.around(low, high, REACHES[1] * hand.size, hand.mask.shape)
    if crop is None:
        return None
    x = np.arange(crop.left, crop.right, dtype=np.float32)
    y = np.arange(crop.top, crop.bottom, dtype=np.float32)[:, None]
    (a, b, c), (d, e, f) = motion.astype(np.float32)
    window = crop.window
    own = np.stack([a * x + b * y + c - x, d * x + e * y + f - y], axis=-1)
    apart = np.linalg.norm(own - moved.background[window], axis=-1)
    if np.median(apart[hand.mask[window]]) < _MOVES_PX:
        return None
    off_hand = np.linalg.norm(moved.flow[window] - own, axis=-1)
    off_scene = np.linalg.norm(moved.flow[window] - moved.background[window], axis=-1)
    change = moved.change[window]
    # Flow drags along what lies beside the hand: what does move must look as it did.
    held = (off_hand < _WITH * apart) & (change > _CHANGE)
    held &= moved.left[window] < _LEFT * change
    # No change says nothing: a plain part of what moves shows none.
    stays = (off_scene < _STAYS * apart) & ~held
    found = np.zeros(hand.mask.shape, np.int8)
    found[window] = held.astype(np.int8) - stays.astype(np.int8)
    return found


def cut_held(
    picture: np.ndarray,
    own: np.ndarray | None,
    votes: np.ndarray | None,
    hand: HandSeen,
    others: np.ndarray,
) -> list[Cut]:
    """What moves with a hand, cut out around each first guess; nothing if none is good.

    picture: (H, W, 3) uint8 RGB, of the size of the masks or larger; own: what `with_the_hand` says
    of this frame; votes: (H, W) int8, the sum of what it says of this and neighbouring frames, None
    if the hand rests in all of them; others: (H, W) bool, all other hands.
    """
    found = []
    for guess in (own, votes):
        if guess is not None and votes is not None:
            cut = _cut_around(picture, guess, votes, hand, others)
            if cut is not None:
                found.append(cut)
    return found


def _cut_around(
    picture: np.ndarray,
    guess: np.ndarray,
    votes: np.ndarray,
    hand: HandSeen,
    others: np.ndarray,
) -> Cut | None:
    low, high = hand.points.min(axis=0), hand.points.max(axis=0)
    for reach in REACHES:
        crop = CutWindow.around(low, high, reach * hand.size, hand.mask.shape)
        if crop is None:
            return None
        barred = flesh_of(crop, hand, others)
        cut = _cut_in(crop, picture, guess, votes, hand, barred)
        if cut is None or not (cut & crop.ends(5)).sum() > 2 * _CUT_OFF * np.sqrt(cut.sum()):
            break
    else:
        return None
    if cut is None:
        return None
    clear = _seen_border(crop.picture(picture), cut, barred)
    share = min(1.0, cut.sum() / max(1, crop.mask(hand.mask).sum()))
    found = Cut(crop.patch(cut), clear, clear * share**0.5)
    if clear < CLEAR or not found.mask.area:
        return None
    return found if goes_with(found.mask, votes) else None


def goes_with(mask: Patch, votes: np.ndarray | None) -> bool:
    """Whether a part of the picture moves with the hand, or the hand rests (no votes)."""
    if votes is None:
        return True
    said = votes[mask.window(0)][mask.pixels()]
    return bool((said > 0).sum() > _FOR * (said < 0).sum())


def flesh_of(crop: CutWindow, hand: HandSeen, others: np.ndarray) -> np.ndarray:
    """(h, w) bool of a crop: hands and the forearm."""
    flesh = crop.mask(hand.mask) | crop.mask(others)
    arm = _forearm(flesh.shape, crop.points(hand.points), hand.size * crop.scale)
    found: np.ndarray = cv2.dilate(flesh.view("u1"), disc(1)).view(bool) | arm
    return found


def _cut_in(
    crop: CutWindow,
    picture: np.ndarray,
    guess: np.ndarray,
    votes: np.ndarray,
    hand: HandSeen,
    barred: np.ndarray,
) -> np.ndarray | None:
    """(h, w) bool: what is cut out in a crop. barred: what `flesh_of` says of it."""
    flesh, points = crop.mask(hand.mask), crop.points(hand.points)
    size, area = hand.size * crop.scale, max(1, int(flesh.sum()))
    at_fingers = _at_fingers(barred.shape, points, size) & ~barred
    seed = crop.mask(guess > 0) & ~barred
    seed = cv2.morphologyEx(seed.view("u1"), cv2.MORPH_OPEN, disc(1)).view(bool)
    seed = touching(seed, cv2.dilate(flesh.view("u1"), disc(0.1 * size)).view(bool))
    stays = crop.mask(votes < 0) & ~seed
    if seed.sum() < max(8, _LEAST_WITH * area):
        return None
    never = stays | barred | crop.ends(3)
    elsewhere = never
    if stays.sum() < _KNOWN * stays.size:
        elsewhere = ~cv2.dilate(seed.view("u1"), disc(_FAR * size)).view(bool)
    cut = cut_out(crop.picture(picture), seed, never, elsewhere)
    if cut is None:
        return None
    cut = _not_backdrop(touching(smooth(cut), seed | at_fingers), crop)
    if not LEAST_AREA * area <= cut.sum() <= _MOST_AREA * area:
        return None
    fringe = cv2.dilate(barred.view("u1"), disc(FRINGE * size)).view(bool)
    return cut if (cut & ~fringe).sum() >= OFF_HAND * cut.sum() else None


def _not_backdrop(cut: np.ndarray, crop: CutWindow) -> np.ndarray:
    """The parts of a cut that do not lie along the border of the picture, as a backdrop does."""
    rim = np.zeros(cut.shape, bool)
    rim[:1] |= crop.top == 0
    rim[:, :1] |= crop.left == 0
    rim[-1:] |= crop.bottom == crop.shape[0]
    rim[:, -1:] |= crop.right == crop.shape[1]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(cut.view("u1"), connectivity=4)
    along = np.bincount(labels[rim], minlength=count)
    keep = along <= _AT_BORDER * np.sqrt(stats[:, cv2.CC_STAT_AREA])
    keep[0] = False
    found: np.ndarray = keep[labels]
    return found


def _forearm(shape: tuple[int, ...], points: np.ndarray, size: float) -> np.ndarray:
    """(h, w) bool: where the arm of a hand lies, behind its wrist."""
    wrist, knuckles = points[0], points[[5, 9, 13, 17]].mean(axis=0)
    ahead = (wrist - knuckles) / max(float(np.linalg.norm(wrist - knuckles)), 1e-6)
    x = np.arange(shape[1]) - wrist[0]
    y = np.arange(shape[0])[:, None] - wrist[1]
    along = x * ahead[0] + y * ahead[1]
    aside = np.abs(x * ahead[1] - y * ahead[0])
    found: np.ndarray = (along > -0.05 * size) & (aside < size * 0.35 + 0.25 * np.maximum(along, 0))
    return found


def _at_fingers(shape: tuple[int, ...], points: np.ndarray, size: float) -> np.ndarray:
    """(h, w) bool: between the fingers of a hand, and at their tips."""
    found = np.zeros(shape, np.uint8)
    hull = cv2.convexHull(np.round(points * 16).astype(np.int32))
    cv2.fillConvexPoly(found, hull, 1, shift=4)
    for before, tip in _TIPS:
        ahead = points[tip] - points[before]
        ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-6)
        x, y = np.round((points[tip] + 0.06 * size * ahead) * 16).astype(int).tolist()
        cv2.circle(found, (x, y), round(0.08 * size * 16), 1, -1, shift=4)
    return cv2.dilate(found, disc(0.06 * size)).view(bool)


def _seen_border(image: np.ndarray, cut: np.ndarray, barred: np.ndarray) -> float:
    """How much of the border of a cut is one of colours, where no hand lies beside it."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32) * (0.5, 1.0, 1.0)
    around = cv2.dilate(cut.view("u1"), disc(3)).view(bool) & ~cut & ~barred
    means, weights = [], []
    for part in (cut, around):
        weight = cv2.blur(part.astype(np.float32), (9, 9))
        sums = cv2.blur((lab * part[..., None]).astype(np.float32), (9, 9))
        means.append(sums / np.maximum(weight, 1e-6)[..., None])
        weights.append(weight > 0.02)
    border = cut & ~cv2.erode(cut.view("u1"), np.ones((3, 3), np.uint8)).view(bool)
    border &= weights[0] & weights[1]
    if not border.any():
        return 0.0
    apart = np.linalg.norm(means[0] - means[1], axis=-1)[border]
    return float((apart > _CONTRAST).mean())
