"""Follows hands from frame to frame by their joints, and scans for new ones.

Here: which look belongs to which hand of a clip. Not here: sides and persons (`persons`), masks.

A hand is looked at where it was, carried on by its motion; the palm net is asked again only from
time to time, and at once around the place where a hand was lost. A hand that it finds is followed
backwards too, as far as frames are held, so that scanning now and then, by one turn, loses little.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ego_assets.masks.landmarks.scan import (
    KEEP_PRESENCE,
    MIN_PRESENCE,
    HandScan,
    are_one,
    size_of,
)
from ego_assets.masks.landmarks.shape import DrawnHand, draw_hand
from ego_assets.models.hand_nets.landmarks import HandLook, region_of
from ego_assets.models.hand_nets.palms import Region, wrapped
from ego_assets.operator import Frame
from ego_assets.vision.threads import each

_RETRIES_S = 0.15
"""Between searches for a hand that was lost."""
_SEARCH_S = 0.6
"""How long a lost hand is searched for out of turn."""
_ASIDE, _TURNED = 0.08, 0.25
"""Of a region's side, and radians: the net is less exact for a hand further off its middle."""
_WIDER = 1.4
"""Of the region in which a hand is looked for that is not where it was expected."""
_JUMP = 0.7
"""Shares of its size that a hand moves from frame to frame at most, beyond its motion before."""
_BLURRED_S = 0.15
"""How long a hand that is followed backwards may be out of sight."""
_BACK_S, _MAX_HELD_BYTES = 1.2, 96 << 20
"""Of the frames that are held, to follow a new hand backwards: half a second of 1080p at 30
frames/s has 89 MiB."""


@dataclass(eq=False)
class HandTrack:
    """A hand through a clip.

    key: within the clip; looks, drawn: by frame; times: seconds of frames.
    """

    key: int
    looks: dict[int, HandLook] = field(default_factory=dict)
    drawn: dict[int, DrawnHand] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)

    @property
    def frames(self) -> list[int]:
        return sorted(self.looks)

    def add(self, frame: Frame, look: HandLook, drawn: DrawnHand | None = None) -> None:
        """Enter a frame. drawn: as `drawn_in` has it, if it is drawn already."""
        self.looks[frame.index] = look
        self.drawn[frame.index] = drawn or drawn_in(frame, look)
        self.times[frame.index] = frame.pts_s

    def drop(self, frame: int) -> None:
        """Forget a frame."""
        del self.looks[frame], self.drawn[frame], self.times[frame]


def drawn_in(frame: Frame, look: HandLook) -> DrawnHand:
    """Return the mask of a hand."""
    return draw_hand(frame.image, look.points, look.metres)


