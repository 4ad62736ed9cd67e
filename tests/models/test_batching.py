"""Micro-batches close by size or age, and each caller gets its own results, whoever shares them."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ego_assets.models.batching import MicroBatcher


class Model:
    """Doubles numbers; negative ones break the batch. Notes how many came at a time."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.inside = 0

    def __call__(self, items: list[int]) -> list[int]:
        self.inside += 1
        assert self.inside == 1, "two threads at once"
        self.batches.append(len(items))
        time.sleep(0.002)
        self.inside -= 1
        if min(items) < 0:
            raise ValueError(f"bad item {min(items)}")
        return [2 * i for i in items]


def test_one_caller_waits_no_longer_than_the_age() -> None:
    model = Model()
    batcher = MicroBatcher(model, max_items=100, max_age_s=0.05)
    assert batcher([1, 2, 3]) == [2, 4, 6]
    assert model.batches == [3]
    assert batcher([]) == []


def test_a_full_batch_does_not_wait() -> None:
    model = Model()
    batcher = MicroBatcher(model, max_items=3, max_age_s=3600)
    assert batcher([1, 2, 3]) == [2, 4, 6]
    # What is left over of a long call waits for company; here it has enough for itself.
    assert batcher([1, 2, 3, 4, 5, 6]) == [2, 4, 6, 8, 10, 12]
    assert model.batches == [3, 3, 3]


def test_callers_share_batches_and_get_their_own_in_order() -> None:
    """However late a thread is: nothing closes a batch but sixteen items."""
    model = Model()
    batcher = MicroBatcher(model, max_items=16, max_age_s=3600)
    dice = random.Random(0)
    calls = [[dice.randrange(1000) for _ in range(dice.randrange(1, 40))] for _ in range(12)]
    calls.append([7] * (-sum(map(len, calls)) % 16))
    with ThreadPoolExecutor(len(calls)) as pool:
        results = list(pool.map(batcher, calls))
    assert results == [[2 * i for i in call] for call in calls]
    assert model.batches == [16] * (sum(map(len, calls)) // 16)


def test_a_bad_item_fails_its_own_call_only() -> None:
    model = Model()
    batcher = MicroBatcher(model, max_items=100, max_age_s=0.1)
    together = threading.Barrier(3)

    def call(items: list[int]) -> list[int] | str:
        together.wait()
        try:
            return batcher(items)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(call, [[1, 2], [3, -4], [5]]))
    assert found == [[2, 4], "bad item -4", [10]]


def test_a_caller_that_is_stopped_leaves_the_others_their_batch() -> None:
    model, stops = Model(), [SystemExit()]

    def run(items: list[int]) -> list[int]:
        if stops:
            raise stops.pop()
        return model(items)

    batcher = MicroBatcher(run, max_items=100, max_age_s=0.05)
    together = threading.Barrier(3)
    found: list[list[int] | str] = []

    def call(item: int) -> None:
        together.wait()
        try:
            found.append(batcher([item, item]))
        except SystemExit:
            found.append("stopped")

    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert sum(one == "stopped" for one in found) == 1
    assert len(found) == 3
    assert all(one in ("stopped", [2, 2], [4, 4], [6, 6]) for one in found)
    assert batcher([7]) == [14], "what the stopped one brought is gone"
    assert sum(model.batches) == 5


def test_a_model_that_loses_items_is_no_silent_shift() -> None:
    batcher = MicroBatcher(lambda items: items[1:], max_items=4, max_age_s=0.01)
    with pytest.raises(RuntimeError, match="4 items gave 3 results"):
        batcher([1, 2, 3, 4])
