"""Results wait in a bounded queue and are published while the model is at the next clip.

Nothing here looks at a clock: a publisher waits for what the model does, and the other way round.
"""

from __future__ import annotations

import errno
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ego_assets.engine import claims, outage
from ego_assets.engine.outage import StageBrokenError
from ego_assets.engine.plan import Group, WorkItem, chain, plan
from ego_assets.engine.workers import lane as lane_module
from ego_assets.engine.workers.lane import Lane
from ego_assets.engine.workers.messages import Broken, Computed, Ended, GroupEnded, Publishing
from ego_assets.engine.workers.results import CLIPS_BEHIND, Result, Room, Take, size_of
from ego_assets.operator import Carried, ClipOutput
from resources.ledger import State, takeover
from resources.processes import process_name
from tests.engine.fake_backends import movement_row
from tests.engine.stage_bench import SHARD, Bench, make_bench

TABLE = "object_movements"
LONG = [f"long{'0' * 12}-{i:04d}" for i in range(4)]
SHORT = f"short{'0' * 11}-0000"
PATIENCE_S = 60.0
RESULT_BYTES = 100_000


class Model:
    """Computes at once; `path_length` counts the clips before it, as they handed it on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.changed = threading.Condition()
        self.before: Callable[[WorkItem], None] = lambda item: None
        self.bad: set[str] = set()

    def process(self, item: WorkItem, carried: Carried | None) -> ClipOutput:
        with self.changed:
            self.begun.append(item.item_id)
            self.changed.notify_all()
        self.before(item)
        carried = carried or {}
        count = carried.get("count", 0)
        row = movement_row(SimpleNamespace(clip=item.payload["clip"]), "track", float(count))  # type: ignore[arg-type]
        if item.item_id in self.bad:
            row["touch_share"] = 7.0  # outside of the contract
        if "ballast" in carried:
            carried["ballast"] += 1  # what is being written must not see it
        ballast = np.full(RESULT_BYTES, count, np.uint8)
        return ClipOutput({TABLE: [row]}, carried={"count": count + 1, "ballast": ballast})

    def has_begun(self, clip: str, times: int = 1) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.begun.count(clip) >= times, PATIENCE_S)

    @contextmanager
    def use(self, *_: Any) -> Iterator[Model]:
        yield self

    def forget(self) -> None:
        pass


class Worker:
    """A lane in a thread, with takes handed to it as a worker does it."""

    def __init__(self, bench: Bench, model: Model, room: Room) -> None:
        self.takes: queue.SimpleQueue[Take | None] = queue.SimpleQueue()
        self.said: list[Any] = []
        self.lane = Lane(bench.spec, process_name(), self.tell, model, room, self.takes.put)  # type: ignore[arg-type]
        self.left = 0
        self.error: BaseException | None = None

    def tell(self, message: Any) -> None:
        self.said.append(message)
        if isinstance(message, GroupEnded):
            self.left -= 1
            if not self.left:
                self.takes.put(None)

    def start(self, groups: list[Group]) -> None:
        self.left = len(groups)
        for group in groups:
            self.takes.put(Take(group))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while (take := self.takes.get()) is not None:
            self.lane.run_take(take)

    def hears(self, holds: Callable[[], bool]) -> None:
        """Wait for what follows from what is said."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, self.said[-5:]
            time.sleep(0.01)

    def join(self) -> None:
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive(), self.said[-5:]

    def ends(self) -> Counter[tuple[str, str]]:
        return Counter((m.item_id, m.state) for m in self.said if isinstance(m, Ended))


@pytest.fixture
def bench(tmp_path: Any) -> Bench:
    """A take of four clips and one of one clip."""
    made = make_bench(tmp_path, {"long": 4, "short": 1})
    made.spec = replace(made.spec, publish_behind=True)
    ids = [(c, c[:16]) for c in [*LONG, SHORT]]
    made.ledger.expect(TABLE, SHARD, ids)
    return made


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def before_publishing(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], None]]:
    """What happens before a clip is published: {clip: call}."""
    gates: dict[str, Callable[[], None]] = {}
    real = lane_module.publish

    def gated(lake: Any, spec: Any, item: WorkItem, *rest: Any) -> Any:
        if item.item_id in gates:
            gates[item.item_id]()
        return real(lake, spec, item, *rest)

    monkeypatch.setattr(lane_module, "publish", gated)
    return gates