class HandFollower:
    """Tracks of a clip, frame by frame; hands of a frame are looked at side by side."""

    def __init__(self, scan: HandScan, interval_s: float) -> None:
        self.tracks: list[HandTrack] = []
        self._scan = scan
        self._interval_s = interval_s
        self._alive: list[HandTrack] = []
        self._lost: list[tuple[Region, float]] = []
        self._recent: list[Frame] = []
        self._scanned_s = self._searched_s = -np.inf
        scan.forget()

    def see(self, frame: Frame) -> None:
        """Enter the next frame."""
        alive = []
        seen = each(lambda track: self._seen(track, frame), self._alive)
        for track, found in zip(self._alive, seen, strict=True):
            if found is None:
                self._lost.append((track.looks[track.frames[-1]].next_region, frame.pts_s))
            else:
                track.add(frame, *found)
                alive.append(track)
        self._alive = self._apart(alive, frame)
        self._lost = [(r, t) for r, t in self._lost if frame.pts_s - t <= _SEARCH_S]
        self._recent.append(frame)
        self._let_go(self._scanned_s)
        is_due = frame.pts_s - self._scanned_s >= self._interval_s
        if is_due or self._held_bytes() > _MAX_HELD_BYTES:
            self._begin(self._scan.find(frame.image, self._known(frame)), frame)
            self._scanned_s = frame.pts_s
            self._let_go(frame.pts_s)
        if self._lost and frame.pts_s - self._searched_s >= _RETRIES_S:
            lost = [region for region, _ in self._lost]
            self._begin(self._scan.search(frame.image, self._known(frame), lost), frame)
            self._searched_s = frame.pts_s

    def _held_bytes(self) -> int:
        return sum(frame.image.nbytes for frame in self._recent)

    def _let_go(self, before_s: float) -> None:
        """Let go of the oldest frames that are too many or too old, those before a time only."""
        newest = self._recent[-1].pts_s
        while len(self._recent) > 1 and self._recent[0].pts_s < before_s:
            is_old = newest - self._recent[0].pts_s > _BACK_S
            if not is_old and self._held_bytes() <= _MAX_HELD_BYTES:
                break
            del self._recent[0]

    def _seen(self, track: HandTrack, frame: Frame) -> tuple[HandLook, DrawnHand] | None:
        look = self._follow(track, frame)
        return None if look is None else (look, drawn_in(frame, look))

    def _follow(self, track: HandTrack, frame: Frame, step: int = -1) -> HandLook | None:
        """The hand of a track in a frame next to its last (or, step 0, its first) one."""
        frames = track.frames
        near = frames[step]
        last = track.looks[near]
        there = last.points + self._motion(track, frames, step, frame.pts_s)
        ahead = region_of(there)
        look = self._scan.look(frame.image, ahead)
        if look.presence < KEEP_PRESENCE:
            look = self._scan.look(frame.image, last.next_region)
        if look.presence < KEEP_PRESENCE:
            # A head turns suddenly.
            look = self._scan.look(frame.image, replace(ahead, side=_WIDER * ahead.side))
            if look.presence < MIN_PRESENCE or self._is_taken(look, near, track):
                return None
        look = self._centred(frame, look)
        size = size_of(last.points)
        apart = float(np.linalg.norm(look.points.mean(axis=0) - there.mean(axis=0)))
        ratio = size_of(look.points) / max(size, 1e-6)
        return look if apart < _JUMP * size and 0.5 < ratio < 2.0 else None

    def _centred(self, frame: Frame, look: HandLook) -> HandLook:
        """A look whose region lay beside the hand, as after a quick motion, once more."""
        there = look.next_region
        aside = np.hypot(there.x - look.region.x, there.y - look.region.y)
        turned = abs(wrapped(there.angle - look.region.angle))
        if aside < _ASIDE * there.side and turned < _TURNED:
            return look
        again = self._scan.look(frame.image, there)
        return again if again.presence >= look.presence - 0.05 else look

    @staticmethod
    def _motion(track: HandTrack, frames: list[int], step: int, now_s: float) -> np.ndarray:
        """(2,) how far a hand has gone on since its last frame, at the speed of its last two."""
        if len(frames) < 2:
            return np.zeros(2)
        near, next_near = (frames[-1], frames[-2]) if step else (frames[0], frames[1])
        span = track.times[near] - track.times[next_near]
        moved = (track.looks[near].points - track.looks[next_near].points).mean(axis=0)
        ahead = (now_s - track.times[near]) / span if span else 0.0
        return np.asarray(moved * float(np.clip(ahead, -1.5, 1.5)) * 0.7)

    def _apart(self, alive: list[HandTrack], frame: Frame) -> list[HandTrack]:
        """The tracks that go on: of two that have come to one hand, the one that saw it longer."""
        kept: list[HandTrack] = []
        for track in sorted(alive, key=lambda t: -len(t.looks)):
            mine = track.looks[frame.index]
            if any(are_one(mine.points, other.looks[frame.index].points) for other in kept):
                track.drop(frame.index)
                if track.looks:
                    region = track.looks[track.frames[-1]].next_region
                    self._lost.append((region, frame.pts_s))
            else:
                kept.append(track)
        return sorted(kept, key=lambda t: t.key)

    def _known(self, frame: Frame) -> list[HandLook]:
        return [track.looks[frame.index] for track in self._alive]

    def _begin(self, found: list[HandLook], frame: Frame) -> None:
        """Begin a track with each new hand."""
        for look in found:
            track = HandTrack(len(self.tracks))
            track.add(frame, look)
            self.tracks.append(track)
            self._alive.append(track)
            self._back(track)

    def _back(self, track: HandTrack) -> None:
        """Follow a new hand to the frames that are held, past a few in which it is blurred."""
        for frame in reversed(self._recent[:-1]):
            look = self._follow(track, frame, step=0)
            if look is not None and self._is_taken(look, frame.index, track):
                return
            if look is not None:
                track.add(frame, look)
            elif track.times[track.frames[0]] - frame.pts_s > _BLURRED_S:
                return

    def _is_taken(self, look: HandLook, frame: int, track: HandTrack) -> bool:
        """Whether another track has a hand in that place in a frame."""
        return any(
            frame in other.looks and are_one(look.points, other.looks[frame].points)
            for other in self.tracks
            if other is not track
        )
