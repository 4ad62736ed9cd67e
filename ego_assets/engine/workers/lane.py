"""One lane of a worker: takes its takes through the model clip by clip, and has what comes of them
published behind it.

A clip's state goes to the next one before its rows are in the lake: the next clip is computed as
if all went well. If it does not, what was made since counts for nothing, and the take goes on from
the clip that failed: so order, state and fingerprints are those of a lane that publishes each clip
before the next. Here: what follows from what. Not here: processes and pipes (`worker`), the queue
(`results`).
"""

from __future__ import annotations

import copy
import os
import resource
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ego_assets.engine.claims import Claim, claim
from ego_assets.engine.errors import OUT_OF_MEMORY, ErrorKind, classify, memory_figures
from ego_assets.engine.outage import Outage, StageBrokenError, back_off_s
from ego_assets.engine.plan import Group, StageSpec, WorkItem, chain
from ego_assets.engine.publish import OutdoneError, publish
from ego_assets.engine.todo import Todo
from ego_assets.engine.workers.messages import (
    Broken,
    Computed,
    Dropped,
    Ended,
    GroupComputed,
    GroupEnded,
    Postponed,
    Publishing,
    Started,
    TakenOver,
)
from ego_assets.engine.workers.pulse import Pulse
from ego_assets.engine.workers.results import (
    Place,
    Result,
    ResultQueue,
    Room,
    Take,
    size_of,
)
from ego_assets.engine.workers.shared_task import SharedTask
from ego_assets.intake.absence import Absence, AbsentError
from ego_assets.media.progress import told_to
from ego_assets.operator import BadInputError, Carried
from ego_assets.upkeep.recovery.agreement import agree_on_item
from resources.lake import Lake
from resources.ledger import LateAttemptError, Ledger

_NOT_AGAIN = {ErrorKind.PERMANENT, ErrorKind.TRANSIENT, ErrorKind.DEVICE_MEMORY}
BUSY_WAIT_S = 0.5


