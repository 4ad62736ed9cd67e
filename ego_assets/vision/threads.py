"""How many threads the operators of this process may use, and work on many frames at a time.

Here: the limit, OpenCV's part in it, an ordered map over threads. Not here: how many processes
there are, and so what the limit is (`stages.supervisor`).

OpenCV and numpy let go of the interpreter while they compute, so what does not depend on each other
is worked on side by side. What comes out does not depend on the number of threads.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _Threads:
    """What this process may use, and uses. limit: 0: one thread a CPU."""

    def __init__(self) -> None:
        self.limit = 0
        self.pool: ThreadPoolExecutor | None = None
        self.lock = threading.Lock()
        self.side_by_side = 0
        self.of_opencv = 0


_threads = _Threads()
# A forked process has none of the threads.
os.register_at_fork(after_in_child=lambda: _threads.__init__())  # type: ignore[misc]


def limit_threads(count: int) -> None:
    """Let the operators of this process use at most `count` threads."""
    with _threads.lock:
        _threads.limit, _threads.pool = count, None
    cv2.setNumThreads(count)


def allowed_threads() -> int:
    """How many threads an operator may use: as limited, else one a CPU of this process."""
    return _threads.limit or len(os.sched_getaffinity(0))


@contextmanager
def side_by_side() -> Iterator[None]:
    """Leave the threads to `each`: OpenCV gets only the one that calls it.

    It would otherwise divide each call among as many threads again.
    """
    with _threads.lock:
        if not _threads.side_by_side:
            _threads.of_opencv = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _threads.side_by_side += 1
    try:
        yield
    finally:
        with _threads.lock:
            _threads.side_by_side -= 1
            if not _threads.side_by_side:
                cv2.setNumThreads(_threads.of_opencv)


def each(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """The results of `work` in the order of `items`, made by as many threads as are allowed.

    Items are taken, and results made, at most twice that many ahead of the reader. `work` must not
    use this itself.
    """
    count = allowed_threads()
    if count == 1:
        yield from map(work, items)
        return
    with _threads.lock:
        if _threads.pool is None:
            _threads.pool = ThreadPoolExecutor(count, thread_name_prefix="operator")
        pool = _threads.pool
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for one in waiting:
            one.cancel()
