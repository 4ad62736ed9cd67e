"""A worker process: takes groups of units from a pipe, runs them in order, publishes each.

A worker may die at any moment (a decoder or a native solver may take it along): everything that
must outlive it is in the lake and the ledger before it says so on the pipe.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import queue
import random
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa
from sqlalchemy.exc import SQLAlchemyError

from ego_assets.protocols import BadInputError, Carried, ClipOutput
from ego_assets.schemas import TABLES, ContractError
from ego_assets.stages.errors import (
    OUT_OF_MEMORY,
    ErrorKind,
    PublishRefusedError,
    classify,
    memory_figures,
)
from ego_assets.stages.plan import Group, StageSpec, Unit, chain
from ego_assets.stages.tasks import Task, build_task
from ego_assets.stages.worker_log import WorkerLog
from resources.backends.device import describe_device
from resources.backends.memory import free
from resources.gpu_leases import LEASE_VARIABLE, hold
from resources.lake import Lake, Provenance, Published
from resources.lake.provenance import code_version, host, package_versions
from resources.ledger import Attempt, BusyError, LateAttemptError, Ledger, State
from resources.processes import process_name

_NOT_AGAIN = {ErrorKind.PERMANENT, ErrorKind.TRANSIENT, ErrorKind.DEVICE_MEMORY}
BEAT_S = 15.0
BUSY_WAIT_S = 0.5
OUTAGE_S = 600.0
"""How long a network or server may be away with nothing charged."""
LONGEST_WAIT_S = 30.0


class StageBrokenError(RuntimeError):
    """The machine, not a unit, keeps the stage from going on."""


class Outage:
    """How long nothing has come through. A unit that outlasts it goes to quarantine: it may be
    the only one that is concerned. The next one that does ends the stage."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.tries = 0
        self.outlasted = 0

    def goes_on(self, error: Exception) -> bool:
        """Whether to wait still. Raises StageBrokenError."""
        now = time.monotonic()
        if self.since is None:
            self.since, self.tries = now, 0
        self.tries += 1
        if now - self.since < OUTAGE_S:
            return True
        self.outlasted += 1
        if self.outlasted > 1:
            raise StageBrokenError(
                f"{type(error).__name__}: {error}: for {self.outlasted * OUTAGE_S:.0f} s; what is "
                "done is kept, run again when it is back"
            ) from error
        self.since = None
        return False


@dataclass(frozen=True)
class Started:
    """A unit's attempt begins: {table: claim}."""

    unit: Unit
    attempts: dict[str, Attempt]


@dataclass(frozen=True)
class TakenOver:
    """Another run has the unit by now; this one waits for how that ends, however long."""

    unit_id: str


@dataclass(frozen=True)
class Ended:
    """A unit ended as done, skipped, failed or quarantined."""

    unit_id: str
    state: str
    rows: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    peak_rss_bytes: int = 0


@dataclass(frozen=True)
class Broken:
    """Nothing can be done here at all: the disk is full, or may not be written."""

    reason: str


@dataclass(frozen=True)
class GroupEnded:
    """The lane that had the group (named by its first unit) is free again."""

    group: str


