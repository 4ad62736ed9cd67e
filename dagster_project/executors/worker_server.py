"""The process that forks workers, and what runs in a worker. Here: processes. Not here: Dagster.

A run starts one server (`worker_pool` is the run's side). It imports what steps will need once,
sees no GPU while it does so, and then forks: a worker starts in milliseconds, with everything
loaded, and is told its devices before it does anything. The server is one thread without state
worth keeping. It is the *subreaper* of all that its workers start: when a worker dies, what the
worker left behind becomes the server's child and is killed; when the run dies, the server sees it
and kills everything. Should the server itself be killed, the kernel kills
its workers (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import re
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

from dagster_project.executors.surroundings import Surroundings, reseed
from resources.devices.leases import LEASE_VARIABLE, hold, let_go
from resources.processes.owned_folders import own_folder_of_multiprocessing, sweep
from resources.processes.temp_folder import shorten_temp_folder

PACKET = 65536
ORPHANS_S, STUCK_S = 0.3, 10.0
DEVICE_FILE = re.compile(r"/dev/nvidia\d")
PINS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "", LEASE_VARIABLE: ""}
MARK_VARIABLE = "EGO_WORKERS_OF"
"""In the environment of all that a server and its workers start: whose it is."""
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
_early = {"interrupt": False}
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

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


def serve(descriptor: int, run: int) -> None:
    """Entry point of the server: `python -c "…serve(3, 4711)"`. run: process id of the run."""
    control = socket.socket(fileno=descriptor)
    # Ctrl-C and a stopping service reach the whole group: the run decides what they mean.
    # Blocked, and not ignored: a worker gets one that came before it was ready for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # an import may never end
    if os.getppid() != run:
        return
    if not (packet := control.recv(PACKET)):
        return
    order = json.loads(packet)
    os.environ.update(PINS | {MARK_VARIABLE: order["mark"]})
    gc.disable()  # an import makes no garbage, and is a fifth slower with collections
    try:
        shorten_temp_folder()
        step = _load(order["step"])
        unloaded = _preload(order["modules"], order["path"])
    except BaseException:
        _send(control, error=traceback.format_exc()[-8000:])
        return
    gc.collect()
    gc.freeze()  # a collection in a worker would copy every page that it shares with us
    gc.enable()
    server = _Server(control, step)
    _prctl(_PR_SET_PDEATHSIG, 0)  # from now on we see the run's death, and end what is below us
    sys.stdout.flush()  # or each worker would say it again
    sys.stderr.flush()
    _send(control, ready=True, unloaded=unloaded)
    server.run()


def _preload(modules: list[str], path: list[str]) -> dict[str, str]:
    """Import what there is. What is not found here, a step may still find by its own means."""
    unloaded = {}
    before = list(sys.path)
    sys.path[:0] = path
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            unloaded[module] = str(error)[:1000]
    sys.path[:] = before
    return unloaded


class _Server:
    def __init__(self, control: socket.socket, step: Step) -> None:
        self.control = control
        self.step = step
        self.workers: dict[int, int] = {}  # pidfd → pid
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)
        # Something that the run has forked may keep the socket open longer than the run lives.
        self.run_pidfd = os.pidfd_open(os.getppid())
        self.selector.register(self.run_pidfd, selectors.EVENT_READ)

    def run(self) -> None:
        while True:
            for key, _ in self.selector.select():
                if key.fd in self.workers:
                    self._bury(key.fd)
                elif key.fd == self.run_pidfd or not self._fork():
                    kill_descendants(psutil.Process())
                    return

    def _fork(self) -> bool:
        """Start the worker that is asked for; False if the run is gone."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self.control, PACKET, 1)
        except ConnectionResetError:  # it did not even read our last words
            packet = b""
        if not packet:
            return False
        pins = json.loads(packet)
        server = os.getpid()
        try:
            (descriptor,) = descriptors  # none is handed over if we have too many
            pid = os.fork()
        except (OSError, ValueError) as error:  # a limit of this machine: workers at work go on
            for received in descriptors:
                os.close(received)
            _send(self.control, failed=f"{type(error).__name__}: {error}")
            return True
        if pid == 0:
            self._become_worker(server, descriptor, pins)
        os.close(descriptor)
        pidfd = os.pidfd_open(pid)
        self.workers[pidfd] = pid
        self.selector.register(pidfd, selectors.EVENT_READ)
        _send(self.control, started=pid)
        return True

    def _become_worker(self, server: int, descriptor: int, pins: dict[str, str]) -> None:
        status = 1
        try:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != server:
                return  # it died before we could ask to die with it
            self.selector.close()
            self.control.close()
            for pidfd in (self.run_pidfd, *self.workers):
                os.close(pidfd)
            atexit._clear()  # what the server is to do at its end is no worker's
            own_folder_of_multiprocessing()
            _work(Connection(descriptor), self.step, pins)
            status = 0
            atexit._run_exitfuncs()  # what steps have left to do, as `os._exit` does not
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _bury(self, pidfd: int) -> None:
        pid = self.workers.pop(pidfd)
        self.selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        ours = set(self.workers.values())
        deadline = time.monotonic() + STUCK_S  # not even SIGKILL ends one that hangs in a driver
        # The children of one that ends become ours in turn: until there is none.
        while orphans := [p for p in psutil.Process().children() if p.pid not in ours]:
            # Those of multiprocessing end by themselves, and tidy up what is shared as they do.
            _, staying = psutil.wait_procs(orphans, ORPHANS_S)
            for orphan in staying:
                kill_tree(orphan.pid)
            if time.monotonic() > deadline:
                break
        if status:
            sweep()
        _send(self.control, exited=pid, status=os.waitstatus_to_exitcode(status))


def _work(connection: Connection, step: Step, pins: dict[str, str]) -> None:
    """A worker's life: one step after the other, each in the same surroundings."""
    os.environ.update(pins)
    for number in INTERRUPTS:
        signal.signal(number, _remember_interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what a step starts stays findable below us
    faulthandler.enable()
    reseed()  # the server's state of numpy and torch is in all of us
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
            os.environ[LEASE_VARIABLE] = task.lease  # what works on the device holds it, too
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


def kill_tree(pid: int) -> None:
    """SIGKILL a process and everything below it."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        kill_descendants(root)
        root.kill()


def kill_descendants(root: psutil.Process) -> None:
    """SIGKILL all below a process. Frozen first, until no new one appears: none forks away."""
    frozen: dict[int, psutil.Process] = {}
    while found := [p for p in root.children(recursive=True) if p.pid not in frozen]:
        for process in found:
            frozen[process.pid] = process
            with suppress(psutil.NoSuchProcess):
                process.suspend()
    for process in frozen.values():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _send(control: socket.socket, **message: Any) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # the run is gone: `run` will see it
        control.send(json.dumps(message).encode())


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
