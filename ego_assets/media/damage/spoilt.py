"""Which pictures of a damaged stream are not to be trusted.

A damaged packet spoils its own picture and all that refer to it: whatever is stored from there to
the next keyframe, and what is stored behind that and shown before it. Decoders fill such pictures
from others and often do not say so.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

Stretch = tuple[int, int]
"""First frame, and one past the last."""


def spoilt_by(frame: int, order: np.ndarray, keys: np.ndarray) -> set[int]:
    """Return the frames that the damage of a frame's packet spoils.

    order: (P,) frame of every packet as stored; keys: (K,) places in it where keyframes are.
    """
    places = np.flatnonzero(order == frame)
    if not len(places):
        return set()
    place = int(places[0])
    number = int(np.searchsorted(keys, place, side="right"))
    ends = [*keys[number : number + 2].tolist(), len(order), len(order)]
    rest = order[place : ends[0]]
    if number and frame < (key := order[keys[number - 1]]):
        return set(
            rest[rest < key].tolist()
        )  # it is shown before its keyframe: so is what it harms
    spoilt = set(rest.tolist())
    if ends[0] < len(order):
        behind = order[ends[0] : ends[1]]
        spoilt |= set(behind[behind < behind[0]].tolist())
    return spoilt


def known_after(order: np.ndarray, count: int) -> np.ndarray:
    """Return, for each of `count` frames, the frame at which decoding has shown its references.

    Damage of what a picture refers to is known once that has been decoded, which is certain once
    it, or a frame behind it, has come out.
    """
    after = np.arange(count)
    after[order[::-1]] = np.maximum.accumulate(order)[::-1]
    return after


def stretches(frames: Iterable[int]) -> list[Stretch]:
    """Return frames as stretches, in order."""
    ordered = sorted(frames)
    if not ordered:
        return []
    gaps = [(a, b) for a, b in pairwise(ordered) if b > a + 1]
    starts = [ordered[0], *(b for _, b in gaps)]
    ends = [*(a for a, _ in gaps), ordered[-1]]
    return [(start, end + 1) for start, end in zip(starts, ends, strict=True)]
