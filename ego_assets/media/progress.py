"""Tells whoever waits for a file that its reading and decoding go on.

A file may be of any size and storage of any speed: whether a worker hangs is not told by the time
that it takes, but by the time since it last came further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[int, float], None] | None] = ContextVar("progress", default=None)


@contextmanager
def told_to(listener: Callable[[int, float], None]) -> Iterator[None]:
    """While the block runs, `listener` is told of progress: (bytes that were read to be hashed,
    seconds that storage took for them), or zeros. It is called often, and from several threads.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def moved(byte_count: int = 0, seconds: float = 0.0) -> None:
    """Say that this thread has come further. Threads need the context of who started them."""
    listener = _listener.get()
    if listener is not None:
        listener(byte_count, seconds)
