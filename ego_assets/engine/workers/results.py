"""Between the model and the lake: results that wait to be published, bounded in bytes.

A lane computes the next clip while a thread behind it publishes the last ones, in order. Whoever
is too slow is waited for: a lane goes on when there is room for what it has made. Here: the queue
and its limits. Not here: what publishing is (`publish`), what follows from a failure (`lane`).
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ego_assets.engine.claims import Claim
from ego_assets.engine.plan import Group, WorkItem
from ego_assets.operator import ClipOutput

CLIPS_BEHIND = 3
"""Results a lane that may be behind the model, however small they are: a crash costs them."""


@dataclass(frozen=True)
class Place:
    """Where a take goes on: at its item `index`, after `before` was done under `fingerprint`."""

    index: int = 0
    before: WorkItem | None = None
    fingerprint: str | None = None

    def after(self, item: WorkItem, fingerprint: str) -> Place:
        """The next item's, to which `item` hands its state on."""
        return Place(self.index + 1, item, fingerprint)

    def afresh(self) -> Place:
        """The next item's, to which nobody hands on anything."""
        return Place(self.index + 1)


@dataclass(eq=False)
class Take:
    """A group on its way through a lane.

    place: where it goes on if it has to again. waiting: its results in the queue; is_broken: one
    could not be published, and what was made after it counts for nothing; is_left: the lane is
    through with it; is_postponed: it is to go on when its raw file is there.
    """

    group: Group
    place: Place = Place()
    waiting: int = 0
    is_broken: bool = False
    is_left: bool = False
    is_postponed: bool = False
    wait_s: float = 0.0

    def goes_back_to(self, place: Place, wait_s: float = 0.0) -> None:
        """Go on from there, after a while."""
        self.place, self.wait_s, self.is_broken = place, wait_s, True


@dataclass(eq=False)
class Result:
    """What an item came to, at its place in its take."""

    take: Take
    place: Place
    item: WorkItem
    fingerprint: str
    claim: Claim
    output: ClipOutput
    byte_size: int = 0
    since: float = 0.0


class Room:
    """So many bytes, and so many results, of all lanes of a worker; first come, first served.

    A result that is larger than all of it has it alone. `changed` guards all queues of a worker.
    """

    def __init__(self, limit: int, clips: int = CLIPS_BEHIND) -> None:
        self.limit = limit
        self.clips = clips
        self.held = 0
        self.count = 0
        self.changed = threading.Condition()
        self._turns: deque[Result] = deque()

    @property
    def is_waited_for(self) -> int:
        """So many results do not fit yet."""
        return len(self._turns)

    def take(self, result: Result) -> None:
        """Wait for room, unless the result's take breaks meanwhile. The lock is the caller's."""
        self._turns.append(result)
        self.changed.wait_for(lambda: result.take.is_broken or self._fits(result))
        self._turns.remove(result)
        self.held += result.byte_size
        self.count += 1
        self.changed.notify_all()

    def _fits(self, result: Result) -> bool:
        if self._turns[0] is not result:
            return False
        fits = self.held + result.byte_size <= self.limit and self.count < self.clips
        return fits or not self.count

    def give(self, result: Result) -> None:
        self.held -= result.byte_size
        self.count -= 1
        self.changed.notify_all()


@dataclass
class ResultQueue:
    """The results of one lane, and the thread that publishes them.

    publish: one result, or what follows from its failure (`Take.goes_back_to`); drop: one that
    counts for nothing; left: the lane is through with a take, and all its results are published,
    or it is broken. They are called by the thread, one at a time.
    """

    room: Room
    publish: Callable[[Result], None]
    drop: Callable[[Result], None]
    left: Callable[[Take], None]
    _results: deque[Result] = field(default_factory=deque)

    def put(self, result: Result) -> bool:
        """Wait for room. False: its take is broken meanwhile, and it was dropped."""
        take, changed = result.take, self.room.changed
        with changed:
            self.room.take(result)
            self._results.append(result)
            take.waiting += 1
            changed.notify_all()
        return self.settle(take) if take.group.alone else not take.is_broken

    def settle(self, take: Take) -> bool:
        """Wait until no result of the take waits. False: it is broken."""
        with self.room.changed:
            self.room.changed.wait_for(lambda: not take.waiting)
            return not take.is_broken

    def wait(self) -> None:
        """Wait until nothing waits to be published."""
        with self.room.changed:
            self.room.changed.wait_for(lambda: not self._results)

    def leave(self, take: Take) -> bool:
        """The lane is through with the take. False: it is broken, and is still the lane's."""
        with self.room.changed:
            if take.is_broken:
                self.room.changed.wait_for(lambda: not take.waiting)
                return False
            take.is_left = True
            is_over = not take.waiting
        if is_over:
            self.left(take)
        return True

    def run(self) -> None:
        """Publish what comes. Raises what `publish` raises."""
        while True:
            self._publish_next()

    def _publish_next(self) -> None:
        """In a function of its own, so that nothing of a result outlives it."""
        with self.room.changed:
            self.room.changed.wait_for(lambda: self._results)
            result = self._results[0]
        (self.drop if result.take.is_broken else self.publish)(result)
        take = result.take
        with self.room.changed:
            self._results.popleft()
            self.room.give(result)
            take.waiting -= 1
            is_over = take.is_left and not take.waiting
        if is_over:
            self.left(take)


def size_of(output: ClipOutput) -> int:
    """Bytes that an output takes in memory, near enough; what is in it twice counts once."""
    found = 0
    seen: set[int] = set()
    rest: list[Any] = [output.tables, output.arrays, output.carried, output.notes]
    while rest:
        value = rest.pop()
        if type(value) in _PLAIN:
            found += _PLAIN[type(value)]
        elif id(value) not in seen:
            seen.add(id(value))
            is_sized = isinstance(value, np.ndarray | pa.Table)
            found += value.nbytes if is_sized else sys.getsizeof(value)
            if isinstance(value, dict):
                rest.extend(value)
                rest.extend(value.values())
            elif isinstance(value, list | tuple):
                rest.extend(value)
    return found


_PLAIN = {float: 24, int: 28, bool: 0, type(None): 0}
"""What is looked at most, and seldom shared."""
