"""The order of windows alone: each once over all readers, another by another seed."""

from __future__ import annotations

import numpy as np
import pytest

from ego_assets.training.order import (
    Window,
    WindowRun,
    deal,
    interleave,
    order_of_episodes,
    share_of,
    shuffled,
)
from ego_assets.training.windows import ticks_around

COUNTS = np.array([5, 1, 0, 12, 3, 7, 1])
SHARDS = ["a", "a", "b", "b", "b", "c", "c"]
ALL = sorted((e, n) for e, count in enumerate(COUNTS.tolist()) for n in range(count))


def windows(reader: int, readers: int, seed: tuple[int, int] | None, size: int) -> list[Window]:
    order = order_of_episodes(SHARDS, seed)
    runs = deal(COUNTS, order, *share_of(len(ALL), reader, readers, even=False))
    random = np.random.default_rng((*seed, reader)) if seed else None
    steps = shuffled(interleave(runs, 3 if seed else 1), size, random)
    return [leaving for _, leaving in steps if leaving is not None]


@pytest.mark.parametrize("readers", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("size", [0, 1, 4, 1000])
def test_every_window_comes_once_over_all_readers(readers: int, size: int) -> None:
    shares = [windows(r, readers, (3, 1), size) for r in range(readers)]
    assert sorted(w for share in shares for w in share) == ALL
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_a_seed_windows_come_in_their_order() -> None:
    assert windows(0, 1, None, 0) == ALL


def test_the_seed_and_the_epoch_decide() -> None:
    found = [tuple(windows(0, 1, seed, 8)) for seed in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_episodes_of_a_shard_stay_together() -> None:
    for seed in range(20):
        shards = [SHARDS[e] for e in order_of_episodes(SHARDS, (seed, 0))]
        changes = [n for n in range(1, len(shards)) if shards[n] != shards[n - 1]]
        assert len(changes) == 2
    orders = {tuple(order_of_episodes(SHARDS, (seed, 0)).tolist()) for seed in range(20)}
    assert len(orders) > 10


def test_even_shares_leave_out_less_than_there_are_readers() -> None:
    shares = [share_of(29, r, 4, even=True) for r in range(4)]
    assert shares == [(0, 7), (7, 14), (14, 21), (21, 28)]


def test_a_run_that_ends_is_followed_by_the_next() -> None:
    runs = [WindowRun(0, 0, 3), WindowRun(1, 0, 1), WindowRun(2, 4, 6)]
    assert list(interleave(runs, 2)) == [(0, 0), (1, 0), (0, 1), (2, 4), (0, 2), (2, 5)]


def test_the_buffer_holds_no_more_than_its_size() -> None:
    held = most = 0
    for entering, leaving in shuffled(iter(ALL), 6, np.random.default_rng(0)):
        held += (entering is not None) - (leaving is not None)
        most = max(most, held)
    assert (held, most) == (0, 6)


def test_what_lies_beyond_an_end_is_padding() -> None:
    ticks, is_pad = ticks_around(1, -2, 3, 10)
    assert (ticks.tolist(), is_pad.tolist()) == ([0, 0, 1], [True, False, False])
    ticks, is_pad = ticks_around(8, 0, 4, 10)
    assert (ticks.tolist(), is_pad.tolist()) == ([8, 9, 9, 9], [False, False, True, True])
