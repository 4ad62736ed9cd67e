"""Takes whose raw file is not there: tried again after a while, behind those that can go on.

Not here: whether a file is there (`absence`), who works on takes (`supervisor`, `runner`).
"""

from __future__ import annotations

import time
from collections import Counter

from ego_assets.engine.plan import Group

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 2.0


class Postponement:
    """The takes that wait, and until when."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, Group]] = {}
        self._tries: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, group: Group) -> None:
        """Try a take again later, after a longer time each time."""
        first = group.items[0].item_id
        wait_s = min(FIRST_WAIT_S * 2 ** self._tries[first], LONGEST_WAIT_S)
        self._tries[first] += 1
        self._waiting[first] = (time.monotonic() + wait_s, group)

    def due(self) -> list[Group]:
        """The takes whose time has come; they wait no more."""
        now = time.monotonic()
        found = [first for first, (until, _) in self._waiting.items() if until <= now]
        return [self._waiting.pop(first)[1] for first in found]

    def wait_s(self, longest_s: float) -> float:
        """Seconds until the first one is due, but no more than `longest_s`."""
        until = min((until for until, _ in self._waiting.values()), default=None)
        if until is None:
            return longest_s
        return min(longest_s, max(0.0, until - time.monotonic()))

    def is_over(self, first: str) -> None:
        """The take that begins with this item is through."""
        self._tries.pop(first, None)
