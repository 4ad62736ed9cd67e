"""Things that were found by words: what the vocabulary says of them, and of the tracks they make.

Here: table, label and side of detections and tracks, rows of `detections`. Not here: detectors,
trackers, which detection belongs to which track.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ego_assets.masks.settings import VocabularySettings
from ego_assets.masks.sides import MAX_HANDS, UNSURE, Side, SideEvidence, settle_sides
from ego_assets.operator import Carried, ClipInput, Frame

HANDS, OBJECTS = "hand_masks", "object_masks"


@dataclass
class DetectedBox:
    """One thing in one frame.

    words: those that found it best; score: 0 … 1; box: x_min, y_min, x_max, y_max in 0 … 1 of
    width and height; votes: {words: score} of all that found it.
    """

    words: str
    score: float
    box: list[float]
    votes: dict[str, float] = field(default_factory=dict)


def table_of(settings: VocabularySettings, words: str) -> str:
    """The mask table that a thing found by these words belongs to."""
    return OBJECTS if settings.vocabulary[words] == "object" else HANDS


def same_table(ones: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """(N, M) bool: hands are held against hands, objects against objects."""
    return np.array([[one == other for other in others] for one in ones]).reshape(
        len(ones), len(others)
    )


def side_votes(settings: VocabularySettings, votes: Mapping[str, float]) -> dict[str, float]:
    """{left, right: best score} of words that mean a hand of that side."""
    found: dict[str, float] = {}
    for words, score in votes.items():
        side = settings.vocabulary[words]
        if side in ("left", "right"):
            found[side] = max(score, found.get(side, 0.0))
    return found


def side_of(votes: Mapping[str, float]) -> Side | None:
    """The side that is clearly the likelier one in one frame, or None."""
    left, right = votes.get("left", 0.0), votes.get("right", 0.0)
    if min(left, right) >= UNSURE * max(left, right):
        return None
    return "left" if left > right else "right"


def noted_detections(
    settings: VocabularySettings, frame: Frame, found: Sequence[DetectedBox], size: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """What is kept of a frame's detections for their rows, in values that JSON knows.

    size: (H, W) of the full picture.
    """
    height, width = size
    for number, one in enumerate(found):
        is_hand = table_of(settings, one.words) == HANDS
        yield {
            "frame_index": frame.index,
            "pts_s": frame.pts_s,
            "detection_index": number,
            "label": "hand" if is_hand else one.words,
            "side": side_of(side_votes(settings, one.votes)) if is_hand else None,
            "score": one.score,
            "box": [v * s for v, s in zip(one.box, (width, height) * 2, strict=True)],
        }


def detection_rows(
    clip: ClipInput, notes: Iterable[Mapping[str, Any]], backend: str
) -> list[dict[str, Any]]:
    """Rows of `detections`, of what was `noted_detections`."""
    about = {"backend": backend, "quality_tier": "reference"}
    return [clip.row(n["frame_index"], n["pts_s"]) | dict(n) | about for n in notes]


class Cast:
    """The tracks of a take, and what they are.

    things: {track: its table, and once it is settled words, label, side, is_wearer}; votes:
    {track: {words: sum of scores}} of those that are not settled; evidence: {hand: what was seen
    of it in this clip}.
    """

    def __init__(
        self, settings: VocabularySettings, max_objects: int, clip: ClipInput, carried: Carried
    ) -> None:
        self.settings = settings
        self.limits = {HANDS: MAX_HANDS, OBJECTS: max_objects}
        self.take: str = clip.clip["take_id"]
        self.first = clip.first_track_number
        self.things: dict[str, dict[str, Any]] = dict(carried.get("things", {}))
        self.counts: dict[str, int] = dict(carried.get("counts", {}))
        self.votes: dict[str, dict[str, float]] = {}
        self.evidence: dict[str, SideEvidence] = {}

    def export(self, kept: Iterable[str]) -> Carried:
        """What the next clip needs to know, of the tracks that it may have to do with."""
        kept = set(kept)
        things = {t: thing for t, thing in self.things.items() if t in kept}
        return {"things": things, "counts": self.counts}

    def tables(self, tracks: Iterable[str]) -> list[str]:
        return [self.things[t]["table"] for t in tracks]

    def begin(self, table: str, alive: Iterable[str]) -> str | None:
        """A new track, or None if there are as many as there may be."""
        if self.tables(alive).count(table) >= self.limits[table]:
            return None
        letter = "h" if table == HANDS else "o"
        number = self.counts.get(letter, self.first)
        self.counts[letter] = number + 1
        track = f"{self.take}-{letter}{number:03d}"
        self.things[track] = {"table": table}
        self.votes[track] = {}
        return track

    def hear(
        self, track: str, frame_index: int, votes: Mapping[str, float], entry: float, is_low: bool
    ) -> None:
        """A detection is this track. entry: where its arm comes in, as a share of the width;
        is_low: it reaches far down."""
        table = self.things[track]["table"]
        if track in self.votes:
            for words, score in votes.items():
                if table_of(self.settings, words) == table:
                    self.votes[track][words] = self.votes[track].get(words, 0.0) + score
        if table == HANDS:
            evidence = self.evidence.setdefault(track, SideEvidence())
            evidence.look(frame_index, entry, is_low, side_votes(self.settings, votes))

    def words_of(self, track: str) -> str:
        """The words that it answers to, so far."""
        votes = self.votes.get(track) or {self.things[track]["words"]: 1.0}
        return max(votes, key=lambda w: votes[w])

    def settle(self) -> None:
        """Say what the tracks that began in this clip are; it holds for the take."""
        known = {t: thing["side"] for t, thing in self.things.items() if thing.get("side")}
        sides = settle_sides(self.evidence, known)
        for track in self.votes:
            words, thing = self.words_of(track), self.things[track]
            thing |= {"words": words, "label": words}
            if thing["table"] == HANDS:
                is_wearer = self.evidence[track].is_wearer
                thing |= {"label": "hand", "side": sides[track], "is_wearer": is_wearer}
        self.votes = {}
