"""The run's side of its workers: hands out tasks, keeps them warm, sees them die.

Here: messages. Not here: processes (`resources.processes.fork_server`), what runs in a worker
(`worker`).
"""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from dagster_project.executors.worker import MAIN, PINS, Finished, Task
from resources.devices.leases import Lease
from resources.processes.fork_server import (
    CLOSING_S,
    MOST_DEATHS,
    TOO_OFTEN,
    Forked,
    ForkServer,
    ForkServerError,
)
from resources.processes.owned_folders import sweep

LEAVING_S = 30.0
"""What a worker may do at its end: others may wait for its devices."""
_HINT = ", most often by the kernel because memory ran out"


@dataclass(frozen=True)
class Died:
    """A worker is gone. `how` completes "the worker …"."""

    how: str


@dataclass
class Worker(Forked):
    """One worker process, pinned to its devices for life."""

    devices: str = ""
    busy: bool = False
    leaving_since: float | None = None
    lease: Lease | None = None
    steps: int = 0
    first_rss_bytes: int = 0

    def give(self, task: Task) -> None:
        self.busy = True
        self.steps += 1
        self.say(task)

    @property
    def leaving(self) -> bool:
        return self.leaving_since is not None

    def close(self) -> None:
        """Let go of it, after its death."""
        self.release()
        super().close()

    def release(self) -> None:
        """End the run's part in the worker's lease."""
        if self.lease:
            self.lease.release()
            self.lease = None


class WorkerPool:
    """Warm workers of one run, at most `size` of them unless more are busy or keep a model.

    step: "module:function", see `worker.Step`. modules: imported once, before any worker
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
        self.step = step
        self.modules, self.path = list(modules), list(path)
        self.own_group = own_group
        self.size = size
        self.steps_per_worker = steps_per_worker
        self.growth_bytes = growth_mb * 2**20
        self.workers: dict[int, Worker] = {}
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
        self.server.close()
        sweep()

    @property
    def ready(self) -> bool:
        """Whether all is loaded, so that a worker starts at once."""
        return self.server.ready

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
        worker.say(None)

    def wait(self, timeout_s: float) -> list[tuple[Worker, Any]]:
        """What workers said, `Died` as the last of each, within a time.

        Raises ForkServerError if workers cannot be started.
        """
        for worker in self.workers.values():
            since = worker.leaving_since
            if since is not None and time.monotonic() - since > LEAVING_S:
                worker.kill()
        talking: dict[Any, Worker] = {}
        for worker in self.workers.values():
            talking |= dict.fromkeys([worker.connection, worker.ended], worker)
        for source in wait([self.server.control, *talking], 0 if self.pending else timeout_s):
            if source is self.server.control:
                self._listen()
            elif (worker := talking[source]).pid in self.workers:
                self._receive(worker, source)
        said = list(self.pending)
        self.pending.clear()
        return said

    def _start_server(self) -> None:
        sweep()  # what killed runs have left
        self.server = ForkServer(
            MAIN,
            [self.step.partition(":")[0]],
            self.modules,
            path=self.path,
            environment=PINS,
            own_group=self.own_group,
        )

    def _fork(self, devices: str) -> Worker:
        forked = self.server.fork((self.step, PINS | {"CUDA_VISIBLE_DEVICES": devices}))
        worker = self.workers[forked.pid] = Worker(**vars(forked), devices=devices)
        return worker

    def _listen(self) -> None:
        if self.server.hear():
            return
        # Its workers die with it. Those that were at work are told of, and a new one is started.
        self.server.kill_strays()
        for worker in list(self.workers.values()):
            worker.is_gone(CLOSING_S)
            worker.has_ended()
            self._bury(worker)
        self.server.close()
        self.server_deaths += 1
        if self.server_deaths >= MOST_DEATHS:
            raise ForkServerError(TOO_OFTEN)
        self._start_server()

    def _receive(self, worker: Worker, source: Any) -> None:
        """One message. The end of the pipe says nothing: only `ended` tells how a worker died."""
        if source is worker.connection:
            with suppress(EOFError, OSError):  # OSError: it was killed in the middle of a message
                self.pending.append((worker, worker.connection.recv()))
                return
            if not worker.is_gone(CLOSING_S):
                worker.kill()  # it closed its end: nothing can be said to it any more
        worker.has_ended(None)
        if worker.status is not None:
            self._bury(worker)
        while worker.pid in self.workers:
            self._listen()  # its server is dead, too

    def _bury(self, worker: Worker) -> None:
        """Take its last words from the pipe, then its death."""
        del self.workers[worker.pid]
        with suppress(EOFError, OSError):
            while worker.connection.poll():
                self.pending.append((worker, worker.connection.recv()))
        killed = worker.status == -signal.SIGKILL
        self.pending.append((worker, Died(worker.how + (_HINT if killed else ""))))
        worker.close()