class SharedTask:
    """The task of all lanes of a worker, with its model: built once, when first asked for."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self._changed = threading.Condition()
        self._task: Task | None = None
        self._users = 0
        self._is_void = False

    @contextmanager
    def use(self, lake: Lake, ledger: Ledger) -> Iterator[Task]:
        """The task, for as long as it is held."""
        with self._changed:
            # There is room for one model only: the one to be forgotten goes before another comes.
            self._changed.wait_for(lambda: not self._is_void)
            if self._task is None:
                self._task = build_task(self.spec, lake, ledger)
            task = self._task
            self._users += 1
        try:
            yield task
        finally:
            del task
            with self._changed:
                self._users -= 1
                self._settle()

    def forget(self) -> None:
        """The next one who asks gets a new one, once nobody has the old one any more."""
        with self._changed:
            self._is_void = True
            self._settle()

    def _settle(self) -> None:
        if self._is_void and not self._users:
            self._task, self._is_void = None, False
            free()
            self._changed.notify_all()


class WorkerRun:
    """One lane of a worker: its place in a take, the lake, the ledger; the task is shared."""

    def __init__(
        self,
        spec: StageSpec,
        name: str,
        tell: Callable[[Any], None],
        task: SharedTask | None = None,
    ) -> None:
        self.spec = spec
        self.name = name
        self.tell = tell
        self.lake = Lake(spec.lake_root)
        self.ledger = Ledger(spec.ledger_url)
        self.task = task or SharedTask(spec)
        self.outage = Outage()

    def run_group(self, group: Group) -> None:
        """Run the units of a take in order, carrying state over; done ones are skipped."""
        previous: str | None = None
        previous_unit: Unit | None = None
        carried: Carried | None = None
        for unit in group.units:
            fingerprint = chain(unit.base_fingerprint, previous)
            pending = self.pending_tables(unit, fingerprint)
            if unit.blocked or self.is_quarantined(unit, fingerprint):
                previous, carried, previous_unit = None, None, None
                continue
            if not pending:
                self.tell(Ended(unit.unit_id, "skipped"))
                if not self.spec.redo_stale:
                    fingerprint = self.done_under(unit)
            else:
                if carried is None and previous_unit is not None:
                    carried = self.lake.read_carried(
                        self.spec.carried_stage, self.spec.shard, previous_unit.unit_id, previous
                    )
                if not self.run_unit(unit, fingerprint, pending, carried):
                    previous, carried, previous_unit = None, None, None
                    continue
            carried = self.last_carried if pending else None
            previous, previous_unit = fingerprint, unit

    def pending_tables(self, unit: Unit, fingerprint: str) -> list[str]:
        """Tables whose rows are missing or stale; by force, those that this run has not made."""
        entries = {e.stage: e for e in self.ledger.entries(unit_id=unit.unit_id)}

        def is_done(table: str) -> bool:
            entry = entries.get(table)
            if entry is None:
                return False
            kept = entry.waits_for_gpu and not entry.fingerprint
            if self.spec.provisional and (kept or entry.state is State.DONE):
                return True  # better than what we could make
            if self.spec.force and entry.run_id != self.spec.run_id:
                return False
            if entry.waits_for_gpu:
                # Made in place of another backend; it may be the chosen one by now.
                return entry.fingerprint == fingerprint and (
                    bool(self.spec.provisional)
                    or self.ledger.accept(table, unit.unit_id, fingerprint)
                )
            if entry.state is not State.DONE:
                return False
            return entry.fingerprint == fingerprint or not self.spec.redo_stale

        return [t for t in self.spec.tables if not is_done(t)]

    def done_under(self, unit: Unit) -> str:
        """The fingerprint that a unit is done under, stale or not: what its state was kept for."""
        (entry,) = self.ledger.entries(stage=self.spec.tables[0], unit_id=unit.unit_id)
        return entry.fingerprint

    def is_quarantined(self, unit: Unit, fingerprint: str) -> bool:
        """Whether it must not be tried; force tries what another run put there."""
        return any(
            e.state is State.DROPPED
            or (
                e.state is State.QUARANTINED
                and (e.fingerprint == fingerprint or not self.spec.redo_stale)
                and (not self.spec.force or e.run_id == self.spec.run_id)
            )
            for e in self.ledger.entries(unit_id=unit.unit_id)
            if e.stage in self.spec.tables
        )

    def run_unit(
        self, unit: Unit, fingerprint: str, tables: list[str], carried: Carried | None
    ) -> bool:
        """Try a unit until it is done or quarantined. Tells whether it is done.

        It may be another run that does it: then this one waits for how that ends.
        """
        while tables:
            if self.is_quarantined(unit, fingerprint):
                return False
            attempts = self.claim(unit, fingerprint, tables)
            if not attempts:
                time.sleep(BUSY_WAIT_S)
            else:
                ended = self.attempt(unit, fingerprint, attempts, carried)
                if ended is not None:
                    return ended
            tables = self.pending_tables(unit, fingerprint)
        self.tell(Ended(unit.unit_id, "skipped"))
        self.last_carried = None
        return True

    def attempt(
        self, unit: Unit, fingerprint: str, attempts: dict[str, Attempt], carried: Carried | None
    ) -> bool | None:
        """Try a unit once. Tells whether it is done (True) or quarantined (False), if either."""
        self.tell(Started(unit, attempts))
        began = time.monotonic()
        try:
            with self.heartbeat(unit, attempts):
                lost = max(a.lost for a in attempts.values())
                if lost >= self.spec.max_lost:
                    raise BadInputError(
                        f"{lost} attempts ended without a word: their whole run was killed each "
                        "time, as for want of memory"
                    )
                with self.task.use(self.lake, self.ledger) as task:
                    output = task.process(unit, carried)
                published = self.publish(unit, fingerprint, attempts, output)
            for table, attempt in attempts.items():
                self.ledger.finish(
                    table,
                    unit.unit_id,
                    attempt,
                    published[table].sha256,
                    waits_because=self.spec.provisional,
                )
        except LateAttemptError:
            # What we published has an older token, and counts no more.
            self.tell(TakenOver(unit.unit_id))
            return None
        except Exception as error:
            return self.failed(unit, attempts, error)
        self.outage = Outage()
        self.last_carried = output.carried
        self.tell(
            Ended(
                unit.unit_id,
                "done",
                {t: len(output.tables[t]) for t in attempts},
                time.monotonic() - began,
                notes=output.notes,
                peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            )
        )
        return True

    def failed(self, unit: Unit, attempts: dict[str, Attempt], error: Exception) -> bool | None:
        """What follows from an error: as of `attempt`. Raises StageBrokenError."""
        kind = classify(error)
        if kind in {ErrorKind.NO_WEIGHTS, ErrorKind.NO_ROOM}:
            self.interrupt(unit, attempts)
            words = str(error)
            if kind is ErrorKind.NO_ROOM:
                words += (
                    f": nothing can be published in {self.lake.location}; what is done is kept: "
                    "make room, or let it be written, and run again"
                )
            raise StageBrokenError(words) from error
        if kind is ErrorKind.TRANSIENT and self.outage.goes_on(error):
            self.interrupt(unit, attempts)
            self.back_off(self.outage.tries, max(self.spec.backoff_s, 0.1))
            return None
        try:
            if self.fail(unit, attempts, error, kind):
                return False
        except LateAttemptError:
            self.tell(TakenOver(unit.unit_id))
            return None
        number = max(a.number for a in attempts.values())
        self.back_off(number, self.spec.backoff_s)
        return None

    def interrupt(self, unit: Unit, attempts: dict[str, Attempt]) -> None:
        """An attempt that failed by no fault of the unit is not counted."""
        with suppress(SQLAlchemyError):
            for table, attempt in attempts.items():
                self.ledger.interrupt(table, unit.unit_id, attempt)

    def back_off(self, tries: int, first_s: float) -> None:
        """Wait longer after each try; with jitter, so that not all come back at once."""
        time.sleep(min(first_s * 2 ** (tries - 1), LONGEST_WAIT_S) * random.uniform(0.8, 1.2))

    def claim(self, unit: Unit, fingerprint: str, tables: list[str]) -> dict[str, Attempt]:
        """All tables of a unit, or none if another worker has one."""
        claimed: dict[str, Attempt] = {}
        for table in sorted(tables):
            try:
                claimed[table] = self.ledger.start(
                    table,
                    unit.unit_id,
                    fingerprint=fingerprint,
                    worker=self.name,
                    run_id=self.spec.run_id,
                )
            except BusyError:
                for name, attempt in claimed.items():
                    self.ledger.interrupt(name, unit.unit_id, attempt)
                return {}
        return claimed

    @contextmanager
    def heartbeat(self, unit: Unit, attempts: dict[str, Attempt]) -> Iterator[None]:
        """Tell the ledger now and then that the attempt goes on, from a thread of its own."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_S):
                for table, attempt in attempts.items():
                    with suppress(SQLAlchemyError):  # a ledger that is away for a while
                        self.ledger.beat(table, unit.unit_id, attempt.token)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def fail(
        self, unit: Unit, attempts: dict[str, Attempt], error: Exception, kind: ErrorKind
    ) -> bool:
        """Record a failed attempt. Tells whether the unit is quarantined."""
        quarantine = kind in _NOT_AGAIN or (
            max(a.number for a in attempts.values()) >= self.spec.max_attempts
        )
        text = "".join(traceback.format_exception(error)).strip()
        name, words = type(error).__name__, str(error)
        if kind in {ErrorKind.MEMORY, ErrorKind.DEVICE_MEMORY}:
            name, words = OUT_OF_MEMORY, f"{words or name}: {memory_figures()}"
        if kind is ErrorKind.MEMORY:
            # A model may hold on to what did not fit: the next try begins with a new one. One that
            # shrank its batches has freed all, and other lanes may be at work with it.
            self.task.forget()
        for table, attempt in attempts.items():
            self.ledger.fail(
                table,
                unit.unit_id,
                attempt,
                error_class=name,
                error=f"{words}\n\n{text}",
                quarantine=quarantine,
            )
        state = "quarantined" if quarantine else "failed"
        self.tell(Ended(unit.unit_id, state, error=f"{name}: {words}"))
        return quarantine

    def publish(
        self, unit: Unit, fingerprint: str, attempts: dict[str, Attempt], output: ClipOutput
    ) -> dict[str, Published]:
        """Publish what a unit came to. Raises ContractError, PublishRefusedError."""
        try:
            return self._publish(unit, fingerprint, attempts, output)
        except ContractError:
            raise
        except Exception as error:
            if classify(error) is ErrorKind.PERMANENT:
                raise PublishRefusedError(f"{type(error).__name__}: {error}") from error
            raise

    def _publish(
        self, unit: Unit, fingerprint: str, attempts: dict[str, Attempt], output: ClipOutput
    ) -> dict[str, Published]:
        """Arrays, then what is carried, then the rows: a row never points at nothing."""
        spec = self.spec
        for name, arrays in output.arrays.items():
            if name not in attempts:
                continue
            token = attempts[name].token
            key = self.lake.publish_arrays(name, spec.shard, unit.unit_id, arrays, token)
            for row in output.tables[name]:
                row["points_uri"] = key
        batches: dict[str, pa.Table] = {t: TABLES[t].from_rows(output.tables[t]) for t in attempts}
        newest = max(a.token for a in attempts.values())
        self.lake.write_carried(
            spec.carried_stage, spec.shard, unit.unit_id, output.carried, newest, fingerprint
        )
        published = {}
        for table, batch in batches.items():
            provenance = Provenance(
                run_id=spec.run_id,
                attempt=attempts[table].number,
                stage=table,
                operator=f"{spec.operator or spec.task}:{spec.backend}".rstrip(":"),
                operator_version=spec.operator_version,
                weights_hash=spec.weights_hash,
                input_hash=unit.input_hash,
                fingerprint=fingerprint,
                settings=json.dumps(spec.settings, sort_keys=True, default=str),
                code_version=code_version(),
                created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                host=host(),
                device=os.environ.get("CUDA_VISIBLE_DEVICES") or "cpu",
                packages=package_versions(),
                accelerator=describe_device() or output.notes.get("accelerator", ""),
                token=attempts[table].token,
            )
            published[table] = self.lake.publish(table, spec.shard, unit.unit_id, batch, provenance)
        return published

    last_carried: Carried | None = None


