"""Takes Ctrl-C and SIGTERM where nothing is half done.

Python raises KeyboardInterrupt between any two instructions: in the middle of a message from a
run, or after a run was noted and before it was given its command, which is then waited for, for
ever; or in a finalizer, where it is lost. Not here: what an interrupt means (`runs`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupts:
    """Both signals raise KeyboardInterrupt while this is entered in the main thread: at once, or at
    the end of what is `held`; a second one meanwhile at once, too."""

    def __init__(self) -> None:
        self._is_held = self._came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGTERM]
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                numbers.append(signal.SIGINT)  # else it is ignored, or somebody else's
            self._before = {number: signal.signal(number, self._take) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, *_: object) -> None:
        if not self._is_held or self._came:
            self._came = False
            raise KeyboardInterrupt
        self._came = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep an interrupt until the end of the block: for what ends soon."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._came:
            self._came = False
            raise KeyboardInterrupt
