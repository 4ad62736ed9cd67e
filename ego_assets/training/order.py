"""The order of windows: dealt out to readers, read episode by episode, shuffled in a buffer.

All of it follows from seed, epoch and numbers, without a picture being decoded, so that any place
in an epoch can be found again. Not here: torch (`datasets`), decoding (`samples`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

Window = tuple[int, int]
"""Number of an episode, and of a window in it."""


@dataclass(frozen=True)
class WindowRun:
    """Windows [first, end) of an episode."""

    episode: int
    first: int
    end: int


def order_of_episodes(shards: list[str], seed: tuple[int, int] | None) -> np.ndarray:
    """Numbers of episodes, those of a shard together: shards shuffled, and episodes in each.

    shards: of each episode, those of a shard side by side; seed: None leaves all as it is.
    """
    if seed is None:
        return np.arange(len(shards))
    random = np.random.default_rng(seed)
    starts = [n for n, shard in enumerate(shards) if n == 0 or shard != shards[n - 1]]
    groups = np.split(np.arange(len(shards)), starts[1:])
    parts = [random.permutation(groups[n]) for n in random.permutation(len(groups))]
    return np.concatenate(parts) if parts else np.arange(0)


def share_of(total: int, reader: int, readers: int, even: bool) -> tuple[int, int]:
    """First of the windows of a reader, and one past its last.

    Shares differ by one window at most; even: not at all, and less than `readers` are left out.
    """
    if even:
        size = total // readers
        return reader * size, (reader + 1) * size
    return total * reader // readers, total * (reader + 1) // readers


def deal(counts: np.ndarray, order: np.ndarray, first: int, end: int) -> list[WindowRun]:
    """Windows `first` to `end` of all in this order of episodes; `counts` has those of each."""
    runs = []
    begin = 0
    for episode in order.tolist():
        count = int(counts[episode])
        start, stop = max(first - begin, 0), min(end - begin, count)
        if start < stop:
            runs.append(WindowRun(episode, start, stop))
        begin += count
    return runs


def interleave(runs: Iterable[WindowRun], lanes: int) -> Iterator[Window]:
    """Take a window from each of `lanes` runs in turn; one that ends is followed by the next."""
    waiting = iter(runs)
    open_runs = deque(map(_windows_of, islice(waiting, lanes)))
    while open_runs:
        windows = open_runs.popleft()
        window = next(windows, None)
        if window is not None:
            open_runs.append(windows)
            yield window
        else:
            open_runs.extendleft(map(_windows_of, islice(waiting, 1)))


def _windows_of(run: WindowRun) -> Iterator[Window]:
    return ((run.episode, n) for n in range(run.first, run.end))


def shuffled(
    windows: Iterable[Window], size: int, random: np.random.Generator | None
) -> Iterator[tuple[Window | None, Window | None]]:
    """(a window that enters a buffer of `size`, one that leaves it), either of them None at times.

    random: None lets each leave as it enters.
    """
    held: list[Window] = []
    for window in windows:
        if random is None or size <= 1:
            yield window, window
        elif len(held) < size:
            held.append(window)
            yield window, None
        else:
            place = int(random.integers(size))
            leaving, held[place] = held[place], window
            yield window, leaving
    if random is not None:
        for place in random.permutation(len(held)).tolist():
            yield None, held[place]
