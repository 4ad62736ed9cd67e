"""What follows when memory runs out: free, shrink the batch, try again; in the end, say so.

Here: which errors are of this kind, and a function of a batch that survives them. Not here: who
gathers batches (`batching`), how much fits (`tuning`), what becomes of the clip (stages).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

SHRINK = 0.7
MAX_SHRINKS = 3
_ALLOCATORS = ("can't allocate memory", "ALLOC_FAILED", "CUDA out of memory")
"""torch's CPU allocator, cuBLAS and cuDNN raise a plain RuntimeError; only the words tell."""


class DeviceMemoryError(RuntimeError):
    """There was not enough memory even for smaller batches: another try cannot help."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on the host or on a device."""
    # torch.OutOfMemoryError by name: torch is imported by the backends that need it.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return type(error) is RuntimeError and any(words in str(error) for words in _ALLOCATORS)


class ElasticBatch(Generic[T, R]):
    """`run` over any number of items, in batches that shrink when memory runs out.

    run: a result for each item; its results must not depend on who shares a batch. limit: items in
    a batch; a shrunken one stays so, since the device will not have more room for the next clip.
    """

    def __init__(self, run: Callable[[list[T]], Sequence[R]], limit: int) -> None:
        self.run = run
        self.limit = limit

    def __call__(self, items: Sequence[T]) -> list[R]:
        """Results in order. Raises DeviceMemoryError with the figures, and what `run` raises."""
        found: list[R] = []
        tried: list[int] = []
        while len(found) < len(items):
            batch = list(items[len(found) : len(found) + self.limit])
            words = self._try(batch, found)
            if words is None:
                continue
            # Outside of the handler: an error that is being handled keeps its tensors alive.
            free()
            tried.append(len(batch))
            if len(tried) > MAX_SHRINKS:
                raise DeviceMemoryError(
                    f"out of memory with batches of {', '.join(map(str, tried))}: {words}; "
                    f"{device_figures()}"
                )
            self.limit = max(1, int(SHRINK * len(batch)))
        return found

    def _try(self, batch: list[T], found: list[R]) -> str | None:
        """Add the batch's results, or say which allocation failed."""
        try:
            results = self.run(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return str(error).split("\n", 1)[0] or type(error).__name__
        if len(results) != len(batch):
            raise RuntimeError(f"{len(batch)} items gave {len(results)} results")
        found.extend(results)
        return None


def persist(run: Callable[[], R]) -> R:
    """What `run` returns; tried as often as a batch of one item, for what cannot be made smaller.

    Raises DeviceMemoryError, and what `run` raises.
    """
    batch: ElasticBatch[None, R] = ElasticBatch(lambda _: [run()], 1)
    return batch([None])[0]


def free() -> None:
    """Give back what nobody uses: to Python, and from torch's cache to the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def device_figures() -> str:
    """What this process holds of its device and what is free on it; without one, that."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return "no device in use"
    left, total = torch.cuda.mem_get_info()
    return (
        f"{torch.cuda.get_device_name()}: {left / 2**20:.0f} of {total / 2**20:.0f} MiB free, "
        f"{torch.cuda.memory_allocated() / 2**20:.0f} MiB in tensors of this worker, "
        f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB at its peak"
    )
