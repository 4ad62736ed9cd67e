"""Whose hand each track of a clip is, and which: the wearer's or another person's, left or right.

Here: votes of tracks, and the decision; pure. Not here: how hands are followed (`follow`).

Of single frames the net takes about one gripping hand in four for one of the other side. So each
track votes with all of its frames, where the forearm comes from has a say, and a person has at most
one left and one right hand at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from ego_assets.masks.landmarks.follow import HandTrack
from ego_assets.masks.landmarks.scan import size_of
from ego_assets.masks.landmarks.shape import DrawnHand, pixels_a_metre
from ego_assets.models.hand_nets.landmarks import HandLook
from ego_assets.rows import Side

_SURE = 0.98
_ENTRY = 3.0
"""What the forearm's side weighs, in units of a frame's vote (log odds)."""
_TOGETHER = 0.2
"""Two tracks are seen together if they share so much of the frames of the shorter one."""
_MOST = float(np.log(_SURE / (1 - _SURE)))
_CROSSED = 2.2
_REACH_M, _REACH_SPREAD_M = 0.95, 0.35
"""The wearer's hands are nearer than that, give or take: most focal lengths are guesses."""
_NEAR = 0.3
"""What a near hand counts for: others' may be near, too."""
_CROWDED = 0.1
_PAIR_REACH = 6.0
"""Two hands of one person are not further apart, in sizes of a hand."""


@dataclass(frozen=True)
class PictureView:
    """The picture that hands are seen in: its size, and the focal length in its pixels."""

    width: int
    height: int
    focal: float


@dataclass
class HandVotes:
    """What the frames of a track say, summed up; what a take carries on.

    right: log odds of a right hand; entries: where the forearm enters, -1 left to 1 right; low: 1
    for a forearm that comes from below, -1 from above; near: above 0 for a hand within reach of the
    camera, to -1 beyond any; presence; frames: how many.
    """

    right: float = 0.0
    entries: float = 0.0
    low: float = 0.0
    near: float = 0.0
    presence: float = 0.0
    frames: int = 0

    def add(self, look: HandLook, view: PictureView) -> None:
        odds = float(np.clip(look.right, 1 - _SURE, _SURE))
        x, y = forearm_entry(look.points, view.width, view.height)
        distance = view.focal / max(pixels_a_metre(look.points, look.metres), 1e-6)
        self.right += float(np.log(odds / (1 - odds)))
        self.entries += x
        self.low += y
        self.near += float(np.clip((_REACH_M - distance) / _REACH_SPREAD_M, -1, _NEAR))
        self.presence += look.presence
        self.frames += 1

    def joined(self, other: HandVotes) -> HandVotes:
        return HandVotes(**{k: v + getattr(other, k) for k, v in vars(self).items()})

    @property
    def is_wearer(self) -> bool:
        """The forearm comes from below, and the hand is near. A hand that the net is sure of, and
        whose arm comes from the other side, is rather a neighbour's."""
        sure = (self.right / max(1, self.frames) / _MOST) ** 2
        crossed = min(0.0, self.entries * float(np.sign(self.right)))
        return self.low + self.near + _CROSSED * sure * crossed > 0

    @property
    def mean_right(self) -> float:
        """Log odds of a right hand: what a frame says on average, and the wearer's forearm."""
        count = max(1, self.frames)
        entry = _ENTRY * self.entries / count if self.is_wearer else 0.0
        return self.right / count + entry

    @property
    def weight(self) -> float:
        """How much a track has to say: the more frames, the more."""
        return abs(self.mean_right) * float(np.sqrt(self.frames))