def worker_main(
    connection: Connection,
    spec: StageSpec,
    stderr: WorkerLog,
    threads: int,
    environment: dict[str, str],
) -> None:
    """Entry point of a worker process.

    environment: the supervisor's; a worker would else have that of the fork server's start.
    """
    os.environ.clear()
    os.environ.update(environment)
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.enable(file=sys.stderr)
    if lease := environment.get(LEASE_VARIABLE):
        hold(lease)  # until we are dead: others may be so before us
    _limit_threads(threads)
    name, task, sending = process_name(), SharedTask(spec), threading.Lock()

    def tell(message: Any) -> None:
        with sending:
            connection.send(message)

    def run_lane(groups: Callable[[], Group | None]) -> None:
        run = WorkerRun(spec, name, tell, task)
        while (group := groups()) is not None:
            try:
                run.run_group(group)
            except StageBrokenError as error:
                tell(Broken(str(error)))
                return
            tell(GroupEnded(group.units[0].unit_id))

    def receive() -> Group | None:
        try:
            return connection.recv()
        except EOFError:
            return None

    tell(name)
    if spec.lanes == 1:
        run_lane(receive)
    else:
        _run_lanes(spec.lanes, run_lane, receive)


def _run_lanes(
    count: int,
    run_lane: Callable[[Callable[[], Group | None]], None],
    receive: Callable[[], Group | None],
) -> None:
    """Several takes at a time: while one decodes or publishes, another has the device."""
    waiting: queue.SimpleQueue[Group | None] = queue.SimpleQueue()

    def lane() -> None:
        try:
            run_lane(waiting.get)
        except BaseException:  # as it would be in a worker with one lane: the process ends
            traceback.print_exc()
            os._exit(1)

    threads = [threading.Thread(target=lane, name=f"lane{n}", daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    while (group := receive()) is not None:
        waiting.put(group)
    for _ in threads:
        waiting.put(None)
    for thread in threads:
        thread.join()


def _limit_threads(threads: int) -> None:
    import cv2

    cv2.setNumThreads(threads)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


def _die_with_parent() -> None:
    """PR_SET_PDEATHSIG: the kernel kills us when our parent dies, so orphans cannot be.

    Our parent is the fork server, which lives as long as anybody holds the pipe that it watches;
    by default its children do too, and would keep it, and themselves, alive without a supervisor.
    """
    alive = forkserver._forkserver._forkserver_alive_fd  # type: ignore[attr-defined]
    if alive is not None:
        os.close(alive)
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
