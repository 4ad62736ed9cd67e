"""Runs a stage over a shard: worker processes, their deaths, their time limits, the report.

The supervisor hands takes to workers, longest first. A worker that dies or hangs takes one
attempt of one clip along; the rest of its take goes to a fresh worker. A clip that does it
twice is quarantined.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from ego_assets.stages import plan as planning
from ego_assets.stages import without_gpu
from ego_assets.stages.errors import OUT_OF_MEMORY, kernel_kills, memory_figures
from ego_assets.stages.plan import Group, StageSpec, Unit
from ego_assets.stages.worker import (
    Broken,
    Ended,
    GroupEnded,
    StageBrokenError,
    Started,
    TakenOver,
    WorkerRun,
    worker_main,
)
from ego_assets.stages.worker_log import WorkerLog
from resources.lake import Lake
from resources.ledger import LateAttemptError, Ledger, State
from resources.processes import process_name

UNIT_TIMEOUT_S = 300.0
UNIT_TIMEOUT_PER_VIDEO_S = 60.0
_PRELOAD = ["numpy", "cv2", "av", "pyarrow", "pyarrow.parquet", "ego_assets.stages.worker"]


@dataclass(frozen=True)
class Failure:
    """A unit that ended badly, or could not start."""

    unit_id: str
    state: str
    reason: str


@dataclass
class StageReport:
    """What a stage did to a shard. `rows` are those now in the lake."""

    stage: str
    shard: str
    units: int = 0
    done: int = 0
    skipped: int = 0
    retried: int = 0
    quarantined: int = 0
    blocked: int = 0
    waiting: int = 0
    worker_deaths: int = 0
    seconds: float = 0.0
    video_s: float = 0.0
    peak_rss_bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return self.quarantined + self.blocked

    @property
    def units_per_minute(self) -> float:
        return 60 * self.done / self.seconds if self.done else 0.0

    @property
    def video_s_per_s(self) -> float:
        return self.video_s / self.seconds if self.done else 0.0


@dataclass
class _Slot:
    """One worker process and what it is at: groups by their first unit, attempts by theirs."""

    process: BaseProcess
    connection: Connection
    stderr: WorkerLog
    device: str
    name: str = ""
    groups: dict[str, Group] = field(default_factory=dict)
    current: dict[str, tuple[Started, float]] = field(default_factory=dict)


def run_stage(
    spec: StageSpec, *, workers: int = 1, isolate: bool = True, real: StageSpec | None = None
) -> StageReport:
    """Run a stage over its shard until every unit is done, quarantined or blocked.

    isolate=False runs in this process (for debugging: a crash is then a crash).
    real: the stage for which `spec` stands in, since there is no GPU for it.
    Raises whatever planning raises; a unit's failure never does.
    """
    lake, ledger = Lake(spec.lake_root), Ledger(spec.ledger_url)
    groups = planning.plan(spec, lake, ledger)
    everything = [u for g in groups for u in g.units]
    for table in spec.tables:
        ledger.forget(table, spec.shard, [u.unit_id for u in everything])
        ledger.expect(table, spec.shard, [(u.unit_id, u.video_id) for u in everything])
    groups = _chosen(spec, groups)
    report = StageReport("+".join(spec.tables), spec.shard)
    report.units = sum(len(g.units) for g in groups)
    began = time.monotonic()
    dropped = {e.unit_id: e.stage for e in ledger.entries(shard=spec.shard, states=[State.DROPPED])}
    for unit in (u for g in groups for u in g.units):
        if unit.blocked and unit.unit_id in dropped:
            for table in spec.tables:
                ledger.drop_after(table, unit.unit_id, dropped[unit.unit_id])
        elif unit.blocked:
            report.blocked += 1
            report.failures.append(Failure(unit.unit_id, "blocked", unit.blocked))
            for table in spec.tables:
                ledger.block(table, unit.unit_id, unit.blocked)
    if real is not None:
        everyone = _chosen(spec, planning.plan(real, lake, ledger))
        to_make = without_gpu.groups_to_make(spec, groups, everyone, ledger)
        report.skipped += report.units - sum(len(g.units) for g in to_make)
    else:
        to_make = groups
    _run_groups(spec, ledger, report, to_make, workers if isolate else 0)
    report.seconds = time.monotonic() - began
    _add_known_quarantine(spec, ledger, report, groups)
    if real is not None:
        without_gpu.settle_failures(spec, to_make, ledger)
        waiting = [e for e in ledger.entries(shard=spec.shard) if e.waits_for_gpu]
        report.waiting = len({e.unit_id for e in waiting if e.stage in spec.tables})
    for table in spec.tables:
        report.rows[table] = lake.compact(table, spec.shard, [u.unit_id for u in everything])
    return report


def _run_groups(
    spec: StageSpec, ledger: Ledger, report: StageReport, groups: list[Group], workers: int
) -> None:
    """In so many worker processes; 0: in this one."""
    if workers:
        _Supervisor(spec, ledger, report).run(groups, min(workers, len(groups)))
        return
    seen = {u.unit_id: u for g in groups for u in g.units}
    run = WorkerRun(spec, process_name(), lambda message: _note(report, seen, message))
    for group in groups:
        run.run_group(group)


def _chosen(spec: StageSpec, groups: list[Group]) -> list[Group]:
    """The takes with a unit that the run is for."""
    wanted = set(spec.units)
    if not wanted:
        return groups
    return [g for g in groups if any({u.unit_id, u.video_id} & wanted for u in g.units)]


def _add_known_quarantine(
    spec: StageSpec, ledger: Ledger, report: StageReport, groups: Iterable[Group]
) -> None:
    """Units that were in quarantine before this run are still failures of the shard."""
    told = {f.unit_id for f in report.failures}
    units = {u.unit_id for g in groups for u in g.units}
    for entry in ledger.entries(shard=spec.shard, states=[State.QUARANTINED]):
        if entry.stage in spec.tables and entry.unit_id in units - told:
            told.add(entry.unit_id)
            report.quarantined += 1
            reason = (entry.error or "").split("\n", 1)[0]
            report.failures.append(Failure(entry.unit_id, "quarantined", reason))


def _note(report: StageReport, units: dict[str, Unit], message: Any) -> None:
    """Enter a worker's message into the report."""
    if not isinstance(message, Ended):
        return
    report.peak_rss_bytes = max(report.peak_rss_bytes, message.peak_rss_bytes)
    if message.state == "done":
        report.done += 1
        report.video_s += units[message.unit_id].video_s
        if message.notes:
            report.notes[message.unit_id] = message.notes
    elif message.state == "skipped":
        report.skipped += 1
    elif message.state == "failed":
        report.retried += 1
    else:
        report.quarantined += 1
        reason = message.error or "unknown"
        report.failures.append(Failure(message.unit_id, message.state, reason))