def forearm_entry(points: np.ndarray, width: int, height: int) -> tuple[float, float]:
    """Where the forearm of a hand comes into the picture: (-1 left to 1 right, -1 above to 1
    below), of (21, 2) joints. It is taken to go on from the knuckles through the wrist."""
    knuckles = points[[5, 9, 13, 17]].mean(axis=0)
    wrist = points[0]
    ahead = (wrist - knuckles) / max(float(np.linalg.norm(wrist - knuckles)), 1e-6)
    size = np.array([width, height], np.float64)
    with np.errstate(divide="ignore"):
        steps = np.where(ahead > 0, (size - wrist) / ahead, -wrist / ahead)
    steps = np.where(np.abs(ahead) > 1e-6, np.maximum(steps, 0), np.inf)
    place = wrist + float(steps.min()) * ahead
    x, y = np.clip(2 * place / size - 1, -1, 1)
    return float(x), float(y)


@dataclass(eq=False)
class Hand:
    """A hand of a person through a clip.

    looks, drawn: by frame; parts: the tracks that it is made of.
    """

    side: Side
    is_wearer: bool
    looks: dict[int, HandLook]
    drawn: dict[int, DrawnHand]
    votes: HandVotes
    number: int = -1
    parts: list[HandTrack] = field(default_factory=list)

    @property
    def skin(self) -> float:
        """How much its colour speaks for flesh, 0 to 1, on average."""
        return float(np.mean([drawn.skin for drawn in self.drawn.values()]))

    @property
    def side_score(self) -> float:
        """How sure its side is, 0 to 1."""
        odds = self.votes.mean_right if self.side == "right" else -self.votes.mean_right
        return float(1 / (1 + np.exp(-odds)))


def persons_hands(
    tracks: Sequence[HandTrack],
    view: PictureView,
    before: Mapping[int, HandVotes] | None = None,
    sides: Mapping[int, Side] | None = None,
) -> list[Hand]:
    """The hands of all persons in a clip; what is too short to be one is left out.

    before, sides: votes and settled sides of tracks that the clip before knew, by the track's key.
    """
    votes: dict[int, HandVotes] = {}
    for track in tracks:
        votes[track.key] = replace((before or {}).get(track.key, HandVotes()))
        for look in track.looks.values():
            votes[track.key].add(look, view)
    settled = _sides(tracks, votes, dict(sides or {}))
    hands: list[Hand] = []
    order = sorted(tracks, key=lambda t: -votes[t.key].presence)
    wearers = [t for t in order if votes[t.key].is_wearer and _is_entered(hands, t, settled, votes)]
    rest = [track for track in order if track not in wearers]
    is_one = _are_of_one_person(rest)
    for track in rest:
        _enter_other(hands, track, settled[track.key], votes[track.key], is_one)
    return hands


def _are_of_one_person(tracks: Sequence[HandTrack]) -> bool:
    """Whether hardly ever more than two of them are seen at a time."""
    counts = Counter(frame for track in tracks for frame in track.looks)
    crowded = sum(count > 2 for count in counts.values())
    return crowded <= _CROWDED * len(counts)


def _is_entered(
    hands: list[Hand],
    track: HandTrack,
    settled: Mapping[int, Side],
    votes: Mapping[int, HandVotes],
) -> bool:
    """Let a track be the wearer's hand of its side; False: another track is, at the same time."""
    side, mine = settled[track.key], votes[track.key]
    hand = next((h for h in hands if h.side == side), None)
    if hand is None:
        hands.append(_begun(track, side, True, mine))
        return True
    if len(track.looks.keys() & hand.looks.keys()) > _TOGETHER * len(track.looks):
        return False
    _join(hand, track, mine)
    return True


def _enter_other(
    hands: list[Hand], track: HandTrack, side: Side, votes: HandVotes, is_one: bool
) -> None:
    """Let a track go on a hand of another person, or begin one. is_one: there is only one."""
    for hand in hands:
        shared = len(track.looks.keys() & hand.looks.keys())
        is_free = shared <= _TOGETHER * len(track.looks)
        is_same = not hand.is_wearer and hand.side == side and is_free
        if is_same and (is_one or _goes_on(hand, track)):
            _join(hand, track, votes)
            return
    hands.append(_begun(track, side, False, votes))


