"""How long somebody has given no sign of life, by this process's own monotonic clock.

The clock on the wall may be stepped, here or elsewhere, so a time that somebody wrote down is no
proof of anything. What proves silence is to have looked, again and again, and found the same sign.
Here: the measuring. Not here: what follows from it (`resources.ledger`, `sensors.lost_runs`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable

BEAT_S = 2.0
"""How often the owner of a claim renews its heartbeat."""
GRACE_S = 3 * BEAT_S
"""How old the last heartbeat of a process is at least that is held for dead."""
WATCH_S = 5 * BEAT_S
"""How long a claim is watched whose heartbeat looks stale by the clock on the wall."""


class AwakeClock:
    """A monotonic clock that passes over gaps in which nobody looked at it.

    A process that was stopped (SIGSTOP, a frozen container, a paused machine) must not find, as it
    wakes, that all who slept with it are late.
    """

    def __init__(self, longest_step_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._step_s = longest_step_s
        self._clock = clock
        self._last = clock()
        self._now = 0.0

    def __call__(self) -> float:
        """Return seconds since it was made, no more than `longest_step_s` after the last call."""
        now = self._clock()
        self._now += min(max(now - self._last, 0.0), self._step_s)
        self._last = now
        return self._now


class Silence:
    """For how long each of several others has given no new sign of life."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        """clock: by default one for those who look every second or so."""
        self._clock = clock or AwakeClock(BEAT_S)
        self._seen: dict[Hashable, tuple[frozenset[Hashable], float]] = {}

    def of(self, who: Hashable, signs: Iterable[Hashable]) -> float:
        """Return for how many seconds `who` has shown none but these signs; 0 at first."""
        now, signs = self._clock(), frozenset(signs)
        before = self._seen.get(who)
        since = before[1] if before is not None and signs <= before[0] else now
        self._seen[who] = (signs, since)
        return now - since
