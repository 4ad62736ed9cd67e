"""Joins tracks that are one hand: lost for a moment and found again, or found twice.

Here: pieces of tracks, by place, size and time. Not here: sides and persons (`persons`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ego_assets.masks.landmarks.follow import HandTrack
from ego_assets.masks.landmarks.scan import KEEP_PRESENCE, size_of
from ego_assets.masks.landmarks.shape import DrawnHand

_GAP_S = 0.7
_OVERLAP = 2
"""Frames that two pieces of one hand may share: the second is followed backwards."""
_NEAR, _RATIO = 0.9, 1.8
"""How far off a hand is found again, in its sizes; and how much larger or smaller at most."""
_CLEAR = 2.0
"""How much further away any other piece must be that might go on instead."""
_COVERED = 0.6
"""The share of a hand in another one's mask from which it is that one, seen another way."""


def without_doubles(tracks: Sequence[HandTrack]) -> list[HandTrack]:
    """Tracks without what lies on a hand that another track has seen longer and surer.

    A track that mostly lies on another's hand goes on in that one: where the other saw nothing,
    and where both saw the hand but this one surer, as where fingers alone were taken for a hand.
    """
    kept: list[HandTrack] = []
    for track in sorted(tracks, key=_strength, reverse=True):
        shared = [(other, _doubles(track, other)) for other in kept]
        double = {frame for _, frames in shared for frame in frames}
        if len(double) > 0.5 * len(track.looks):
            _go_on(*max(shared, key=lambda pair: len(pair[1])), track)
        else:
            for frame in double:
                track.drop(frame)
            kept.append(track)
    return sorted(kept, key=lambda t: t.key)


def _go_on(track: HandTrack, double: Sequence[int], part: HandTrack) -> None:
    """Enter another track of the same hand. double: the frames in which they show the same."""
    is_surer = _mean_presence(part, double) > _mean_presence(track, double)
    for frame in part.looks.keys() - track.looks.keys() | set(double if is_surer else ()):
        track.looks[frame] = part.looks[frame]
        track.drawn[frame] = part.drawn[frame]
        track.times[frame] = part.times[frame]


def _strength(track: HandTrack) -> float:
    surplus = _mean_presence(track, track.looks) - KEEP_PRESENCE
    return surplus**2 * float(np.sqrt(len(track.looks)))


def _mean_presence(track: HandTrack, frames: Collection[int]) -> float:
    return float(np.mean([track.looks[f].presence for f in frames])) if frames else 0.0


def _doubles(track: HandTrack, other: HandTrack) -> list[int]:
    """The frames in which two tracks show one hand."""
    both = sorted(track.looks.keys() & other.looks.keys())
    return [f for f in both if _is_double(track.drawn[f], other.drawn[f])]


def _is_double(one: DrawnHand, other: DrawnHand) -> bool:
    both = one.mask.overlap(other.mask)
    return both > _COVERED * max(1, min(one.mask.area, other.mask.area))


def linked(tracks: Sequence[HandTrack]) -> list[HandTrack]:
    """Tracks whose pieces are joined; each has the key of its first piece."""
    chains: list[HandTrack] = []
    for track in sorted(tracks, key=lambda t: (min(t.looks), t.key)):
        near = sorted(
            ((apart, chain) for chain in chains if (apart := _apart(chain, track)) is not None),
            key=lambda pair: pair[0],
        )
        if near and (len(near) == 1 or near[1][0] > _CLEAR * near[0][0]):
            _extend(near[0][1], track)
        else:
            chains.append(
                HandTrack(track.key, dict(track.looks), dict(track.drawn), dict(track.times))
            )
    return chains


def _apart(chain: HandTrack, track: HandTrack) -> float | None:
    """How far a track begins from where a chain ends, in sizes of the hand; None: it is another."""
    first, last = min(track.looks), max(chain.looks)
    shared = chain.looks.keys() & track.looks.keys()
    gap = track.times[first] - chain.times[last]
    if len(shared) > _OVERLAP or gap > _GAP_S or max(track.looks) <= last:
        return None
    one, other = chain.looks[last].points, track.looks[first].points
    sizes = sorted((size_of(one), size_of(other)))
    apart = float(np.linalg.norm(one.mean(axis=0) - other.mean(axis=0))) / max(sizes[1], 1e-6)
    return apart if apart < _NEAR and sizes[1] < _RATIO * sizes[0] else None


def _extend(chain: HandTrack, track: HandTrack) -> None:
    for frame in track.frames:
        if frame not in chain.looks:
            chain.looks[frame] = track.looks[frame]
            chain.drawn[frame] = track.drawn[frame]
            chain.times[frame] = track.times[frame]
