"""A batch that does not fit shrinks, three times; who never fits is told with the figures."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ego_assets.models.batching import MicroBatcher
from ego_assets.models.memory import DeviceMemoryError, ElasticBatch, is_out_of_memory
from tests.engine.memory_backends import Allocator, OutOfMemoryError


class Model:
    """Squares numbers; each takes as many items as its value while it is in a batch."""

    def __init__(self, capacity: int) -> None:
        self.allocator = Allocator(capacity)
        self.batches: list[int] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(len(items))
        with self.allocator.hold(sum(items)):
            return [i * i for i in items]


def test_a_batch_shrinks_until_it_fits_and_nothing_is_lost() -> None:
    model = Model(capacity=15)
    run = ElasticBatch(model, 32)
    assert run([1] * 50) == [1] * 50
    assert model.batches == [32, 22, 15, 15, 15, 5]
    assert run.limit == 15, "the device has no more room for the next clip"
    assert run(range(5)) == [0, 1, 4, 9, 16]


def test_after_three_shrinks_it_says_so_with_the_figures() -> None:
    model = Model(capacity=4)
    run = ElasticBatch(model, 32)
    with pytest.raises(DeviceMemoryError, match=r"batches of 32, 22, 15, 10: .*asked for 10"):
        run([1] * 40)
    assert model.batches == [32, 22, 15, 10]
    assert model.allocator.used == 0
    assert run([1] * 4) == [1] * 4, "the next one finds a working model"


def test_one_item_alone_is_tried_as_often() -> None:
    model = Model(capacity=4)
    with pytest.raises(DeviceMemoryError, match="batches of 1, 1, 1, 1"):
        ElasticBatch(model, 8)([7])


def test_who_shares_a_batch_with_a_glutton_is_served() -> None:
    model = Model(capacity=20)
    batcher = MicroBatcher(ElasticBatch(model, 64), 64, max_age_s=0.2)

    def call(items: list[int]) -> list[int] | str:
        try:
            return batcher(items)
        except DeviceMemoryError as error:
            return str(error)

    with ThreadPoolExecutor(3) as pool:
        small, glutton, other = pool.map(call, [[1, 2], [99], [3]])
    assert (small, other) == ([1, 4], [9])
    assert isinstance(glutton, str)


def test_what_is_tried_again_finds_the_memory_free() -> None:
    """An exception's traceback would keep the failed batch's arrays alive."""
    held: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def run(items: list[int]) -> list[int]:
        alive.append(sum(r() is not None for r in held))
        big = np.zeros(1000)
        held.append(weakref.ref(big))
        if len(items) > 4:
            raise OutOfMemoryError("no room")
        return items

    gc.collect()
    assert ElasticBatch(run, 8)(list(range(8))) == list(range(8))
    assert alive == [0, 0, 0, 0, 0]


def test_other_errors_are_not_tried_again() -> None:
    calls = []

    def run(items: list[int]) -> list[int]:
        calls.append(items)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        ElasticBatch(run, 8)([1])
    assert len(calls) == 1


def test_torch_says_it_in_several_ways() -> None:
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("CUDA out of memory"))
