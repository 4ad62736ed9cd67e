"""Ledger and lake as one state machine: whoever claims, publishes, dies or compacts, in any order.
The ledger may be lost, or an older copy of it brought back.

The model: of each item, the rows of the published attempt with the highest token are there, once.
An attempt whose rows do not count can tell. What is there is done, and need not be made again. Of
two attempts to which ledgers before and after a loss gave one token, since a clock was put back in
between, the first one is dead.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ego_assets.catalog import TABLES
from ego_assets.engine.plan import ShardInputs
from ego_assets.upkeep.recovery.agreement import agree
from resources.lake import Lake, Provenance
from resources.ledger import Attempt, BusyError, LateAttemptError, Ledger, State
from resources.ledger import attempts as attempts_module
from resources.ledger.takeover import HEARTBEAT_LIMIT_S, Takeover
from resources.processes.silence import Silence
from tests.upkeep.test_audit import SHARD, TABLE, rows_of

ITEMS = ["a" * 16, "b" * 16]
items = st.sampled_from(ITEMS)
workers = st.sampled_from(["host1:1:1", "host2:1:1"])


@dataclass
class Try:
    """An attempt that some worker holds, or believes it does."""

    item: str
    worker: str
    attempt: Attempt
    published: bool = False
    cost: float = field(default_factory=lambda: float(next(_costs)))
    """In its rows, which tells them from others."""


_costs = itertools.count()


class JumpingLedger(Ledger):
    """On a machine whose clock may be put forward or back at any time."""

    offset_s = 0.0
    watched_s = 0.0

    def _wall_ms(self) -> int:
        return int((time.time() + self.offset_s) * 1000)

    def now(self) -> sa.ColumnElement[float]:
        return sa.literal(time.time() + self.offset_s)


class PublishMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ego-machine-"))
        self.lake = Lake(self.folder)
        self.ledger = JumpingLedger(Ledger.beside(self.folder).url)
        self.ledger._takeover = Takeover(Silence(lambda: self.ledger.watched_s))
        self.ledger.expect(TABLE, SHARD, [(u, u) for u in ITEMS])
        self.tries: list[Try] = []
        self.holder: dict[str, Try | None] = dict.fromkeys(ITEMS)
        self.beats = dict.fromkeys(ITEMS, 0.0)
        self.state = dict.fromkeys(ITEMS, State.PENDING)
        self.tokens = dict.fromkeys(ITEMS, 0)
        self.copy: tuple[Any, ...] | None = None

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(item=items, worker=workers)
    def claim(self, item: str, worker: str) -> None:
        holder = self.holder[item]
        fresh = self.now() - self.beats[item] < HEARTBEAT_LIMIT_S
        taken = holder is not None and holder.worker != worker and fresh
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(attempts_module, "LOOK_S", 5.0)
                patch.setattr(attempts_module.time, "sleep", self.watch)
                attempt = self.ledger.start(TABLE, item, fingerprint="f", worker=worker, run_id="r")
        except BusyError:
            assert taken
            return
        assert not taken
        # Of what the last stage has found when it started, and of all that was claimed since.
        assert attempt.token > self.tokens[item]
        self.tries = [
            t
            for t in self.tries
            if t.published or (t.item, t.attempt.token) != (item, attempt.token)
        ]
        self.tries.append(Try(item, worker, attempt))
        self.holder[item], self.beats[item] = self.tries[-1], self.now()
        self.state[item], self.tokens[item] = State.RUNNING, attempt.token

    def watch(self, seconds: float) -> None:
        self.ledger.watched_s += seconds

    @rule(item=items, worker=workers)
    def claim_what_beats(self, item: str, worker: str) -> None:
        """No clock frees it."""
        holder = self.holder[item]
        if holder is None or holder.worker == worker:
            return

        def live_on(seconds: float) -> None:
            self.watch(seconds)
            assert self.ledger.beat(TABLE, item, holder.attempt.token)
            self.beats[item] = self.now()

        with pytest.MonkeyPatch.context() as patch, pytest.raises(BusyError):
            patch.setattr(attempts_module.time, "sleep", live_on)
            self.ledger.start(TABLE, item, fingerprint="f", worker=worker, run_id="r")

    @rule()
    def heartbeats_age(self) -> None:
        with sa.create_engine(self.ledger.url).begin() as connection:
            connection.execute(sa.text("UPDATE work SET heartbeat_at = 1"))
        self.beats = dict.fromkeys(ITEMS, 1.0)

    @rule(seconds=st.sampled_from([-86_400.0, -300.0, -60.0, 60.0, 300.0, 86_400.0]))
    def clock_jumps(self, seconds: float) -> None:
        self.ledger.offset_s += seconds

    @precondition(lambda self: self.tries)
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        tried = data.draw(st.sampled_from(self.tries))
        is_holder = self.holder[tried.item] is tried
        assert self.ledger.beat(TABLE, tried.item, tried.attempt.token) is is_holder
        if is_holder:
            self.beats[tried.item] = self.now()

    @precondition(lambda self: any(not t.published for t in self.tries))
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        """Also by one that is late, and does not know it."""
        tried = data.draw(st.sampled_from([t for t in self.tries if not t.published]))
        token = tried.attempt.token
        names: dict[str, Any] = dict.fromkeys(Provenance.__dataclass_fields__, "x")
        origin = Provenance(**names | {"attempt": 1, "fingerprint": "f", "token": token})
        rows = [r | {"estimated_cost": tried.cost} for r in rows_of(tried.item)]
        is_outdone = token < self.newest(tried.item)
        self.lake.publish(TABLE, SHARD, tried.item, TABLES[TABLE].from_rows(rows), origin)
        tried.published = True
        assert self.lake.is_outdone(TABLE, SHARD, tried.item, token) is is_outdone

    @precondition(lambda self: any(t.published for t in self.tries))
    @rule(data=st.data(), good=st.booleans())
    def end(self, data: st.DataObject, good: bool) -> None:
        tried = data.draw(st.sampled_from([t for t in self.tries if t.published]))
        is_holder = self.holder[tried.item] is tried
        try:
            if good:
                self.ledger.finish(TABLE, tried.item, tried.attempt)
            else:
                self.ledger.fail(
                    TABLE, tried.item, tried.attempt, error_class="E", error="", quarantine=True
                )
        except LateAttemptError:
            assert not is_holder
            return
        assert is_holder
        self.holder[tried.item] = None
        self.state[tried.item] = State.DONE if good else State.QUARANTINED

    @rule()
    def release(self) -> None:
        self.ledger.release()
        for item, state in self.state.items():
            if state is State.QUARANTINED:
                self.state[item] = State.PENDING

    @rule()
    def compact(self) -> None:
        self.lake.compact(TABLE, SHARD, ITEMS)

    @rule()
    def the_ledger_is_lost(self) -> None:
        for path in (self.folder / "_ledger").iterdir():
            path.unlink()
        self.holder, self.beats = dict.fromkeys(ITEMS), dict.fromkeys(ITEMS, 0.0)
        self.state, self.tokens = dict.fromkeys(ITEMS, State.PENDING), dict.fromkeys(ITEMS, -1)
        self.a_stage_starts()

    @rule()
    def the_ledger_is_copied(self) -> None:
        to = self.folder / "copy.sqlite"
        to.unlink(missing_ok=True)
        source = self.folder / "_ledger" / "ledger.sqlite"
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(to)) as new:
            old.backup(new)
        self.copy = tuple(map(dict, (self.holder, self.beats, self.state, self.tokens)))

    @precondition(lambda self: self.copy)
    @rule()
    def the_copy_is_brought_back(self) -> None:
        for path in (self.folder / "_ledger").iterdir():
            path.unlink()
        shutil.copyfile(self.folder / "copy.sqlite", self.folder / "_ledger" / "ledger.sqlite")
        assert self.copy is not None
        self.holder, self.beats, self.state, self.tokens = map(dict, self.copy)
        self.a_stage_starts()

    @rule()
    def a_stage_starts(self) -> None:
        _, tokens = agree(ShardInputs(self.lake, self.ledger, SHARD), [TABLE])
        highest = {item: tokens[TABLE][item] for item in ITEMS}
        self.ledger.expect(TABLE, SHARD, [(u, u) for u in ITEMS], highest)
        for item in ITEMS:
            fresh = abs(self.now() - self.beats[item]) < HEARTBEAT_LIMIT_S
            is_at_work = self.holder[item] is not None and fresh
            if self.newest(item) > self.tokens[item] and not is_at_work:
                self.state[item], self.holder[item] = State.DONE, None
                self.tokens[item] = self.newest(item)

    @invariant()
    def each_unit_is_there_once_with_its_newest_rows(self) -> None:
        rows = self.lake.read(TABLE, SHARD).to_pylist()
        newest = {}
        for tried in self.tries:
            if tried.published:
                before = newest.get(tried.item, tried)
                newest[tried.item] = max(before, tried, key=lambda t: t.attempt.token)
        assert Counter(r["video_id"] for r in rows) == dict.fromkeys(newest, 3)
        assert {(r["video_id"], r["estimated_cost"]) for r in rows} == {
            (item, tried.cost) for item, tried in newest.items()
        }

    @invariant()
    def the_ledger_is_in_the_state_of_the_model(self) -> None:
        assert {e.item_id: e.state for e in self.ledger.entries()} == self.state

    def now(self) -> float:
        return time.time() + self.ledger.offset_s

    def newest(self, item: str) -> int:
        """The highest token of what is published of an item."""
        return max(
            (t.attempt.token for t in self.tries if t.published and t.item == item), default=-1
        )


TestPublishMachine = pytest.mark.slow(PublishMachine.TestCase)
TestPublishMachine.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
