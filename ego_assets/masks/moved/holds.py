"""What each hand of a clip holds or touches, in the frames in which it is looked at.

Here: looking at every hand in every key frame, and which of the cuts are borne out by others. Not
here: a single cut (`contact`), following (`follow`).

One cut may be anything that happens to lie behind a hand. What is held is cut out alike shortly
before or after: at the same place beside the hand, if the hand has moved, or in the picture, if it
rests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ego_assets.masks.moved.carry import ScannedClip
from ego_assets.masks.moved.contact import Cut, HandSeen, SeenMotion, cut_held, with_the_hand
from ego_assets.masks.moved.touched import touched_regions
from ego_assets.vision.egomotion import MotionField
from ego_assets.vision.patches import Patch, Shelf
from ego_assets.vision.threads import each

EVIDENCE_BYTES = 64 * 2**20
"""Of what is seen to move with hands, that is held in memory; more lies in a temporary file."""
_SPAN_S = 0.9
"""Cuts no further apart bear each other out."""
_VOTERS_S = 0.65
"""So far around a frame others have a say in what moves with a hand in it."""
_ALIKE = 0.4
"""IoU of cuts that are of one thing."""
_OVERLAP = 0.3
_LEAST_WITNESSES, _ENOUGH = 2, 3.0
"""Other cuts that bear one out: at least; and more of them only say that the hand rests."""
_LONGEST, _FAR_ENOUGH_PX = 4.0, 6.0
"""Motion is seen against a frame so many gaps earlier at most, if a hand was not that far off
before."""


@dataclass
class HandPath:
    """A hand through a clip at work size: its masks and (21, 2) joints by frame."""

    masks: dict[int, Patch] = field(default_factory=dict)
    points: dict[int, np.ndarray] = field(default_factory=dict)

    def seen(self, frame: int) -> HandSeen:
        return HandSeen(self.masks[frame].whole(), self.points[frame])


@dataclass(frozen=True, eq=False)
class Hold:
    """A cut that others bear out. support: how many, by likeness."""

    frame: int
    cut: Cut
    support: float

    @property
    def strength(self) -> float:
        """Which of two is to be believed: what is seen again and again, and like a thing."""
        return min(self.support, _ENOUGH) * self.cut.worth


def covered_by(hands: Sequence[HandPath]) -> dict[int, Patch]:
    """All hands of each frame in one mask."""
    covered: dict[int, Patch] = {}
    for hand in hands:
        for frame, mask in hand.masks.items():
            covered[frame] = covered[frame].joined(mask) if frame in covered else mask
    return covered


def find_holds(look: ScannedClip, hands: Sequence[HandPath], gap_s: float) -> list[Hold]:
    """What hands hold in key frames, the surest first. gap_s: between the pictures that motion is
    seen in."""
    keys = [f for f in look.frames if f in look.keys and any(f in hand.masks for hand in hands)]
    search = _Search(look, hands, keys, gap_s)
    search.gather()
    cuts: dict[int, dict[int, list[Cut]]] = {}
    for frame, found in zip(keys, each(search.cuts_of, keys), strict=True):
        for number, cut in found:
            cuts.setdefault(number, {}).setdefault(frame, []).append(cut)
    holds: list[Hold] = []
    for number, by_frame in cuts.items():
        for frame, mine in by_frame.items():
            regions: list[Hold] = []
            for cut in mine:
                support = _support(look, hands[number], by_frame, frame, cut)
                if support is not None:
                    (regions if cut.is_region else holds).append(Hold(frame, cut, support))
            # Of regions that persist, all but the best are what lies behind the hand.
            holds += sorted(regions, key=lambda hold: -hold.strength)[:1]
    return sorted(_joined(holds), key=lambda hold: -hold.strength)


@dataclass
class _Search:
    """Looks at the hands of a clip in one key frame at a time.

    evidence: by frame and hand, what moves with it, if it moves; it is gathered before anything is
    cut out.
    """

    look: ScannedClip
    hands: Sequence[HandPath]
    keys: Sequence[int]
    gap_s: float
    motion: MotionField = field(default_factory=MotionField)
    evidence: Shelf = field(default_factory=lambda: Shelf(EVIDENCE_BYTES))

    def gather(self) -> None:
        for frame, seen in zip(self.keys, each(self._evidence_of, self.keys), strict=True):
            for number, votes in seen.items():
                if votes is not None:
                    self.evidence[frame, number] = votes

    def _evidence_of(self, frame: int) -> dict[int, np.ndarray | None]:
        now = self.look.grey(frame)
        moved: dict[int, SeenMotion] = {}
        found = {}
        for number, hand in enumerate(self.hands):
            if frame in hand.masks:
                other = _frame_before(self.look, hand, frame, self.gap_s)
                if other not in moved:
                    moved[other] = SeenMotion.between(self.motion, self.look.grey(other), now)
                found[number] = with_the_hand(moved[other], hand.seen(frame))
        return found

    def cuts_of(self, frame: int) -> list[tuple[int, Cut]]:
        times = self.look.pts_s
        close = [f for f in self.keys if abs(times[f] - times[frame]) <= _VOTERS_S]
        seen = {n: hand.seen(frame) for n, hand in enumerate(self.hands) if frame in hand.masks}
        found = []
        for number, hand in seen.items():
            others = np.zeros(self.look.shape, bool)
            for other in seen.values():
                if other is not hand:
                    others |= other.mask
            own = self.evidence.get((frame, number))
            votes = self._votes(number, frame, close)
            picture = self.look.keys[frame]
            cuts = cut_held(picture, own, votes, hand, others)
            cuts += touched_regions(picture, votes, hand, others)
            found += [(number, cut) for cut in cuts]
        return found

    def _votes(self, number: int, frame: int, close: Sequence[int]) -> np.ndarray | None:
        """The sum of what some frames say of the surroundings of a hand, as it lies in one of
        them."""
        points = self.hands[number].points
        total: np.ndarray | None = None
        for other in close:
            votes = self.evidence.get((other, number))
            if votes is None:
                continue
            if other != frame:
                motion = _similarity(points[other], points[frame])
                size = votes.shape[::-1]
                votes = cv2.warpAffine(votes.view("u1"), motion, size, flags=cv2.INTER_NEAREST)
                votes = votes.view(np.int8)
            total = votes.copy() if total is None else total + votes
        return total


def _joined(holds: Sequence[Hold]) -> list[Hold]:
    """Cuts of one frame that overlap are parts of one thing; of regions, the surest stays as it
    is."""
    found: dict[int, list[Hold]] = {}
    for hold in sorted(holds, key=lambda hold: -hold.strength):
        known = found.setdefault(hold.frame, [])
        for place, other in enumerate(known):
            one, two = hold.cut.mask, other.cut.mask
            if one.overlap(two) > _OVERLAP * min(one.area, two.area):
                if hold.cut.is_region or other.cut.is_region:
                    break
                clear = min(hold.cut.clear, other.cut.clear)
                known[place] = Hold(
                    hold.frame, Cut(one.joined(two), clear, other.cut.worth), other.support
                )
                break
        else:
            known.append(hold)
    return [hold for some in found.values() for hold in some]


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) turn, scale and shift that brings points nearest to others."""
    one, other = (p @ (1, 1j) for p in (source, target))
    a = one - one.mean()
    factor = np.vdot(a, other - other.mean()) / max(float(np.vdot(a, a).real), 1e-9)
    shift = other.mean() - factor * one.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def _frame_before(look: ScannedClip, hand: HandPath, frame: int, gap_s: float) -> int:
    """The frame that motion is seen against: the last one, `gap_s` earlier or more, in which the
    hand was elsewhere; a later one if it was not seen so early; else the farthest of the nearer."""
    here = hand.points[frame].mean(axis=0)
    times = look.pts_s
    nearer: dict[int, float] = {frame: 0.0}
    for way in (-1, 1):
        place = look.frames.index(frame)
        chosen: int | None = None
        while 0 <= (place := place + way) < len(look.frames):
            other = look.frames[place]
            apart = abs(times[other] - times[frame])
            if apart < gap_s - 1e-6:
                nearer[other] = apart
                continue
            if apart > _LONGEST * gap_s + 1e-6 or other not in hand.points:
                break
            chosen = other
            if np.linalg.norm(hand.points[other].mean(axis=0) - here) > _FAR_ENOUGH_PX:
                return other
        if chosen is not None:
            return chosen
    return max(nearer, key=lambda other: nearer[other])


def _support(
    look: ScannedClip,
    hand: HandPath,
    cuts: Mapping[int, Sequence[Cut]],
    frame: int,
    cut: Cut,
) -> float | None:
    """How well cuts of other frames at the same hand bear one out; None if they do not."""
    mine, likenesses = cut.mask, []
    for other, theirs in cuts.items():
        if other == frame or abs(look.pts_s[other] - look.pts_s[frame]) > _SPAN_S:
            continue
        x, y = hand.points[frame].mean(axis=0) - hand.points[other].mean(axis=0)
        alike = max(max(mine.iou(one.mask), mine.iou(one.mask.moved(x, y))) for one in theirs)
        if alike > _ALIKE:
            likenesses.append(alike)
    return 1.0 + sum(likenesses) if len(likenesses) >= _LEAST_WITNESSES else None
