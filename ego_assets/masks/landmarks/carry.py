"""What the next clip of a take inherits of the hands: names, votes, sides, and where they were.

Here: plain values that a take carries, and who goes on as whom. Not here: how hands are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ego_assets.masks.association import assign
from ego_assets.masks.landmarks.follow import HandTrack
from ego_assets.masks.landmarks.persons import Hand, HandVotes
from ego_assets.masks.landmarks.scan import are_one
from ego_assets.operator import Carried
from ego_assets.rows import Side
from ego_assets.settings import MAX_OVERLAP_S

_LEAST_SHARED = 0.3
"""Share of the frames that both clips saw in which a track is where the hand was."""


@dataclass(frozen=True)
class KnownHand:
    """A hand of the clip before. places: (N, 21, 2) joints of its last frames, at work size."""

    number: int
    side: Side
    is_wearer: bool
    votes: HandVotes
    frames: list[int]
    places: np.ndarray


def carried_hands(
    hands: list[Hand], pts_s: Mapping[int, float], first: int, before: Carried
) -> Carried:
    """What is handed on: of all hands the votes, of the last seconds the joints."""
    end = max(pts_s.values())
    kept: list[dict[str, Any]] = []
    joints = []
    for hand in hands:
        frames = [f for f in sorted(hand.looks) if end - pts_s[f] <= MAX_OVERLAP_S]
        joints += [hand.looks[f].points for f in frames]
        kept.append(
            {
                "number": hand.number,
                "side": hand.side,
                "is_wearer": hand.is_wearer,
                "votes": vars(hand.votes),
                "frames": frames,
            }
        )
    named = {each["number"] for each in kept}
    # A hand that this clip does not show may be back in the next one.
    gone = [h | {"frames": []} for h in before.get("hand_tracks", []) if h["number"] not in named]
    count = max([first, int(before.get("hands", first)), *(n + 1 for n in named)])
    return {
        "hands": count,
        "hand_tracks": [*kept, *gone],
        "hand_joints": np.array(joints, np.float32).reshape(-1, 21, 2),
    }


def _known(carried: Carried) -> list[KnownHand]:
    found, start = [], 0
    for held in carried.get("hand_tracks", []):
        count = len(held["frames"])
        places = np.asarray(carried["hand_joints"][start : start + count], np.float64)
        start += count
        found.append(
            KnownHand(
                held["number"],
                held["side"],
                held["is_wearer"],
                HandVotes(**held["votes"]),
                list(held["frames"]),
                places,
            )
        )
    return found


def known_hands(carried: Carried, tracks: list[HandTrack]) -> dict[int, KnownHand]:
    """{key of a track: the hand of the clip before that it is}, by the frames that both saw."""
    known = [hand for hand in _known(carried) if hand.frames]
    if not known or not tracks:
        return {}
    shares = np.zeros((len(tracks), len(known)))
    for row, track in enumerate(tracks):
        for column, hand in enumerate(known):
            shared = [i for i, f in enumerate(hand.frames) if f in track.looks]
            same = [are_one(hand.places[i], track.looks[hand.frames[i]].points) for i in shared]
            shares[row, column] = float(np.mean(same)) if same else 0.0
    pairs = assign(shares, _LEAST_SHARED)
    return {tracks[row].key: known[column] for row, column in pairs}


def name_hands(
    hands: list[Hand], known: Mapping[int, KnownHand], carried: Carried, first: int
) -> None:
    """Give each hand the number that it had in the clip before, or a new one.

    A hand of the wearer is known by its side, too: there is only one of each.
    """
    taken: set[int] = set()
    for hand in hands:
        numbers = [known[part.key].number for part in hand.parts if part.key in known]
        if hand.is_wearer and not numbers:
            alike = (h for h in _known(carried) if h.is_wearer and h.side == hand.side)
            numbers = [h.number for h in alike]
        hand.number = next((n for n in numbers if n not in taken), -1)
        taken.add(hand.number)
    count = int(carried.get("hands", first))
    for hand in hands:
        if hand.number < 0:
            hand.number, count = count, count + 1
