"""What runs in a worker of a run: one step after the other, each in the same surroundings.

Here: the worker's side, without Dagster. Not here: its beginning and its end
(`resources.processes.forking`), the run's side (`worker_pool`).
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

from dagster_project.executors.surroundings import Surroundings, reseed
from resources.devices.leases import hold, let_go
from resources.environment import LEASE, VISIBLE_DEVICES
from resources.processes.forking import INTERRUPTS, load

MAIN = "dagster_project.executors.worker:work"
DEVICE_FILE = re.compile(r"/dev/nvidia\d")
PINS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", VISIBLE_DEVICES: "", LEASE: ""}
_early = {"interrupt": False}

Step = Callable[[Any, Callable[[Any], None]], bool]
"""What a worker does: (command, tell) → whether the process is as good as before."""


@dataclass(frozen=True)
class Task:
    """One step for a worker. `lease`: path of the claim to hold meanwhile."""

    command: Any
    lease: str | None = None


@dataclass(frozen=True)
class Told:
    """Something that the step had to say."""

    what: Any


@dataclass(frozen=True)
class Finished:
    """The step is over.

    unfit: why this worker must not do another; empty: it may.
    keeps_devices: it still has the lease, since it has the device open (a loaded model).
    """

    unfit: str
    keeps_devices: bool
    rss_bytes: int


def work(connection: Connection, argument: tuple[str, dict[str, str]]) -> None:
    """Live a worker's life. argument: "module:function" of a `Step`, and what pins the worker to
    its devices."""
    name, pins = argument
    os.environ.update(pins)
    for number in INTERRUPTS:
        signal.signal(number, _remember_interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    reseed()  # the server's state of numpy and torch is in all of us
    step: Step = load(name)
    surroundings = Surroundings()
    lease: int | None = None
    while True:
        try:
            task: Task | None = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        if task is None:
            return
        if task.lease is not None:
            os.environ[LEASE] = task.lease  # what works on the device holds it, too
            lease = hold(task.lease) if lease is None else lease
        fit = step(task.command, lambda what: connection.send(Told(what)))
        unfit = _tidy(surroundings) or ("" if fit else "its step failed")
        # An unfit worker has its lease until it is dead: what it left may be on the device.
        keeps = lease is not None and (bool(unfit) or _has_device_open())
        if lease is not None and not keeps:
            let_go(lease)
            lease = None
        rss = psutil.Process().memory_info().rss
        connection.send(Finished(unfit, keeps, rss))


def _remember_interrupt(*_: Any) -> None:
    _early["interrupt"] = True


def pop_early_interrupt() -> bool:
    """Whether an interrupt came before the step could take it. To be asked by each step."""
    came, _early["interrupt"] = _early["interrupt"], False
    return came


def _tidy(surroundings: Surroundings) -> str:
    """Put everything back; why that is not possible, if it is not."""
    if thread := surroundings.thread_left():
        threading._shutdown()  # type: ignore[attr-defined]  # waits for it, as a process's end does
        return f"its step left the thread {thread!r} running"
    try:
        surroundings.restore()
    except OSError as error:
        return f"its surroundings could not be put back: {error}"
    process = surroundings.process_left()
    return f"its step left the process {process} running" if process else ""


def _has_device_open() -> bool:
    """Whether this process has a CUDA context: every one has its device's file open."""
    for entry in os.scandir("/proc/self/fd"):
        with suppress(OSError):
            if DEVICE_FILE.match(os.readlink(entry.path)):  # noqa: PTH115
                return True
    return False