def _begun(track: HandTrack, side: Side, is_wearer: bool, votes: HandVotes) -> Hand:
    return Hand(side, is_wearer, dict(track.looks), dict(track.drawn), votes, parts=[track])


def _join(hand: Hand, track: HandTrack, votes: HandVotes) -> None:
    for frame, look in track.looks.items():
        if frame not in hand.looks:
            hand.looks[frame], hand.drawn[frame] = look, track.drawn[frame]
    hand.votes = hand.votes.joined(votes)
    hand.parts.append(track)


def _goes_on(hand: Hand, track: HandTrack) -> bool:
    """Whether a track begins or ends near where a hand of another person ends or begins."""
    first, last = min(track.looks), max(track.looks)
    times = {f: t for part in (*hand.parts, track) for f, t in part.times.items()}
    for frame in (first, last):
        near = min(hand.looks, key=lambda f: abs(f - frame))
        apart = hand.looks[near].points.mean(axis=0) - track.looks[frame].points.mean(axis=0)
        size = max(size_of(hand.looks[near].points), size_of(track.looks[frame].points))
        if abs(times[near] - times[frame]) < 1.5 and float(np.linalg.norm(apart)) < 1.5 * size:
            return True
    return False


def _sides(
    tracks: Sequence[HandTrack], votes: Mapping[int, HandVotes], settled: dict[int, Side]
) -> dict[int, Side]:
    """{key: side}: the surest track first, and those of the same person the other one."""
    pairs = _pairs(tracks, votes)
    others: dict[Side, Side] = {"left": "right", "right": "left"}
    for track in sorted(tracks, key=lambda t: -votes[t.key].weight):
        if track.key in settled:
            continue
        side: Side = "right" if votes[track.key].mean_right > 0 else "left"
        taken = {settled[key] for key in pairs.get(track.key, ()) if key in settled}
        settled[track.key] = others[side] if side in taken and len(taken) == 1 else side
    return settled


def _pairs(tracks: Iterable[HandTrack], votes: Mapping[int, HandVotes]) -> dict[int, set[int]]:
    """{key: keys of the tracks that are the other hand of the same person}.

    All of the wearer's that are seen together are; of other people's, those that are each other's
    nearest in most frames that they share, of about one size.
    """
    found: dict[int, set[int]] = {}
    by_frame: dict[int, list[HandTrack]] = {}
    for track in tracks:
        for frame in track.looks:
            by_frame.setdefault(frame, []).append(track)
    shared: dict[tuple[int, int], int] = {}
    lengths = {track.key: len(track.looks) for track in tracks}
    for frame, there in by_frame.items():
        for one, other in combinations(sorted(there, key=lambda t: t.key), 2):
            mine = votes[one.key].is_wearer
            if mine != votes[other.key].is_wearer:
                continue
            if mine or _are_nearest(one, other, there, frame):
                key = one.key, other.key
                shared[key] = shared.get(key, 0) + 1
    for (one_key, other_key), count in shared.items():
        if count > _TOGETHER * min(lengths[one_key], lengths[other_key]):
            found.setdefault(one_key, set()).add(other_key)
            found.setdefault(other_key, set()).add(one_key)
    return found


def _are_nearest(one: HandTrack, other: HandTrack, there: Sequence[HandTrack], frame: int) -> bool:
    places = {t.key: t.looks[frame].points.mean(axis=0) for t in there}
    apart = float(np.linalg.norm(places[one.key] - places[other.key]))
    sizes = sorted(size_of(t.looks[frame].points) for t in (one, other))
    if apart > _PAIR_REACH * sizes[1] or sizes[1] > 2.0 * sizes[0]:
        return False
    return not any(
        float(np.linalg.norm(places[t.key] - places[each.key])) < apart
        for each in (one, other)
        for t in there
        if t is not one and t is not other
    )