class Lane:
    """One lane of a worker: its place in a take, the lake, the ledger; the task is shared.

    room: for results that are published behind the model; without it each is published at once,
    by whoever computes. again: takes a take that must go on after the lane has left it.
    """

    def __init__(
        self,
        spec: StageSpec,
        name: str,
        tell: Callable[[Any], None],
        task: SharedTask | None = None,
        room: Room | None = None,
        again: Callable[[Take], None] | None = None,
    ) -> None:
        self.spec = spec
        self.name = name
        self.tell = tell
        self.again = again
        self.lake = Lake(spec.lake_root)
        self.ledger = Ledger(spec.ledger_url)
        self.todo = Todo(spec, self.ledger)
        self.task = task or SharedTask(spec)
        self.absence = Absence(spec, self.lake, self.ledger)
        self.outage = Outage()
        self.results: ResultQueue | None = None
        if room is not None:
            self.results = ResultQueue(room, self.publish, self.drop, self.left)
            threading.Thread(target=self._publish_all, name="publisher", daemon=True).start()

    # -- takes -----------------------------------------------------------------------------------

    def run_group(self, group: Group) -> None:
        """Run the items of a take in order. Raises StageBrokenError."""
        self.run_take(Take(group))

    def run_take(self, take: Take) -> None:
        """Run a take from its place on; what still waits then is published behind the lane."""
        while True:
            if take.wait_s:
                time.sleep(take.wait_s)
            take.is_broken, take.is_left, take.wait_s = False, False, 0.0
            take.is_postponed = False
            self._walk(take)
            if take.is_postponed and self._settle(take):
                self.tell(Postponed(take.group.items[0].item_id))
                return None
            if self.results is None:
                if not take.is_broken:
                    return self.left(take)
            else:
                if not take.is_broken:
                    self.tell(GroupComputed(take.group.items[0].item_id))
                if self.results.leave(take):
                    return None

    def left(self, take: Take) -> None:
        """All of a take is published, or it must go on from a clip that could not be."""
        if take.is_broken:
            assert self.again is not None, "a queue has somebody who takes what it gives back"
            self.again(take)
        else:
            self.tell(GroupEnded(take.group.items[0].item_id))

    def _walk(self, take: Take) -> None:
        """Go through the items, carrying state over; done ones are skipped."""
        place, carried = take.place, None
        end = len(take.group.items)
        while place.index < end and not (take.is_broken or take.is_postponed):
            place, carried = self._step(take, place, carried)

    def _step(
        self, take: Take, place: Place, carried: Carried | None
    ) -> tuple[Place, Carried | None]:
        """One item. Where it goes on, and with what; the same place if the take is broken."""
        item = take.group.items[place.index]
        fingerprint = chain(item.base_fingerprint, place.fingerprint)
        tables = self.todo.pending_tables(item, fingerprint)
        if item.blocked or self.todo.is_quarantined(item, fingerprint):
            return place.afresh(), None
        if not tables:
            if not self._settle(take):
                return place, None
            self.tell(Ended(item.item_id, "skipped"))
            if not self.spec.redo_stale:
                fingerprint = self.todo.done_under(item)
            return place.after(item, fingerprint), None
        if (absent := self.absence.look(item)) is not None:
            return self._without_file(take, place, absent), None
        return self.run_item(take, place, fingerprint, tables, carried)

    def _without_file(self, take: Take, place: Place, absent: AbsentError) -> Place:
        """What follows if the raw file of an item is not there: where the take goes on."""
        item = take.group.items[place.index]
        why = self.absence.judge(item, absent)
        if not why:
            take.is_postponed = True
            return place
        if self._settle(take):
            self.tell(Ended(item.item_id, "gone", error=why))
        return place.afresh()

    def run_item(
        self,
        take: Take,
        place: Place,
        fingerprint: str,
        tables: dict[str, int],
        carried: Carried | None,
    ) -> tuple[Place, Carried | None]:
        """Try an item until it is computed or quarantined: as of `_step`.

        It may be another run that does it: then this one waits for how that ends.
        """
        item = take.group.items[place.index]
        while tables:
            if take.is_broken:
                return place, None
            if self.todo.is_quarantined(item, fingerprint):
                return place.afresh(), None
            try:
                held = claim(self.ledger, self.spec, self.name, item.item_id, fingerprint, tables)
            except KeyError:  # the ledger is another one than when the stage was planned
                self._agree(item)
                held = None
            if held is None:
                time.sleep(BUSY_WAIT_S)
            else:
                ended = self.attempt(take, place, fingerprint, held, carried)
                if ended is not None:
                    return ended
            tables = self.todo.pending_tables(item, fingerprint)
        if not self._settle(take):
            return place, None
        self.tell(Ended(item.item_id, "skipped"))
        return place.after(item, fingerprint), None

    def _settle(self, take: Take) -> bool:
        """Nothing is said of an item before those before it are published. False: one was not."""
        return self.results.settle(take) if self.results is not None else not take.is_broken

    # -- one attempt -----------------------------------------------------------------------------

    def attempt(
        self, take: Take, place: Place, fingerprint: str, held: Claim, carried: Carried | None
    ) -> tuple[Place, Carried | None] | None:
        """Try an item once: as of `_step`, None if it is to be tried again."""
        started = Started(take.group.items[place.index], held.attempts)
        self.tell(started)
        try:
            if held.lost and self.results is not None:
                # It may be what killed the run: those before it are not to be lost along with it.
                self.tell(Computed(started.item.item_id))
                self.results.wait()
                if take.is_broken:
                    self._drop(started.item, held)
                    return place, None
                self.tell(started)
            return self._attempt(take, place, fingerprint, held, carried)
        except BaseException:
            held.rest()
            raise

    def _attempt(
        self, take: Take, place: Place, fingerprint: str, held: Claim, carried: Carried | None
    ) -> tuple[Place, Carried | None] | None:
        item = take.group.items[place.index]
        try:
            if held.lost >= self.spec.max_lost:
                raise BadInputError(
                    f"{held.lost} attempts ended without a word: their whole run was killed each "
                    "time, as for want of memory"
                )
            if carried is None and place.before is not None:
                carried = self._read_carried(place.before, place.fingerprint)
            with self.task.use(self.lake, self.ledger) as task, self._progress(item):
                # A copy: the original may be being written, and the next try needs it as it is.
                output = task.process(item, copy.deepcopy(carried))
            result = Result(take, place, item, fingerprint, held, output)
            if self.results is not None:
                result.byte_size = size_of(output)
        except Exception as error:
            if self.results is not None:
                self.tell(Computed(item.item_id))  # those before it may take long
            if not self._settle(take):  # it went on from what is not there
                self._drop(item, held)
                return place, None
            if (absent := self.absence.in_error(item, error)) is not None:
                self._drop(item, held)
                return self._without_file(take, place, absent), None
            return self._after(error, place, item, held)
        if not self._hand_on(result):
            return place, None
        return place.after(item, fingerprint), output.carried

    @contextmanager
    def _progress(self, item: WorkItem) -> Iterator[None]:
        """Has the supervisor told that an item comes further, where that is what limits its
        time."""
        if self.spec.item != "file":
            yield
            return
        pulse = Pulse(item.item_id, self.tell)
        try:
            with told_to(pulse):
                yield
        finally:
            pulse.beat()

    def _read_carried(self, before: WorkItem, fingerprint: str | None) -> Carried | None:
        """What an item that was done under the fingerprint has left for the next one."""
        return self.lake.read_carried(
            self.spec.operator, self.spec.shard, before.item_id, fingerprint
        )

    def _after(
        self, error: Exception, place: Place, item: WorkItem, held: Claim
    ) -> tuple[Place, Carried | None] | None:
        """What follows from an error of the model: as of `attempt`."""
        if self._is_outage(error, held):
            self._drop(item, held)
            time.sleep(self._outage_wait_s())
            return None
        wait_s = self.failed(item, held, error)
        if wait_s is None:
            return place.afresh(), None
        time.sleep(wait_s)
        return None

    def _hand_on(self, result: Result) -> bool:
        """To be published. False: it is not, or what it was made from is not."""
        if self.results is None:
            self.publish(result)
            return not result.take.is_broken
        result.since = time.monotonic()
        self.tell(Computed(result.item.item_id))
        return self.results.put(result)

    # -- behind the model ------------------------------------------------------------------------

    def _publish_all(self) -> None:
        assert self.results is not None
        try:
            self.results.run()
        except StageBrokenError as error:
            self.tell(Broken(str(error)))
        except BaseException:  # as it would be in the main thread: the process ends
            traceback.print_exc()
            os._exit(1)

    def publish(self, result: Result) -> None:
        """Publish a result, or break its take. Raises StageBrokenError.

        While the lake is away it is tried again: nothing is computed anew.
        """
        idle_s = time.monotonic() - result.since if result.since else 0.0
        self.tell(Publishing(result.item.item_id))
        while not self._publish(result, idle_s):
            time.sleep(self._outage_wait_s())
            self.tell(Publishing(result.item.item_id))

    def _publish(self, result: Result, idle_s: float) -> bool:
        """One try: as of `publish`. False: the lake is away."""
        item, held, output = result.item, result.claim, result.output
        try:
            published = publish(self.lake, self.spec, item, result.fingerprint, held, output)
            digests = {table: one.sha256 for table, one in published.items()}
            held.rest()
            held.finish(digests, self.spec.provisional, idle_s)
        except (LateAttemptError, OutdoneError) as error:
            # What we published has an older token, and counts no more; or it counts, and the
            # ledger does not know of us. It is looked at again, and only made again if need be.
            held.give_way()
            self._agree(item)
            why = str(error) if isinstance(error, OutdoneError) else ""
            self.tell(TakenOver(item.item_id, why))
            result.take.goes_back_to(result.place)
            return True
        except Exception as error:
            if self._is_outage(error, held):
                return False
            wait_s = self.failed(item, held, error)
            if wait_s is None:
                result.take.goes_back_to(result.place.afresh())
            else:
                result.take.goes_back_to(result.place, wait_s)
            return True
        self.outage.is_over()
        self.tell(
            Ended(
                item.item_id,
                "done",
                {t: len(output.tables[t]) for t in held.attempts},
                notes=output.notes,
                peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            )
        )
        return True

    def _agree(self, item: WorkItem) -> None:
        """Let the ledger know what the lake holds of an item, and of the attempts at it."""
        try:
            agree_on_item(self.lake, self.ledger, self.spec, item)
        except Exception as error:
            # One that is away is waited for by whoever tries the item next, and asks again.
            if classify(error) is not ErrorKind.TRANSIENT:
                raise

    def _is_outage(self, error: Exception, held: Claim) -> bool:
        """Whether to wait for what is away. Raises StageBrokenError after too long: the claim is
        given back."""
        try:
            return classify(error) is ErrorKind.TRANSIENT and self.outage.goes_on(error)
        except StageBrokenError:
            held.give_back()
            raise

    def _outage_wait_s(self) -> float:
        return back_off_s(self.outage.tries, max(self.spec.backoff_s, 0.1))

    def drop(self, result: Result) -> None:
        """A result of a take that is broken."""
        self._drop(result.item, result.claim)

    def _drop(self, item: WorkItem, held: Claim) -> None:
        held.give_back()
        self.tell(Dropped(item.item_id))

    def failed(self, item: WorkItem, held: Claim, error: Exception) -> float | None:
        """Record a failed attempt. Seconds until the next one; None: quarantined.

        Raises StageBrokenError.
        """
        kind = classify(error)
        if kind in {ErrorKind.NO_WEIGHTS, ErrorKind.NO_ROOM}:
            held.give_back()
            words = str(error)
            if kind is ErrorKind.NO_ROOM:
                words += (
                    f": nothing can be published in {self.lake.location}; what is done is kept: "
                    "make room, or let it be written, and run again"
                )
            raise StageBrokenError(words) from error
        held.rest()
        quarantine = kind in _NOT_AGAIN or held.number >= self.spec.max_attempts
        text = "".join(traceback.format_exception(error)).strip()
        name, words = type(error).__name__, str(error)
        if kind in {ErrorKind.MEMORY, ErrorKind.DEVICE_MEMORY}:
            name, words = OUT_OF_MEMORY, f"{words or name}: {memory_figures()}"
        if kind is ErrorKind.MEMORY:
            # A model may hold on to what did not fit: the next try begins with a new one. One that
            # shrank its batches has freed all, and other lanes may be at work with it.
            self.task.forget()
        try:
            held.fail(name, f"{words}\n\n{text}", quarantine=quarantine)
        except LateAttemptError:
            self.tell(TakenOver(item.item_id))
            return 0.0
        state = "quarantined" if quarantine else "failed"
        self.tell(Ended(item.item_id, state, error=f"{name}: {words}"))
        return None if quarantine else back_off_s(held.number, self.spec.backoff_s)
