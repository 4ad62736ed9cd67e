"""How large a batch a backend may take: its memory as a line over the batch, measured once.

Here: measuring, fitting, keeping, and what follows for the batch. Not here: what happens when it
was too much after all (`memory`), what a backend does with a batch.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from ego_assets.models.memory import free, is_out_of_memory
from ego_assets.models.weights import cache_file, update_cache

TARGET = 0.8
"""Share of the memory that is planned with: the rest is for what no measurement saw."""
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
TRIALS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class MemoryModel:
    """Peak memory of a backend with its model loaded: base + item × batch, bytes.

    total: what the device has; samples: (batch, peak) as measured.
    """

    base: float
    item: float
    total: int
    samples: tuple[tuple[int, int], ...]

    def needs(self, batch: int) -> float:
        """Bytes of a batch."""
        return self.base + self.item * batch

    def batch(self, most: int, share: float = 1.0) -> int:
        """The largest batch within the target of a share of the device: 1 … most."""
        room = TARGET * share * self.total - self.base
        return max(1, min(most, int(room // max(self.item, 1.0))))

    def copies(self, batch: int, share: float = 1.0) -> int:
        """How many of these models, each with that batch, a share of the device holds side by
        side."""
        return int(TARGET * share * self.total // max(self.needs(batch), 1.0))


def fit(samples: Sequence[tuple[int, int]], total: int) -> MemoryModel:
    """The line of least squares through (batch, peak bytes); it never falls, and it is raised so
    that no sample lies above it. Raises ValueError without samples."""
    if not samples:
        raise ValueError("a memory model needs at least one sample")
    batch, peak = np.array(samples, np.float64).T
    slope = 0.0
    if len(samples) > 1:
        slope = max(0.0, round(float(np.polyfit(batch, peak, 1)[0]), 3))
    base = float((peak - slope * batch).max())
    return MemoryModel(base, slope, total, tuple((int(b), int(p)) for b, p in samples))


def measure(load: Callable[[], None], run: Callable[[int], None], most: int) -> MemoryModel:
    """Load a model, run batches of 1, 2, 4, … on this process' device, and fit what they took.

    Stops where the memory would not do for the next one. Raises what `run(1)` raises.
    """
    total, reset, peak = _gauges()
    before = 0 if _on_cuda() else _resident()
    reset()
    load()
    samples: list[tuple[int, int]] = []
    for count in (n for n in TRIALS if n <= most):
        if len(samples) > 1 and fit(samples, total).needs(count) > TARGET * total:
            break
        try:
            reset()
            run(count)
        except Exception as error:
            if not samples or not is_out_of_memory(error):
                raise
            break
        samples.append((count, max(0, peak() - before)))
    free()
    return fit(samples, total)


def key_of(backend: str, weights_hash: str, device: str = "") -> str:
    """What a measurement holds for: these weights on this kind of device, under this torch.

    device: its name, for who must not touch it; empty: that of this process.
    """
    from importlib import metadata

    kind = device or device_name()
    return f"{backend} {weights_hash} {kind} torch {metadata.version('torch')}"


def device_name() -> str:
    """The GPU that this process computes on, or `cpu`."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def find(key: str) -> MemoryModel | None:
    """What was measured under a key. None if nothing was, or it cannot be read."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        held = json.loads(_path().read_text())[key]
        samples = tuple((int(b), int(p)) for b, p in held["samples"])
        return MemoryModel(float(held["base"]), float(held["item"]), int(held["total"]), samples)
    return None


def keep(key: str, model: MemoryModel) -> None:
    """Remember a measurement. A home that may not be written keeps nothing."""
    update_cache(_path(), {key: asdict(model)})


def _path() -> Path:
    return cache_file("tuning.json")


def _on_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _gauges() -> tuple[int, Callable[[], None], Callable[[], int]]:
    """(total bytes, set the peak back, read the peak) of the device that this process has."""
    if _on_cuda():
        import torch

        def reset() -> None:
            free()
            torch.cuda.reset_peak_memory_stats()

        # Reserved, not allocated: what the cache holds is gone for others too.
        _, total = torch.cuda.mem_get_info()
        return total, reset, torch.cuda.max_memory_reserved
    return _host_memory(), _reset_resident, _peak_resident


def _host_memory() -> int:
    """Of the machine, or what this container may have of it."""
    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):  # "max": no limit
        total = min(total, int(CONTAINER_LIMIT.read_text()))
    return total


def _resident() -> int:
    return psutil.Process().memory_info().rss


def _reset_resident() -> None:
    """Linux: set this process' VmHWM back to what it has now (proc(5), clear_refs)."""
    if sys.platform == "linux":
        with suppress(OSError):
            Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")


def _peak_resident() -> int:
    with suppress(OSError, StopIteration, ValueError):
        lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("VmHWM:")).split()[1])
    return _resident()