Gates = dict[str, Callable[[], None]]


def groups_of(bench: Bench) -> list[Group]:
    return plan(bench.spec, bench.lake, bench.ledger)


def in_turn(bench: Bench, tmp_path: Any, bad: set[str]) -> list[dict[str, Any]]:
    """The rows, if each clip is published before the next one is computed."""
    (tmp_path / "calm").mkdir()
    calm = make_bench(tmp_path / "calm", {"long": 4, "short": 1})
    calm.ledger.expect(TABLE, SHARD, [(c, c[:16]) for c in [*LONG, SHORT]])
    model = Model()
    model.bad = bad
    lane = Lane(calm.spec, process_name(), lambda message: None, model)  # type: ignore[arg-type]
    for group in groups_of(calm):
        lane.run_group(group)
    return rows_of(calm)


def until(room: Room, holds: Callable[[], bool]) -> None:
    """Wait for it; the room's lock is the caller's."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        room.changed.wait(0.02)


def rows_of(bench: Bench) -> list[dict[str, Any]]:
    return bench.lake.read(TABLE, SHARD).sort_by("clip_id").to_pylist()


def test_a_clip_is_published_while_the_next_one_is_computed(
    bench: Bench, model: Model, before_publishing: Gates, tmp_path: Any
) -> None:
    """Of the same take, and of the next one: a lane that waited would wait for ever."""
    for clip, following in zip([*LONG], [*LONG[1:], SHORT], strict=True):
        before_publishing[clip] = lambda following=following: model.has_begun(following)  # type: ignore[misc]
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    worker.start(groups_of(bench))
    worker.join()
    assert worker.ends() == Counter((c, "done") for c in [*LONG, SHORT])
    assert rows_of(bench) == in_turn(bench, tmp_path, set())
    assert {e.attempts for e in bench.ledger.entries(stage=TABLE)} == {1}
    kept = bench.lake.read_carried("movement_estimator", SHARD, LONG[1])
    assert kept is not None
    assert set(kept["ballast"]) == {1}, "the next clip changed what was being written"


@pytest.mark.parametrize("results", [1, 2])
def test_a_publisher_that_blocks_stops_the_model_when_the_budget_is_used_up(
    bench: Bench, model: Model, before_publishing: Gates, results: int
) -> None:
    gate = threading.Event()
    before_publishing[LONG[0]] = lambda: gate.wait(PATIENCE_S) or None
    one = RESULT_BYTES + 20_000
    room = Room(results * one)
    held: list[int] = []
    worker = Worker(bench, model, room)
    model.before = lambda item: held.append(room.held)
    worker.start(groups_of(bench))
    with room.changed:
        until(room, lambda: room.is_waited_for == 1)
        # The lane waits, and nobody but the publisher can go on.
        assert model.begun == LONG[: results + 1], "what fits, and what the lane has in hand"
        assert room.held <= room.limit
    gate.set()
    worker.join()
    assert max(held) <= room.limit
    assert (len(rows_of(bench)), room.held) == (5, 0)


def test_a_crash_costs_so_many_clips_at_most_however_small_they_are(
    tmp_path: Any, model: Model, before_publishing: Gates
) -> None:
    clips = 12
    bench = make_bench(tmp_path, {"long": clips})
    bench.spec = replace(bench.spec, publish_behind=True)
    bench.ledger.expect(TABLE, SHARD, [(f"{LONG[0][:-4]}{i:04d}", None) for i in range(clips)])
    gate = threading.Event()
    before_publishing[LONG[0]] = lambda: gate.wait(PATIENCE_S) or None
    room = Room(10**9)
    worker = Worker(bench, model, room)
    worker.start(groups_of(bench))
    with room.changed:
        until(room, lambda: room.is_waited_for == 1)
        assert room.count == CLIPS_BEHIND
        assert len(model.begun) == CLIPS_BEHIND + 1
    gate.set()
    worker.join()
    assert len(rows_of(bench)) == clips


def test_what_was_made_after_a_clip_that_is_refused_counts_for_nothing(
    bench: Bench, model: Model, before_publishing: Gates, tmp_path: Any
) -> None:
    """Two clips wait behind it, and the lane is at another take: as if none had been ahead."""
    model.bad = {LONG[1]}
    before_publishing[LONG[1]] = lambda: model.has_begun(SHORT)
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    worker.start(groups_of(bench))
    worker.join()
    assert rows_of(bench) == in_turn(bench, tmp_path, {LONG[1]})
    assert [r["path_length"] for r in rows_of(bench)] == [0, 0, 1, 0]
    done = Counter((c, "done") for c in [LONG[0], LONG[2], LONG[3], SHORT])
    assert worker.ends() == done + Counter([(LONG[1], "quarantined")])
    entries = {e.item_id: e for e in bench.ledger.entries(stage=TABLE)}
    assert entries[LONG[1]].state is State.QUARANTINED
    assert "touch_share" in (entries[LONG[1]].error or "")
    assert {e.attempts for e in entries.values()} == {1}, "what was dropped is not charged"
    assert {e.lost for e in entries.values()} == {0}
    assert model.begun.count(LONG[2]) == 2


def test_a_verdict_waits_for_the_clips_before(
    bench: Bench, model: Model, before_publishing: Gates
) -> None:
    """A clip that fails on a state that never came to be is not to blame."""
    model.bad = {LONG[0]}
    before_publishing[LONG[0]] = lambda: model.has_begun(LONG[1])

    def fails_at_first(item: WorkItem) -> None:
        if item.item_id == LONG[1] and model.begun.count(LONG[1]) == 1:
            raise FileNotFoundError("as the state of the clip before says")

    model.before = fails_at_first
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    worker.start(groups_of(bench))
    worker.join()
    done = Counter((c, "done") for c in [*LONG[1:], SHORT])
    assert worker.ends() == done + Counter([(LONG[0], "quarantined")])


def test_a_lake_that_is_away_is_waited_for_with_the_result_in_hand(
    bench: Bench, model: Model, before_publishing: Gates
) -> None:
    tries = iter([ConnectionResetError("away"), ConnectionResetError("still away")])

    def away() -> None:
        for error in tries:
            raise error

    before_publishing[LONG[1]] = away
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    worker.start(groups_of(bench))
    worker.join()
    assert model.begun == [*LONG, SHORT], "nothing was computed twice"
    assert worker.ends() == Counter((c, "done") for c in [*LONG, SHORT])
    assert {e.attempts for e in bench.ledger.entries(stage=TABLE)} == {1}


def test_a_lake_that_stays_away_ends_the_stage_and_not_the_clips(
    bench: Bench, model: Model, before_publishing: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clip that outlasts it may be to blame; with the second one it is the lake."""
    monkeypatch.setattr(outage, "OUTAGE_S", 0.0)

    def away() -> None:
        raise ConnectionResetError("away")

    before_publishing.update(dict.fromkeys([*LONG, SHORT], away))
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    worker.start(groups_of(bench))
    worker.hears(lambda: any(isinstance(m, Broken) for m in worker.said) or not worker.left)
    (broken,) = (m for m in worker.said if isinstance(m, Broken))
    assert "run again when it is back" in broken.reason
    entries = bench.ledger.entries(stage=TABLE)
    assert [e.item_id for e in entries if e.state is State.QUARANTINED] == [LONG[0]]
    assert worker.ends() == Counter([(LONG[0], "quarantined")])


