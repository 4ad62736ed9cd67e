"""Which NVIDIA GPUs this machine has, asked of NVML."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One device, in PCI order."""

    index: int
    name: str
    memory_gb: float


def list_gpus() -> list[Gpu]:
    """The devices; [] without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    found = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            with suppress(pynvml.NVMLError):  # a sick device is left out
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
                name = pynvml.nvmlDeviceGetName(handle)
                found.append(Gpu(index, name, round(int(memory) / 1e9, 1)))
    finally:
        pynvml.nvmlShutdown()
    return found
