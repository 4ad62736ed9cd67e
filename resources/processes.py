"""Processes: names that others may ask about (does the owner still live?), and limits of memory."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


def process_name() -> str:
    """Name of this process: host, process id, and when the process began."""
    began = int(psutil.Process().create_time() * 1000)
    return f"{socket.gethostname()}:{os.getpid()}:{began}"


def is_gone(name: str | None) -> bool:
    """Whether a process of that name surely lives no more (one of another host may)."""
    host, _, rest = (name or "").rpartition(":")[0].rpartition(":")
    began = (name or "").rpartition(":")[2]
    if host != socket.gethostname() or not rest.isdigit() or not began.isdigit():
        return False
    try:
        process = psutil.Process(int(rest))
        same = abs(process.create_time() * 1000 - int(began)) < 2000
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


RUN_TAG = "ego/process"
"""Tag of a Dagster run: the process that executes it."""


def run_tag(run_id: str) -> str:
    """Value of the tag for this process; with the run's id, since a run that is started anew may
    inherit the tags of the one before."""
    return f"{run_id} {process_name()}"


def is_run_gone(run_id: str, tag: str) -> bool:
    """Whether the process that executes the run surely lives no more."""
    of_run, _, name = tag.partition(" ")
    return of_run == run_id and is_gone(name)


def is_run_here(run_id: str, tag: str) -> bool:
    """Whether the process that executes the run is one of this machine, and lives."""
    of_run, _, name = tag.partition(" ")
    host = name.rpartition(":")[0].rpartition(":")[0]
    return of_run == run_id and host == socket.gethostname() and not is_gone(name)


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
