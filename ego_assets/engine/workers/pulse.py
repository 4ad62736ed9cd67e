"""How a worker says that it comes further with a file, and who is told that storage is slow.

A file may be of any size: a worker that reads one is killed when it comes no further, and not after
a time that follows from the size. Here: when something is said. Not here: who kills (`supervisor`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ego_assets.engine.workers.messages import Progress

PULSE_S = 2.0
SLOW_AFTER_S = 20.0
"""Of waiting for bytes: earlier, a rate says nothing."""


class Pulse:
    """Told of each step that an item makes (`operators.progress`); tells the supervisor of it, not
    too often."""

    def __init__(self, item_id: str, tell: Callable[[Any], None]) -> None:
        self.item_id = item_id
        self.tell = tell
        self.byte_count = 0
        self.reading_s = 0.0
        self._told_at = time.monotonic()
        self._one_at_a_time = threading.Lock()

    def __call__(self, byte_count: int, reading_s: float) -> None:
        with self._one_at_a_time:
            self.byte_count += byte_count
            self.reading_s += reading_s
            now = time.monotonic()
            if now - self._told_at < PULSE_S:
                return
            self._told_at = now
        self.beat()

    def beat(self) -> None:
        self.tell(Progress(self.item_id, self.byte_count, self.reading_s))


def slow_words(uri: str, byte_count: int, reading_s: float, min_bytes_per_s: float) -> str:
    """What a person should know of how fast a file is read; empty if there is nothing to say."""
    if reading_s < SLOW_AFTER_S or byte_count >= min_bytes_per_s * reading_s:
        return ""
    rate = byte_count / reading_s / 1e6
    return (
        f"{uri} is read at {rate:.2g} MB/s ({byte_count / 1e6:,.0f} MB in {reading_s:,.0f} s), "
        f"under {min_bytes_per_s / 1e6:g}: look at the disk or the network that it comes from"
    )
