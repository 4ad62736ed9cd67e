"""The run's side of its workers: starts their server, hands out tasks, sees them die.

Here: processes and messages. Not here: what a step is (`executor`), what runs in the server and
in a worker (`worker_server`).
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import psutil

from dagster_project.executors.worker_server import (
    MARK_VARIABLE,
    PACKET,
    PINS,
    Finished,
    Task,
    kill_tree,
    serve,
)
from resources.devices.leases import Lease
from resources.processes.owned_folders import sweep

CLOSING_S = 5.0
LEAVING_S = 30.0
"""What a worker may do at its end: others may wait for its devices."""
SERVER_DEATHS = 3
_SERVE = (
    "import sys; sys.path[:] = {}; "
    "from dagster_project.executors.worker_server import serve; serve({}, {})"
)


class WorkerServerError(RuntimeError):
    """Workers cannot be started at all."""


@dataclass(frozen=True)
class Died:
    """A worker is gone. `how` completes "the worker …"."""

    how: str


@dataclass
class Worker:
    """One worker process, pinned to its devices for life."""

    pid: int
    pidfd: int
    connection: Connection
    devices: str
    busy: bool = False
    leaving_since: float | None = None
    lease: Lease | None = None
    steps: int = 0
    first_rss_bytes: int = 0

    def give(self, task: Task) -> None:
        self.busy = True
        self.steps += 1
        with suppress(BrokenPipeError, ConnectionResetError):  # `wait` will say that it died
            self.connection.send(task)

    def interrupt(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGINT)

    def kill(self) -> None:
        """With everything that it has started."""
        if not self.is_gone():
            kill_tree(self.pid)

    @property
    def leaving(self) -> bool:
        return self.leaving_since is not None

    def close(self) -> None:
        """After its death."""
        self.release()
        self.connection.close()
        os.close(self.pidfd)

    def release(self) -> None:
        """End the run's part in the worker's lease."""
        if self.lease:
            self.lease.release()
            self.lease = None

    def is_gone(self, timeout_s: float = 0.0) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))


class WorkerPool:
    """Warm workers of one run, at most `size` of them unless more are busy or keep a model.

    step: "module:function", see `worker_server.Step`. modules: imported once, before any worker
    is forked, with `path` in front of sys.path. own_group: Ctrl-C on a terminal does not reach the
    workers, only whoever has this pool.
    """

    def __init__(
        self,
        step: str,
        modules: Iterable[str],
        *,
        path: Iterable[str],
        size: int,
        steps_per_worker: int,
        growth_mb: int,
        own_group: bool = False,
    ) -> None:
        self.order = {"step": step, "modules": list(modules), "path": list(path)}
        self.own_group = own_group
        self.size = size
        self.steps_per_worker = steps_per_worker
        self.growth_bytes = growth_mb * 2**20
        self.workers: dict[int, Worker] = {}
        self.ready = False
        self.unloaded: dict[str, str] = {}
        self.server_deaths = 0
        self.pending: deque[tuple[Worker, Any]] = deque()

    def __enter__(self) -> WorkerPool:
        self._start_server()
        return self

    def __exit__(self, *_: object) -> None:
        """Let idle workers end, kill the others; afterwards none is there."""
        for worker in self.workers.values():
            if worker.busy:
                worker.kill()
            else:
                self.retire(worker)
        deadline = time.monotonic() + CLOSING_S
        for worker in self.workers.values():
            if not worker.is_gone(max(0.0, deadline - time.monotonic())):
                worker.kill()
                worker.is_gone(CLOSING_S)
            worker.close()
        self.control.close()  # the server kills what is left, and ends
        try:
            self.process.wait(CLOSING_S)
        except psutil.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        sweep()

    def take(self, devices: str) -> Worker:
        """An idle worker with these CUDA_VISIBLE_DEVICES, or a new one."""
        spare = [w for w in self._idle() if not w.lease]
        for worker in reversed(spare):
            if worker.devices == devices:
                self.workers[worker.pid] = self.workers.pop(worker.pid)  # the latest is last
                return worker
        at_work = [w for w in self.workers.values() if w.busy]
        if spare and len(spare) + len(at_work) >= self.size:
            self.retire(spare[0])
        return self._fork(devices)

    def resting(self) -> list[Worker]:
        """Idle workers that keep their lease, with a model on the device."""
        return [w for w in self._idle() if w.lease]

    def idle_devices(self) -> set[str]:
        """CUDA_VISIBLE_DEVICES of the idle workers."""
        return {w.devices for w in self._idle()}

    def _idle(self) -> list[Worker]:
        """Those that can be given a step. One may have died since we last listened."""
        return [w for w in self.workers.values() if not (w.busy or w.leaving) and not w.is_gone()]

    def put_back(self, worker: Worker, finished: Finished) -> str:
        """The worker's step is over; why the worker leaves, if it does."""
        worker.busy = False
        self.server_deaths = 0  # in a row
        if worker.lease and finished.keeps_devices:
            worker.lease.rest()
        else:
            worker.release()
        worker.first_rss_bytes = worker.first_rss_bytes or finished.rss_bytes
        grown = finished.rss_bytes - worker.first_rss_bytes
        why = finished.unfit
        if not why and worker.steps >= self.steps_per_worker:
            why = f"it has done {worker.steps} steps"
        elif not why and grown > self.growth_bytes:
            why = f"it grew by {grown / 2**20:.0f} MiB"
        if why:
            self.retire(worker)
        return why

    def retire(self, worker: Worker) -> None:
        """Let an idle worker end by itself."""
        worker.leaving_since = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(None)

    def wait(self, timeout_s: float) -> list[tuple[Worker, Any]]:
        """What workers said, `Died` as the last of each, within a time.

        Raises WorkerServerError if workers cannot be started.
        """
        for worker in self.workers.values():
            since = worker.leaving_since
            if since is not None and time.monotonic() - since > LEAVING_S:
                worker.kill()
        talking = {w.connection: w for w in self.workers.values()}
        sources: list[Any] = [self.control, *talking]
        for source in wait(sources, 0 if self.pending else timeout_s):
            if source is self.control:
                self._listen()
            elif (worker := talking[source]).pid in self.workers:  # type: ignore[index]
                self._receive(worker)
        said = list(self.pending)
        self.pending.clear()
        return said

    def _start_server(self) -> None:
        self.ready = False
        sweep()  # what killed runs have left
        self.mark = secrets.token_hex(8)
        self.control, self.process = _ready_server.pop() if _ready_server else self._spawn_server()
        self.control.send(json.dumps(self.order | {"mark": self.mark}).encode())

    def _spawn_server(self) -> tuple[socket.socket, psutil.Process]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = psutil.Popen(
                [sys.executable, "-c", _SERVE.format(sys.path, theirs.fileno(), os.getpid())],
                pass_fds=[theirs.fileno()],
                env=os.environ | {MARK_VARIABLE: self.mark},
                process_group=0 if self.own_group else None,
            )
        return ours, process

    def _fork(self, devices: str) -> Worker:
        ours, theirs = Pipe()
        pins = json.dumps(PINS | {"CUDA_VISIBLE_DEVICES": devices}).encode()
        with theirs, suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.control, [pins], [theirs.fileno()])
        why = "the server of the workers died while it started one"
        while (message := self._read_control()) is not None:
            if "failed" in message:
                why = f"this machine lets no further worker start: {message['failed']}"
                break
            if "started" in message:
                pid = message["started"]
                try:
                    pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    break
                self.workers[pid] = Worker(pid, pidfd, ours, devices)
                return self.workers[pid]
            self._note(message)
        ours.close()
        raise WorkerServerError(why)

    def _listen(self) -> None:
        message = self._read_control()
        if message is not None:
            self._note(message)
            return
        # Its workers die with it. Those that were at work are told of, and a new one is started.
        self._kill_strays()
        for worker in list(self.workers.values()):
            worker.is_gone(CLOSING_S)
            self._bury(worker, "was killed together with the server of the workers")
        self.control.close()
        self.process.wait()
        self.server_deaths += 1
        if self.server_deaths >= SERVER_DEATHS:
            raise WorkerServerError(
                f"the server of the workers died {self.server_deaths} times in a row"
            )
        self._start_server()

    def _kill_strays(self) -> None:
        """What steps had started, which only their server would have killed."""
        strays = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK_VARIABLE) == self.mark:
                    kill_tree(process.pid)
                    strays.append(process)
        psutil.wait_procs(strays, CLOSING_S)

    def _read_control(self) -> dict[str, Any] | None:
        try:
            packet = self.control.recv(PACKET)
        except ConnectionResetError:
            packet = b""
        return json.loads(packet) if packet else None

    def _note(self, message: dict[str, Any]) -> None:
        if "error" in message:
            raise WorkerServerError(f"the modules to preload do not load:\n{message['error']}")
        if message.get("ready"):
            self.ready = True
            self.unloaded = message["unloaded"]
        elif worker := self.workers.get(message.get("exited", 0)):
            self._bury(worker, _cause(message["status"]))

    def _receive(self, worker: Worker) -> None:
        """One message. The end of the pipe says nothing: the server tells how a worker died."""
        with suppress(EOFError, OSError):  # OSError: it was killed in the middle of a message
            self.pending.append((worker, worker.connection.recv()))
            return
        if not worker.is_gone(CLOSING_S):
            worker.kill()  # it closed its end: nothing can be said to it any more
        while worker.pid in self.workers:
            self._listen()

    def _bury(self, worker: Worker, how: str) -> None:
        """Take its last words from the pipe, then its death."""
        if self.workers.pop(worker.pid, None) is None:
            return
        with suppress(EOFError, OSError):
            while worker.connection.poll():
                self.pending.append((worker, worker.connection.recv()))
        self.pending.append((worker, Died(how)))
        worker.close()


_ready_server: list[tuple[socket.socket, psutil.Process]] = []


@contextmanager
def server_ready() -> Iterator[None]:
    """Have the next pool of this process start at once: its server is forked now, and has loaded
    what this process has.

    Only for a process with one thread, which has opened nothing that a fork must not share.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    run = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            atexit._clear()  # what the run is to do at its end
            serve(theirs.detach(), run)
        finally:
            os._exit(0)
    theirs.close()
    _ready_server.append((ours, psutil.Process(pid)))
    try:
        yield
    finally:
        while _ready_server:  # there was no pool
            control, process = _ready_server.pop()
            control.close()
            process.wait()


def _cause(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", most often by the kernel for want of memory" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}"
    return f"exited with status {status}"