def test_a_stage_that_ends_in_turn_for_a_lake_that_stays_away_frees_its_claim(
    bench: Bench, model: Model, before_publishing: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "OUTAGE_S", 0.0)

    def away() -> None:
        raise ConnectionResetError("away")

    before_publishing.update(dict.fromkeys(LONG, away))
    lane = Lane(bench.spec, process_name(), lambda message: None, model)  # type: ignore[arg-type]
    with pytest.raises(StageBrokenError, match="run again when it is back"):
        lane.run_group(groups_of(bench)[0])
    states = {e.item_id: e.state for e in bench.ledger.entries(stage=TABLE)}
    assert states[LONG[0]] is State.QUARANTINED
    assert {states[clip] for clip in [*LONG[1:], SHORT]} == {State.PENDING}


def test_a_clip_is_not_to_blame_if_nobody_hears_of_it(
    bench: Bench, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was killed: a worker outlives it by a moment, in which its pipe is broken."""
    ended, never = threading.Event(), threading.Event()
    monkeypatch.setattr(lane_module.os, "_exit", lambda status: (ended.set(), never.wait()))
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    tell = worker.lane.tell

    def send(message: Any) -> None:
        if isinstance(message, Publishing):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        tell(message)

    worker.lane.tell = send
    worker.start(groups_of(bench))
    worker.hears(lambda: ended.is_set() or bool(worker.ends()))
    assert ended.is_set()
    assert {e.state for e in bench.ledger.entries(stage=TABLE)} <= {State.RUNNING, State.PENDING}


def test_a_publish_that_fails_is_tried_again_from_that_clip(
    bench: Bench, model: Model, before_publishing: Gates, tmp_path: Any
) -> None:
    tries = iter([RuntimeError("once")])

    def fails_once() -> None:
        for error in tries:
            model.has_begun(LONG[1])
            raise error

    before_publishing[LONG[0]] = fails_once
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    worker.start(groups_of(bench))
    worker.join()
    assert rows_of(bench) == in_turn(bench, tmp_path, set())
    assert worker.ends()[LONG[0], "failed"] == 1
    attempts = {e.item_id: e.attempts for e in bench.ledger.entries(stage=TABLE)}
    assert attempts == dict.fromkeys([*LONG, SHORT], 1) | {LONG[0]: 2}


def test_a_second_try_begins_with_what_the_first_began_with(bench: Bench, model: Model) -> None:
    """The first one failed when it had changed what the clips before it had left."""
    failed: list[str] = []
    process = model.process

    def fails_once(item: WorkItem, carried: Carried | None) -> ClipOutput:
        if item.item_id == LONG[2] and not failed:
            failed.append(item.item_id)
            assert carried is not None
            carried["count"] += 10
            raise RuntimeError("once")
        return process(item, carried)

    model.process = fails_once  # type: ignore[method-assign]
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    worker.start(groups_of(bench))
    worker.join()
    assert [r["path_length"] for r in rows_of(bench)] == [0, 1, 2, 3, 0]


def test_a_lake_that_is_away_when_a_take_goes_on_is_waited_for(
    bench: Bench, model: Model, before_publishing: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its clip before has left is read from there: that is part of the attempt."""
    tries = {"publish": iter([RuntimeError("once")]), "read": iter([ConnectionResetError("away")])}

    def fails(what: str) -> None:
        for error in tries[what]:
            raise error

    before_publishing[LONG[1]] = lambda: fails("publish")
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    read = worker.lane.lake.read_carried
    monkeypatch.setattr(
        worker.lane.lake, "read_carried", lambda *of: fails("read") or read(*of), raising=True
    )
    worker.start(groups_of(bench))
    worker.join()
    assert [r["path_length"] for r in rows_of(bench)] == [0, 1, 2, 3, 0]
    attempts = {e.item_id: e.attempts for e in bench.ledger.entries(stage=TABLE)}
    assert attempts == dict.fromkeys([*LONG, SHORT], 1) | {LONG[1]: 2}


def test_a_clip_that_failed_and_waits_for_those_before_it_is_not_timed(
    bench: Bench, model: Model, before_publishing: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may wait for a lake that is away, for longer than a clip may take."""
    waits = threading.Event()
    said: list[Any] = []

    def fails_once(item: WorkItem) -> None:
        if item.item_id == LONG[1] and model.begun.count(LONG[1]) == 1:
            raise RuntimeError("once")

    model.before = fails_once
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    assert worker.lane.results is not None
    settle = worker.lane.results.settle

    def settles(take: Take) -> bool:
        said.extend(() if waits.is_set() else worker.said)
        waits.set()
        return settle(take)

    monkeypatch.setattr(worker.lane.results, "settle", settles)
    before_publishing[LONG[0]] = lambda: waits.wait(PATIENCE_S) and None
    worker.start(groups_of(bench))
    worker.join()
    assert [type(m) for m in said if getattr(m, "item_id", "") == LONG[1]] == [Computed]
    assert worker.ends()[LONG[1], "failed"] == 1


@pytest.mark.parametrize("lost", [LONG[1], SHORT])
def test_a_clip_that_may_have_killed_its_run_takes_nobody_along(
    bench: Bench, model: Model, before_publishing: Gates, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Those before it would be lost as often as it is, and be given up with it."""
    monkeypatch.setattr(takeover, "WATCH_S", 0.0)
    fingerprint: str | None = None
    for item in next(g for g in groups_of(bench) if g.has_any({lost})).items:
        fingerprint = chain(item.base_fingerprint, fingerprint)
        if item.item_id == lost:
            break
    with sqlite3.connect(bench.ledger.url.removeprefix("sqlite:///")) as database:
        values = "state = 'running', worker = 'gone:1:1', heartbeat_at = 0, fingerprint = ?"
        database.execute(f"UPDATE work SET {values} WHERE unit_id = ?", (fingerprint, lost))
    goes_on = threading.Event()
    states: list[State] = []
    before = LONG[LONG.index(lost) - 1] if lost in LONG else LONG[-1]

    def look(item: WorkItem) -> None:
        if item.item_id == lost:
            goes_on.set()
            states.append(bench.ledger.entries(stage=TABLE, item_id=before)[0].state)

    model.before = look
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    assert worker.lane.results is not None
    wait = worker.lane.results.wait

    def waits() -> None:
        goes_on.set()
        wait()

    monkeypatch.setattr(worker.lane.results, "wait", waits)
    before_publishing[before] = lambda: goes_on.wait(PATIENCE_S) and None
    worker.start(groups_of(bench))
    worker.join()
    assert states == [State.DONE]
    assert [r["path_length"] for r in rows_of(bench)] == [0, 1, 2, 3, 0]


def test_the_claim_lives_until_its_clip_is_published(
    bench: Bench, model: Model, before_publishing: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    before = set(threading.enumerate())
    beats = threading.Event()
    waits = threading.Event()
    real = bench.ledger.__class__.beat

    def beat(ledger: Any, stage: str, item_id: str, token: int) -> bool:
        if item_id == LONG[1] and waits.is_set() and real(ledger, stage, item_id, token):
            beats.set()
        return True

    monkeypatch.setattr(bench.ledger.__class__, "beat", beat)

    def hold() -> None:
        model.has_begun(LONG[2])  # so the second clip is in the queue
        waits.set()
        assert beats.wait(PATIENCE_S)

    before_publishing[LONG[0]] = hold
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    worker.start(groups_of(bench))
    worker.join()
    assert beats.is_set()
    names = [t.name for t in set(threading.enumerate()) - before]
    assert "heartbeat" not in names, "they end with the claims"


def test_waiting_is_none_of_a_clips_seconds(
    bench: Bench, model: Model, before_publishing: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: dict[str, float] = {}
    real = claims.Claim.finish

    def finish(claim: Any, digests: Any, waits_because: str, idle_s: float) -> None:
        waited[claim.item_id] = idle_s
        real(claim, digests, waits_because, idle_s)

    monkeypatch.setattr(claims.Claim, "finish", finish)
    began: list[float] = []

    def hold() -> None:
        model.has_begun(LONG[2])  # the second clip waits from here on, at the latest
        began.append(time.monotonic())
        time.sleep(0.05)
        began.append(time.monotonic())

    before_publishing[LONG[0]] = hold
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    worker.start(groups_of(bench))
    worker.join()
    assert waited[LONG[1]] >= began[1] - began[0] > 0


def test_a_result_whose_claim_was_taken_over_is_fenced_off(
    bench: Bench, model: Model, before_publishing: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits, another run does the clip: what that one made stays, and is gone on from."""
    monkeypatch.setattr(takeover, "WATCH_S", 0.0)

    def another_does_it() -> None:
        del before_publishing[LONG[1]]
        with sqlite3.connect(bench.ledger.url.removeprefix("sqlite:///")) as database:
            database.execute("UPDATE work SET worker = 'other:1:1', heartbeat_at = 0")
        other = Lane(
            replace(bench.spec, run_id="other", items=(LONG[1],)),
            "other",
            lambda m: None,
            Model(),  # type: ignore[arg-type]
        )
        (take,) = (g for g in groups_of(bench) if g.items[0].item_id == LONG[0])
        other.run_group(Group(take.items[:2]))

    before_publishing[LONG[1]] = another_does_it
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    worker.start(groups_of(bench))
    worker.join()
    assert [r["path_length"] for r in rows_of(bench)] == [0, 1, 2, 3, 0]
    assert worker.ends()[LONG[1], "skipped"] == 1
    made = bench.lake.provenance(TABLE, SHARD, LONG[1])
    assert made is not None
    assert made.run_id == "other"
    assert bench.ledger.counts() == {TABLE: {State.DONE: 5}}


def test_a_full_disk_is_said_at_once_and_charges_nobody(
    bench: Bench, model: Model, before_publishing: Gates
) -> None:
    """The model hangs in the next clip: it need not come to an end for that."""
    over = threading.Event()

    def full() -> None:
        model.has_begun(LONG[1])
        raise OSError(errno.ENOSPC, "No space left on device")

    before_publishing[LONG[0]] = full
    model.before = lambda item: over.wait(PATIENCE_S) and None if item.item_id == LONG[1] else None
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    told = threading.Event()
    tell = worker.lane.tell

    def listen(message: Any) -> None:
        tell(message)
        if isinstance(message, Broken):
            told.set()

    worker.lane.tell = listen
    worker.start(groups_of(bench))
    assert told.wait(PATIENCE_S)
    (broken,) = (m for m in worker.said if isinstance(m, Broken))
    assert "make room" in broken.reason
    entry = bench.ledger.entries(stage=TABLE, item_id=LONG[0])[0]
    assert (entry.state, entry.attempts) == (State.PENDING, 0)
    over.set()


def test_alone_means_one_at_a_time(bench: Bench, model: Model, before_publishing: Gates) -> None:
    at_work: list[tuple[str, ...]] = []
    for number, clip in enumerate(LONG):
        before_publishing[clip] = lambda n=number: at_work.append(tuple(model.begun[n:]))  # type: ignore[misc]
    worker = Worker(bench, model, Room(10 * RESULT_BYTES))
    long = groups_of(bench)[0]
    worker.start([replace(long, alone=True)])
    worker.join()
    assert at_work == [(clip,) for clip in LONG]


def test_a_large_result_has_the_room_to_itself_and_is_not_overtaken_for_ever() -> None:
    room = Room(10)
    order: list[int] = []

    def result(size: int) -> Result:
        return Result(Take(Group(())), *([None] * 5), byte_size=size)  # type: ignore[arg-type]

    first = result(4)
    with room.changed:
        room.take(first)

    def enter(one: Result) -> None:
        with room.changed:
            room.take(one)
            order.append(one.byte_size)

    threads = []
    for count, size in enumerate([50, 1], 1):
        threads.append(threading.Thread(target=enter, args=(result(size),), daemon=True))
        threads[-1].start()
        with room.changed:
            until(room, lambda n=count: room.is_waited_for == n)  # type: ignore[misc]
    with room.changed:
        assert order == [], "the small one would fit, and lets the large one go first"
        room.give(first)
    threads[0].join(PATIENCE_S)
    with room.changed:
        assert order == [50]
        room.give(result(50))
    threads[1].join(PATIENCE_S)
    assert order == [50, 1]


def test_the_size_of_an_output_is_that_of_its_arrays_and_rows() -> None:
    array = np.zeros((100, 100))
    shared = b"x" * 1000
    rows = [{"rle": shared, "score": 0.5} for _ in range(10)]
    found = size_of(ClipOutput({"t": rows}, {"t": {"points": array}}, {"points": array}))
    assert 80_000 + 1000 < found < 80_000 + 1000 + 10 * 400, "what is in it twice counts once"
