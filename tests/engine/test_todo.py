"""Those who ask what a run would do go through a take as its worker does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ego_assets.engine.plan import Group, ShardInputs, WorkItem, chain, plan_from
from ego_assets.engine.runner import run_stage
from ego_assets.engine.todo import walk
from ego_assets.upkeep.unfinished import _is_left
from resources.ledger import Entry, State
from resources.ledger.tables import work
from tests.engine.stage_bench import SHARD, Bench

TABLES = ("masks", "poses")
ITEMS = tuple(WorkItem(name, None, name * 32, "", 1.0, 1.0, {}) for name in "abcd")
FIRST = ITEMS[0].base_fingerprint
FOLLOWING = [FIRST]
for _item in ITEMS[1:]:
    FOLLOWING.append(chain(_item.base_fingerprint, FOLLOWING[-1]))


def entry(table: str, item: str, state: State, fingerprint: str) -> Entry:
    given = {"stage": table, "item_id": item, "state": state, "fingerprint": fingerprint}
    return Entry(**dict.fromkeys(Entry.__dataclass_fields__) | given)  # type: ignore[arg-type]


def told(
    states: dict[str, tuple[State, str]], tables: tuple[str, ...] = TABLES
) -> dict[str, dict[str, Entry]]:
    return {t: {u: entry(t, u, *said) for u, said in states.items()} for t in tables}


def test_each_unit_follows_the_one_before_it() -> None:
    steps = list(walk(Group(ITEMS), TABLES, {}))
    assert [s.fingerprint for s in steps] == FOLLOWING
    assert not any(s.is_over or s.is_done for s in steps)


@pytest.mark.parametrize("state", [State.DROPPED, State.QUARANTINED])
def test_what_follows_a_unit_that_is_given_up_starts_afresh(state: State) -> None:
    steps = list(walk(Group(ITEMS), TABLES, told({"b": (state, FOLLOWING[1])})))
    assert [s.is_over for s in steps] == [False, True, False, False]
    third = ITEMS[2].base_fingerprint
    assert [s.fingerprint for s in steps[2:]] == [third, chain("d" * 32, third)]


def test_what_failed_under_another_fingerprint_is_tried() -> None:
    steps = list(walk(Group(ITEMS), TABLES, told({"b": (State.QUARANTINED, "other")})))
    assert [s.fingerprint for s in steps] == FOLLOWING
    assert not steps[1].is_over


def test_one_table_that_was_dropped_is_enough() -> None:
    steps = list(walk(Group(ITEMS), TABLES, told({"b": (State.DROPPED, "")}, TABLES[:1])))
    assert [s.is_over for s in steps] == [False, True, False, False]


def test_a_blocked_unit_ends_the_chain_but_is_not_left_out() -> None:
    blocked = replace(ITEMS[1], blocked="waits for its masks")
    steps = list(walk(Group((ITEMS[0], blocked, *ITEMS[2:])), TABLES, {}))
    assert [(s.is_over, s.is_left_out) for s in steps[:2]] == [(False, False), (True, False)]
    assert steps[2].fingerprint == ITEMS[2].base_fingerprint


def test_of_what_is_made_from_a_stale_unit_no_fingerprint_is_known() -> None:
    entries = told({"b": (State.QUARANTINED, FOLLOWING[1]), "d": (State.DROPPED, "")})
    steps = list(walk(Group(ITEMS), TABLES, entries, changed={"b"}))
    assert [s.fingerprint for s in steps] == [FIRST, None, None, None]
    assert [s.is_over for s in steps] == [False, False, False, True], "b failed with other inputs"


def test_they_give_up_what_the_worker_gives_up(bench: Bench) -> None:
    """A person has dropped one table of an item: the worker tries the other one no more either."""
    backend = "tests.engine.fake_backends:FakePair"
    spec = bench.rerun(tables=("object_movements", "robot_mappings"), backend=backend)
    run_stage(spec, workers=0)
    entries = bench.ledger.entries(stage=spec.tables[0], shard=SHARD)
    item = next(e.item_id for e in entries if e.item_id.startswith("short"))
    set_state(bench, spec.tables[0], item, State.DROPPED)
    set_state(bench, spec.tables[1], item, State.PENDING)
    inputs = ShardInputs(bench.lake, bench.ledger, SHARD)
    groups = plan_from(spec, inputs)
    assert not any(_is_left(group, spec.tables, inputs) for group in groups)
    attempts = bench.attempts(item)
    run_stage(replace(spec, run_id="once more"), workers=0)
    assert bench.attempts(item) == attempts


def set_state(bench: Bench, table: str, item: str, state: State) -> None:
    mine = work.update().where(work.c.stage == table, work.c.item_id == item)
    with bench.ledger.transaction() as connection:
        connection.execute(mine.values(state=state))
