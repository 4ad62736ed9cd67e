"""Left or right, and whose: what a hand's track says of itself through a clip, summed up.

Here: evidence and the decision; pure. Not here: how hands are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Side = Literal["left", "right"]

UNSURE = 0.8
"""If the weaker side has this share of the stronger one's votes, words alone do not decide."""
LOW = 0.55
"""The camera wearer's hands reach below this share of the height."""
MAX_HANDS = 4
"""That are followed at a time: the wearer's, and another person's."""


@dataclass
class SideEvidence:
    """What was seen of a hand.

    left, right: sums of the scores of the words that matched; entries: sum of where its arm
    enters, as a share of the width; low: frames in which it reaches far down; seen: frames.
    """

    left: float = 0.0
    right: float = 0.0
    entries: float = 0.0
    low: int = 0
    seen: list[int] = field(default_factory=list)

    def look(
        self, frame_index: int, entry: float, is_low: bool, votes: Mapping[str, float]
    ) -> None:
        """Add a frame. entry: where the arm comes in, as a share of the width; is_low: the hand
        reaches below `LOW`; votes: {left, right: score}, maybe none."""
        self.left += votes.get("left", 0.0)
        self.right += votes.get("right", 0.0)
        self.entries += entry
        self.low += is_low
        self.seen.append(frame_index)

    @property
    def is_wearer(self) -> bool:
        """In most frames it reaches into the picture from below."""
        return 2 * self.low > len(self.seen)

    @property
    def lead(self) -> float:
        """0 (as many votes for both sides) to 1."""
        total = self.left + self.right
        return abs(self.left - self.right) / total if total else 0.0

    @property
    def side(self) -> Side:
        """What was voted; where that is unsure, the half in which the arm comes in."""
        weaker, stronger = sorted((self.left, self.right))
        if weaker < UNSURE * stronger:
            return "left" if self.left > self.right else "right"
        return "left" if self.entries < 0.5 * len(self.seen) else "right"


def settle_sides(
    hands: Mapping[str, SideEvidence], settled: Mapping[str, Side] | None = None
) -> dict[str, Side]:
    """{track: side} of each hand. People have two: of the wearer's hands that are seen at the same
    time, the surest says which side it is, and the next one is the other.

    settled: sides of tracks that stand already.
    """
    found: dict[str, Side] = dict(settled or {})
    others: dict[Side, Side] = {"left": "right", "right": "left"}
    for track in sorted(hands, key=lambda t: (-hands[t].lead, t)):
        if track in found:
            continue
        side = hands[track].side
        taken = {
            found[other]
            for other in found
            if other in hands and _together(hands[track], hands[other])
        }
        found[track] = others[side] if side in taken and others[side] not in taken else side
    return found


def _together(one: SideEvidence, other: SideEvidence) -> bool:
    """Both the wearer's, and more than now and then in the same frames."""
    shared = len(set(one.seen) & set(other.seen))
    return one.is_wearer and other.is_wearer and 2 * shared > min(len(one.seen), len(other.seen))


def entry_x(mask: np.ndarray) -> float:
    """Where the arm behind a hand enters the picture, as a share of the width (may be outside).

    The long axis of the mask is followed down to the lower border.
    """
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    points = np.column_stack([columns, rows]).astype(np.float64)
    middle = points.mean(axis=0)
    spread = (points - middle).T @ (points - middle) / len(points)
    _, vectors = np.linalg.eigh(spread + np.eye(2) * 1e-6)
    axis = vectors[:, 1]
    if abs(axis[1]) < 0.25:  # lies across: the side it lies on decides
        lowest = points[points[:, 1] >= np.percentile(points[:, 1], 90)]
        return float(lowest[:, 0].mean() / width)
    x = middle[0] + axis[0] / axis[1] * (height - middle[1])
    return float(np.clip(x / width, -0.5, 1.5))
