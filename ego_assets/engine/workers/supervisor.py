"""Worker processes over a queue of takes: their deaths, their time limits.

A worker that dies or hangs takes one attempt of one clip along; the rest of its take goes to a
fresh worker. A clip that does it twice is quarantined. Not here: what a worker does (`worker`),
what is to be done (`plan`).
"""

from __future__ import annotations

import os
import signal
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import Any

from ego_assets.engine.errors import OUT_OF_MEMORY, kernel_kills, memory_figures
from ego_assets.engine.outage import StageBrokenError
from ego_assets.engine.outcome import Tally
from ego_assets.engine.plan import Group, StageSpec
from ego_assets.engine.workers.messages import (
    Broken,
    Computed,
    Dropped,
    Ended,
    GroupComputed,
    GroupEnded,
    Postponed,
    Progress,
    Publishing,
    Started,
    TakenOver,
)
from ego_assets.engine.workers.postponed import Postponement
from ego_assets.engine.workers.worker import MAIN, NEEDS, THREADS_OF_LIBRARIES, Order
from resources.environment import VISIBLE_DEVICES
from resources.lake.s3.client import used_account
from resources.ledger import LateAttemptError, Ledger
from resources.processes import machine
from resources.processes.fork_server import Forked, fork_from_shared
from resources.processes.last_words import LastWords
from resources.processes.owned_folders import sweep
from resources.processes.silence import AwakeClock
from resources.processes.slots import take_cpu
from resources.processes.temp_folder import shorten_temp_folder

ITEM_TIMEOUT_S = 300.0
ITEM_TIMEOUT_PER_VIDEO_S = 60.0
ASLEEP_S = 10.0
"""A supervisor that did not look at its workers for longer was stopped, and so were they."""
MAX_TIMED_VIDEO_S = 3600.0
"""No item is given more time than one of that length: what a header claims may be absurd."""
LONGEST_READ_S = 86_400.0
"""A file that takes longer comes no further, whatever its worker says."""
ENDING_S = 10.0
"""How long a worker that was asked to go, or killed, may take to be gone."""


@dataclass
class Slot:
    """One worker process and what it is at: groups by their first item, attempts by theirs, with
    the time since which they are (None: they wait for their turn).

    computed: groups of which nothing but results that wait to be published is left. read: what was
    last heard of the items that read files, with the time of the first word.
    """

    process: Forked
    device: str
    name: str = ""
    groups: dict[str, Group] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    current: dict[str, tuple[Started, float | None]] = field(default_factory=dict)
    cpu: int | None = None
    read: dict[str, tuple[Progress, float]] = field(default_factory=dict)

    @property
    def busy(self) -> int:
        """Lanes that have something to compute."""
        return len(self.groups) - len(self.computed)