class _Supervisor:
    """Worker processes over a queue of groups."""

    def __init__(self, spec: StageSpec, ledger: Ledger, report: StageReport) -> None:
        self.spec = spec
        self.ledger = ledger
        self.report = report
        self.units: dict[str, Unit] = {}
        self.context = mp.get_context("forkserver")
        self.context.set_forkserver_preload(_PRELOAD)
        self.queue: deque[Group] = deque()
        self.slots: list[_Slot] = []
        self.workers = 1
        self.threads = 1
        self.alone: set[str] = set()
        self.kernel_kills = kernel_kills()

    def run(self, groups: list[Group], workers: int) -> None:
        self.queue.extend(groups)
        self.units = {u.unit_id: u for g in groups for u in g.units}
        self.workers = workers
        self.threads = max(1, (os.cpu_count() or 1) // max(workers, 1))
        try:
            while self.queue or any(s.groups for s in self.slots):
                self._fill()
                self._listen()
        except BaseException:
            self._stop(kill=True)
            raise
        self._stop(kill=False)

    def _start(self) -> _Slot:
        stderr = WorkerLog()
        taken = {s.device for s in self.slots}
        device = next((d for d in self.spec.devices if d not in taken), "")
        environment = dict(os.environ)
        if device:
            environment["CUDA_VISIBLE_DEVICES"] = device
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=worker_main,
            args=(theirs, self.spec, stderr, self.threads, environment),
            daemon=False,
        )
        process.start()
        theirs.close()
        return _Slot(process, ours, stderr, device)

    def _fill(self) -> None:
        for slot in list(self.slots):
            if not slot.groups and len(self.slots) > self.workers:
                self._dismiss(slot)
        # A group for each worker first, then a second for each.
        for busy in range(self.spec.lanes):
            for slot in self.slots:
                if self.queue and len(slot.groups) == busy:
                    self._hand(slot)
            while self.queue and len(self.slots) < self.workers:
                slot = self._start()
                self.slots.append(slot)
                self._hand(slot)

    def _dismiss(self, slot: _Slot) -> None:
        with suppress(OSError):  # of one that is dead already
            slot.connection.send(None)
        self._end(slot)

    def _end(self, slot: _Slot) -> None:
        """Wait for a worker that was asked to go, and make it go if it does not."""
        slot.process.join(10)
        if slot.process.is_alive():
            slot.process.kill()
            slot.process.join()
        self._forget(slot)

    def _forget(self, slot: _Slot) -> None:
        slot.connection.close()
        slot.stderr.close()
        self.slots.remove(slot)

    def _hand(self, slot: _Slot) -> None:
        first = self.queue[0].units[0].unit_id
        if slot.groups and (first in self.alone or self.alone & slot.groups.keys()):
            return
        slot.groups[first] = self.queue.popleft()
        with suppress(OSError):  # it died: `_listen` will see the end of the pipe
            slot.connection.send(slot.groups[first])

    def _listen(self) -> None:
        busy = {s.connection: s for s in self.slots if s.groups}
        for connection in wait(list(busy), timeout=1.0):
            slot = busy[connection]  # type: ignore[index]
            try:
                self._take(slot, slot.connection.recv())
            except (EOFError, OSError):  # OSError: it was killed in the middle of a message
                self._bury(slot, None)
        for slot in list(self.slots):
            hung = next((s for s, since in slot.current.values() if self._is_over(s, since)), None)
            if hung is not None:
                slot.process.kill()
                self._bury(slot, hung)

    def _is_over(self, started: Started, since: float) -> bool:
        return time.monotonic() - since > _limit_s(started) * self.spec.lanes

    def _take(self, slot: _Slot, message: Any) -> None:
        if isinstance(message, str):
            slot.name = message
        elif isinstance(message, Started):
            slot.current[message.unit.unit_id] = (message, time.monotonic())
        elif isinstance(message, TakenOver):
            slot.current.pop(message.unit_id, None)
        elif isinstance(message, Broken):
            raise StageBrokenError(message.reason)
        elif isinstance(message, GroupEnded):
            del slot.groups[message.group]
            self.alone.discard(message.group)
        else:
            _note(self.report, self.units, message)
            slot.current.pop(message.unit_id, None)

    def _bury(self, slot: _Slot, hung: Started | None) -> None:
        """A worker died, or hung: its clip loses an attempt, the rest of its take goes on.

        Of several clips at a time it is not known which one it was: none is charged, and each is
        tried again alone.
        """
        slot.process.join(10)
        self.report.worker_deaths += 1
        error_class, how = "WorkerDied", _cause(slot.process.exitcode)
        if hung is not None:
            how = f"hung for over {_limit_s(hung) * self.spec.lanes:.0f} s"
        elif slot.process.exitcode == -signal.SIGKILL and self._memory_ran_out():
            error_class = OUT_OF_MEMORY
            how += f" by the kernel, for want of memory ({memory_figures()})"
            # What is too much for so many at once may do for fewer.
            self.workers = max(1, self.workers // 2)
        tail = slot.stderr.tail()
        self._forget(slot)
        at_work = [started for started, _ in slot.current.values()]
        if not at_work and self.report.worker_deaths > 3 + len(self.units):
            raise RuntimeError(f"workers die before any work: {how}\n{tail}")
        for started in at_work:
            if len(at_work) == 1 or started is hung:
                self._charge(started, error_class, how, tail)
            else:
                self._interrupt(started)
        if len(at_work) > 1 and hung is None:
            self.alone.update(slot.groups)
        self.queue.extendleft(slot.groups.values())

    def _interrupt(self, started: Started) -> None:
        for table, attempt in started.attempts.items():
            self.ledger.interrupt(table, started.unit.unit_id, attempt)

    def _memory_ran_out(self) -> bool:
        """Whether the kernel has killed for want of memory since we last asked."""
        before, self.kernel_kills = self.kernel_kills, kernel_kills()
        return self.kernel_kills > before

    def _charge(self, started: Started, error_class: str, how: str, tail: str) -> None:
        unit = started.unit.unit_id
        quarantine = max(a.number for a in started.attempts.values()) >= self.spec.max_deaths
        error = f"the worker {how} on this clip\n\nlast lines of its log:\n{tail}"
        for table, attempt in started.attempts.items():
            with suppress(LateAttemptError):
                self.ledger.fail(
                    table,
                    unit,
                    attempt,
                    error_class=error_class,
                    error=error,
                    quarantine=quarantine,
                )
        state = "quarantined" if quarantine else "failed"
        _note(self.report, self.units, Ended(unit, state, error=f"{error_class}: {how}"))

    def _stop(self, *, kill: bool) -> None:
        for slot in self.slots:
            if kill:
                slot.process.kill()
            else:
                with suppress(OSError):
                    slot.connection.send(None)
        for slot in list(self.slots):
            self._end(slot)
            if kill:
                for started, _ in slot.current.values():
                    self._interrupt(started)


def _limit_s(started: Started) -> float:
    return UNIT_TIMEOUT_S + UNIT_TIMEOUT_PER_VIDEO_S * started.unit.video_s


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"was killed by {signal.Signals(-exitcode).name}"
    return f"exited with status {exitcode}"
