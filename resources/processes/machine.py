"""How much of the machine this process may use: CPUs and memory, as its container has them, and
less memory where a task is bounded.

A container sees all CPUs and all memory of its machine; what it may use of them is in its control
groups (version 1 or 2), in its own or in one above. Not here: devices (`resources.devices.gpu`).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cpus() -> int:
    """Return how many CPUs this process may use at a time: at least 1."""
    try:
        found = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # not on macOS
        found = float(os.cpu_count() or 1)
    for folder in _folders("cpu"):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            found = min(found, int(quota) / int(period))
        with suppress(OSError, ValueError):
            quota_us = int((folder / "cpu.cfs_quota_us").read_text())
            if quota_us > 0:
                found = min(found, quota_us / int((folder / "cpu.cfs_period_us").read_text()))
    return max(1, int(found))


def memory_bytes() -> int:
    """Return how much memory this process and those beside it may use."""
    found = int(psutil.virtual_memory().total)
    for folder in _folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                found = min(found, int((folder / name).read_text()))
    return found


def _folders(controller: str) -> Iterator[Path]:
    """The control groups that hold for us: our own, and those above it.

    The path may be that of the machine, while the container sees its own group as the root.
    """
    with suppress(OSError):
        for line in _OWN.read_text().splitlines():
            _, names, path = line.split(":", 2)
            if names == "":
                roots = [_GROUPS, _GROUPS / "unified"]
            elif controller in names.split(","):
                roots = [_GROUPS / names, _GROUPS / controller]
            else:
                continue
            below = PurePosixPath(path.lstrip("/"))
            for root in roots:
                yield from (root / part for part in (below, *below.parents))


@contextmanager
def bounded_growth(limit_bytes: int) -> Iterator[None]:
    """Let this process take at most so much memory more than it has now: more is refused to it.

    Where the kernel does not say how much that is (all but Linux), there is no bound.
    """
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    held = int(statm.read_text().split()[5]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [n for n in (soft, hard, held + limit_bytes) if n != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