class Supervisor:
    """Worker processes over a queue of groups.

    shares_cpus: more than one worker only while the machine has a CPU that no other stage has.
    """

    def __init__(
        self, spec: StageSpec, ledger: Ledger, tally: Tally, *, shares_cpus: bool = False
    ) -> None:
        self.spec = spec
        self.ledger = ledger
        self.tally = tally
        self.report = tally.report
        shorten_temp_folder()  # sockets are there
        self.queue: deque[Group] = deque()
        self.slots: list[Slot] = []
        self.workers = 1
        self.threads = 1
        self.alone: set[str] = set()
        self.postponed = Postponement()
        self.kernel_kills = kernel_kills()
        self.clock = AwakeClock(ASLEEP_S)
        self.shares_cpus = shares_cpus

    def run(self, groups: list[Group], workers: int) -> None:
        sweep()  # what killed runs have left
        self.queue.extend(groups)
        self.workers = workers
        self.threads = max(1, machine.cpus() // max(workers, 1))
        try:
            while self.queue or self.postponed or any(s.groups for s in self.slots):
                self.queue.extend(self.postponed.due())
                self._fill()
                self.listen()
        except BaseException:
            self._stop(kill=True)
            raise
        self._stop(kill=False)

    def _start(self, cpu: int | None) -> Slot:
        taken = Counter(s.device for s in self.slots)
        device = min(self.spec.devices, key=lambda d: taken[d], default="")
        environment = dict.fromkeys(THREADS_OF_LIBRARIES, str(self.threads))
        if device:
            environment[VISIBLE_DEVICES] = device
        order = Order(self.spec, self.threads, used_account())
        try:
            process = fork_from_shared(MAIN, NEEDS, order, LastWords(), environment)
        except BaseException:
            if cpu is not None:
                os.close(cpu)
            raise
        return Slot(process, device, cpu=cpu)

    def _fill(self) -> None:
        for slot in list(self.slots):
            if not slot.groups and len(self.slots) > self.workers:
                self._dismiss(slot)
        # A group for each worker first, then a second for each.
        for busy in range(self.spec.lanes):
            for slot in self.slots:
                if self.queue and slot.busy == busy:
                    self._hand(slot)
            while self.queue and len(self.slots) < self.workers:
                cpu = take_cpu() if self.shares_cpus else None
                if self.shares_cpus and self.slots and cpu is None:
                    break
                slot = self._start(cpu)
                self.slots.append(slot)
                self._hand(slot)

    def _dismiss(self, slot: Slot) -> None:
        slot.process.say(None)
        self._end(slot)

    def _end(self, slot: Slot) -> None:
        """Wait for a worker that was asked to go, and make it go if it does not."""
        if not slot.process.is_gone(ENDING_S):
            slot.process.kill()
        self._forget(slot)

    def _forget(self, slot: Slot) -> None:
        slot.process.has_ended(ENDING_S)
        slot.process.close()
        if slot.cpu is not None:
            os.close(slot.cpu)
        self.slots.remove(slot)

    def _hand(self, slot: Slot) -> None:
        first = self.queue[0].items[0].item_id
        if slot.groups and (first in self.alone or self.alone & slot.groups.keys()):
            return
        slot.groups[first] = replace(self.queue.popleft(), alone=first in self.alone)
        slot.process.say(slot.groups[first])

    def listen(self) -> None:
        """Hear what workers say, for a second at most; bury the dead and the hung."""
        busy = {s.process.connection: s for s in self.slots if s.groups}
        for connection in wait(list(busy), timeout=self.postponed.wait_s(1.0)):
            slot = busy[connection]  # type: ignore[index]
            try:
                self.take(slot, slot.process.connection.recv())
            except (EOFError, OSError):  # OSError: it was killed in the middle of a message
                self._bury(slot, None)
        self.bury_hung()

    def bury_hung(self) -> None:
        """Kill the workers that have been at something for too long."""
        for slot in list(self.slots):
            if slot.process.words is not None:
                slot.process.words.trim()
            hung = next((s for s, t in slot.current.values() if self._is_over(slot, s, t)), None)
            if hung is not None:
                slot.process.kill()
                self._bury(slot, hung)

    def _is_over(self, slot: Slot, started: Started, since: float | None) -> bool:
        now = self.clock()
        _, began = slot.read.get(started.item.item_id, (None, now))
        return since is not None and (
            now - since > self._limit_s(started) or now - began > LONGEST_READ_S
        )

    def _limit_s(self, started: Started) -> float:
        """How long an item may be at something; one that reads a file, without coming further."""
        if self.spec.item == "file":
            return float(self.spec.settings.get("max_stall_s", ITEM_TIMEOUT_S))
        return limit_s(started) * self.spec.lanes

    def take(self, slot: Slot, message: Any) -> None:
        """What a worker says."""
        if isinstance(message, str):
            slot.name = message
        elif isinstance(message, Started):
            slot.current[message.item.item_id] = (message, self.clock())
            slot.read.pop(message.item.item_id, None)
        elif isinstance(message, Progress):
            self._note_progress(slot, message)
        elif isinstance(message, Computed | Publishing):
            started, _ = slot.current[message.item_id]
            since = self.clock() if isinstance(message, Publishing) else None
            slot.current[message.item_id] = (started, since)
        elif isinstance(message, TakenOver | Dropped):
            self.tally.note(message)
            slot.current.pop(message.item_id, None)
        elif isinstance(message, Broken):
            raise StageBrokenError(message.reason)
        elif isinstance(message, GroupComputed):
            slot.computed.add(message.group)
        elif isinstance(message, GroupEnded):
            del slot.groups[message.group]
            slot.computed.discard(message.group)
            self.alone.discard(message.group)
            self.postponed.is_over(message.group)
        elif isinstance(message, Postponed):
            self.postponed.add(slot.groups.pop(message.group))
            slot.computed.discard(message.group)
        else:
            self.tally.note(message)
            slot.current.pop(message.item_id, None)

    def _note_progress(self, slot: Slot, message: Progress) -> None:
        now = self.clock()
        started, since = slot.current.get(message.item_id, (None, None))
        if started is not None and since is not None:
            slot.current[message.item_id] = (started, now)
        _, began = slot.read.get(message.item_id, (None, now))
        slot.read[message.item_id] = (message, began)
        self.tally.note(message)

    def _bury(self, slot: Slot, hung: Started | None) -> None:
        """A worker died, or hung: its clip loses an attempt, the rest of its take goes on.

        Of several clips at a time it is not known which one it was: none is charged, and each is
        tried again alone.
        """
        if not (has_ended := slot.process.has_ended(ENDING_S)):
            slot.process.kill()
            slot.process.has_ended(ENDING_S)
        self._hear_out(slot)
        self.report.worker_deaths += 1
        error_class, how = "WorkerDied", slot.process.how
        if hung is not None:
            how = self._how_hung(slot, hung)
        elif not has_ended:
            how = f"stopped talking, did not end within {ENDING_S:g} s, and was killed"
        elif slot.process.status == -signal.SIGKILL and self._memory_ran_out():
            error_class = OUT_OF_MEMORY
            how += f" by the kernel, for want of memory ({memory_figures()})"
            # What is too much for so many at once may do for fewer.
            self.workers = max(1, self.workers // 2)
        tail = slot.process.last_words()
        self._forget(slot)
        sweep()
        at_work = [started for started, _ in slot.current.values()]
        if not at_work and self.report.worker_deaths > 3 + len(self.tally.items):
            raise RuntimeError(f"workers die before any work: {how}\n{tail}")
        for started in at_work:
            if started is hung or (hung is None and len(at_work) == 1):
                self._charge(started, error_class, how, tail)
            else:
                self._interrupt(started)
        if len(at_work) > 1 and hung is None:
            self.alone.update(slot.groups)
        self.queue.extendleft(slot.groups.values())

    def _how_hung(self, slot: Slot, hung: Started) -> str:
        if self.spec.item != "file":
            return f"hung for over {self._limit_s(hung):.0f} s"
        words = f"came no further for {self._limit_s(hung):g} s"
        last, _ = slot.read.get(hung.item.item_id, (None, 0.0))
        if last is not None and last.byte_count:
            words += f", after {last.byte_count / 1e6:,.1f} MB of the file"
        return words

    def _hear_out(self, slot: Slot) -> None:
        """What a dead worker said last: what it has begun is to be freed, what is done is done."""
        with suppress(EOFError, OSError):
            while slot.process.connection.poll():
                message = slot.process.connection.recv()
                if not isinstance(message, Broken):  # the next one will say so, too
                    self.take(slot, message)

    def _interrupt(self, started: Started) -> None:
        for table, attempt in started.attempts.items():
            self.ledger.interrupt(table, started.item.item_id, attempt)

    def _memory_ran_out(self) -> bool:
        """Whether the kernel has killed for want of memory since we last asked."""
        before, self.kernel_kills = self.kernel_kills, kernel_kills()
        return self.kernel_kills > before

    def _charge(self, started: Started, error_class: str, how: str, tail: str) -> None:
        item = started.item.item_id
        quarantine = max(a.number for a in started.attempts.values()) >= self.spec.max_deaths
        error = f"the worker {how} on this clip\n\nlast lines of its log:\n{tail}"
        for table, attempt in started.attempts.items():
            with suppress(LateAttemptError):
                self.ledger.fail(
                    table,
                    item,
                    attempt,
                    error_class=error_class,
                    error=error,
                    quarantine=quarantine,
                )
        state = "quarantined" if quarantine else "failed"
        self.tally.note(Ended(item, state, error=f"{error_class}: {how}"))

    def _stop(self, *, kill: bool) -> None:
        for slot in self.slots:
            if kill:
                slot.process.kill()
            else:
                slot.process.say(None)
        for slot in list(self.slots):
            if kill:
                slot.process.has_ended(ENDING_S)
                self._hear_out(slot)
            self._end(slot)
            if kill:
                for started, _ in slot.current.values():
                    self._interrupt(started)


def limit_s(started: Started) -> float:
    """How long a clip may take in the model, and how long its publishing."""
    return ITEM_TIMEOUT_S + ITEM_TIMEOUT_PER_VIDEO_S * min(started.item.video_s, MAX_TIMED_VIDEO_S)
