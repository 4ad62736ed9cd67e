"""A stage that got no GPU: results without one, and the rest pending, never lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ego_assets.engine.outcome import StageReport
from ego_assets.engine.plan import StageSpec, chain, plan
from ego_assets.engine.provisional import stand_in
from ego_assets.engine.runner import run_stage
from ego_assets.upkeep.audit import verify
from resources.ledger import Entry, State
from tests.engine.stage_bench import SHARD, Bench
from tests.engine.test_runner import LONG, SHORT, TABLE

WHY = "no GPU was free within 5 s; GPU 0 is held by step s"


def with_gpu(bench: Bench, **changes: object) -> StageSpec:
    """The stage that was chosen: the same operator under another version is another backend."""
    return replace(bench.spec, operator_version="gpu", **{"run_id": "real"} | changes)


def without(bench: Bench, **changes: object) -> StageSpec:
    return replace(bench.spec, provisional=WHY, **{"run_id": "degraded"} | changes)


def degrade(bench: Bench, **changes: object) -> StageReport:
    return run_stage(without(bench, **changes), isolate=False, real=with_gpu(bench, **changes))


def entries(bench: Bench) -> dict[str, Entry]:
    return {e.item_id: e for e in bench.ledger.entries(stage=TABLE)}


def made_by(bench: Bench) -> dict[str, str]:
    return {u: p.run_id for u, p in bench.lake.provenances(TABLE, SHARD).items()}


def test_results_are_written_and_the_real_ones_are_pending(bench: Bench) -> None:
    report = degrade(bench)
    assert (report.done, report.waiting, report.rows) == (4, 4, {TABLE: 4})
    assert bench.ledger.counts()[TABLE] == {State.PENDING: 4}
    assert {e.error for e in entries(bench).values()} == {WHY}
    assert bench.ledger.unfinished_shards() == [SHARD], "the nightly retry would not find it"
    assert bench.ledger.waiting_for_gpu() == [(TABLE, SHARD, 4, WHY)]
    assert [p for p in verify(bench.lake, bench.ledger) if p.table == TABLE] == []


def test_what_follows_is_made_of_them_and_again_of_the_real_ones(bench: Bench) -> None:
    after = replace(bench.spec, inputs=(TABLE,), tables=("robot_mappings",))
    assert all(u.blocked for g in plan(after, bench.lake, bench.ledger) for u in g.items)
    degrade(bench)
    first = [u for g in plan(after, bench.lake, bench.ledger) for u in g.items]
    assert not any(u.blocked for u in first)
    run_stage(with_gpu(bench), isolate=False)
    second = [u for g in plan(after, bench.lake, bench.ledger) for u in g.items]
    assert not {u.base_fingerprint for u in first} & {u.base_fingerprint for u in second}


def test_a_later_run_with_a_gpu_makes_all_of_it(bench: Bench) -> None:
    degrade(bench)
    report = run_stage(with_gpu(bench), isolate=False)
    assert (report.done, report.skipped, report.waiting) == (4, 0, 0)
    assert set(made_by(bench).values()) == {"real"}
    assert bench.ledger.counts()[TABLE] == {State.DONE: 4}
    assert bench.ledger.unfinished_shards() == []
    assert {e.error_class for e in entries(bench).values()} == {None}


def test_a_second_run_without_one_makes_nothing_again(bench: Bench) -> None:
    degrade(bench)
    report = degrade(bench, run_id="degraded again")
    assert (report.done, report.skipped, report.waiting) == (0, 4, 4)
    assert all(bench.attempts(c) == 1 for c in [*LONG, SHORT])


def test_it_is_no_longer_wanted_when_the_stand_in_is_chosen(bench: Bench) -> None:
    """Else the shard would be tried again every night, for nothing."""
    degrade(bench)
    report = run_stage(bench.rerun(), isolate=False)
    assert (report.done, report.skipped) == (0, 4)
    assert bench.ledger.unfinished_shards() == []


def test_real_results_are_never_replaced(bench: Bench) -> None:
    run_stage(with_gpu(bench), isolate=False)
    report = degrade(bench)
    assert (report.done, report.skipped, report.waiting) == (0, 4, 0)
    assert bench.ledger.counts()[TABLE] == {State.DONE: 4}
    # Under other settings they are old, but still better than what could be made now.
    for force in (False, True):
        stale = replace(with_gpu(bench), operator_version="gpu 2")
        report = run_stage(without(bench, force=force), isolate=False, real=stale)
        assert (report.done, report.waiting) == (0, 4)
    assert set(made_by(bench).values()) == {"real"}
    assert "the older result is kept" in (entries(bench)[SHORT].error or "")
    assert run_stage(stale, isolate=False).done == 4


def test_only_what_is_missing_is_made(bench: Bench) -> None:
    """The take's first clip is done: the others start afresh, and later follow the real one."""
    run_stage(with_gpu(bench), isolate=False)
    bench.ledger.requeue(TABLE, LONG[1:], "damaged")
    report = degrade(bench)
    assert (report.done, report.skipped, report.waiting) == (2, 2, 2)
    rows = {r["clip_id"]: r["path_length"] for r in bench.lake.read(TABLE, SHARD).to_pylist()}
    assert [rows[c] for c in LONG] == [0, 0, 1]
    alone = {u.item_id: u for g in plan(without(bench), bench.lake, bench.ledger) for u in g.items}
    assert entries(bench)[LONG[1]].fingerprint == chain(alone[LONG[1]].base_fingerprint, None)
    assert run_stage(with_gpu(bench, run_id="later"), isolate=False).done == 2
    rows = {r["clip_id"]: r["path_length"] for r in bench.lake.read(TABLE, SHARD).to_pylist()}
    assert [rows[c] for c in LONG] == [0, 1, 2]


def test_one_table_of_two_is_missing(bench: Bench) -> None:
    bench.spec = replace(bench.spec, backend="tests.engine.fake_backends:FakePair")
    run_stage(with_gpu(bench), isolate=False)
    report = degrade(bench, tables=(TABLE, "robot_mappings"))
    assert (report.done, report.waiting) == (4, 4)
    assert set(made_by(bench).values()) == {"real"}
    counts = bench.ledger.counts()
    assert counts[TABLE] == {State.DONE: 4}
    assert counts["robot_mappings"] == {State.PENDING: 4}


@pytest.mark.parametrize("how", ["raise", "die"])
def test_what_fails_without_a_gpu_is_tried_with_one(bench: Bench, how: str) -> None:
    bench.behave(SHORT, **{how: 3 if how == "raise" else 2})
    spec = without(bench)
    report = run_stage(spec, isolate=how == "die", real=with_gpu(bench))
    assert (report.done, report.quarantined, report.waiting) == (3, 1, 4)
    entry = entries(bench)[SHORT]
    assert (entry.state, entry.fingerprint) == (State.PENDING, "")
    assert "without one it failed" in (entry.error or "")
    tries = bench.attempts(SHORT)
    assert degrade(bench, run_id="degraded again").done == 0
    assert bench.attempts(SHORT) == tries, "it was tried again without a GPU"
    assert run_stage(with_gpu(bench), isolate=False).done == 4


@pytest.mark.parametrize("run_id", ["another run", "real"])
def test_quarantine_and_what_was_dropped_stay(bench: Bench, run_id: str) -> None:
    """Also for a second attempt of the same step, whose first one had a device."""
    bench.behave(SHORT, **{"raise": 99})
    run_stage(with_gpu(bench), isolate=False)
    assert entries(bench)[SHORT].state is State.QUARANTINED
    assert degrade(bench, run_id=run_id).waiting == 0
    assert entries(bench)[SHORT].state is State.QUARANTINED
    bench.ledger.drop(item_id=SHORT)
    assert degrade(bench).waiting == 0
    assert entries(bench)[SHORT].state is State.DROPPED


def test_damage_to_such_a_result_is_found_and_made_good(bench: Bench) -> None:
    degrade(bench)
    assert bench.ledger.requeue(TABLE, [SHORT], "damaged") == 1
    assert degrade(bench, run_id="degraded again").done == 1


def test_the_stand_in_is_the_backend_that_runs_out_of_the_box(
    bench: Bench, hand_nets: Path
) -> None:
    real = replace(bench.spec, operator="segmenter", backend="sam2", settings={"checkpoint": "x"})
    form = {"work_side_px": 320, "checkpoint": "x"}
    found = stand_in(real, form, WHY)
    assert found is not None
    assert (found.backend, found.settings) == ("landmarks", {"work_side_px": 320})
    assert found.operator_version == plan_version("landmarks")
    assert stand_in(replace(real, backend="landmarks"), form, WHY) is None


def plan_version(backend: str) -> str:
    from ego_assets.models import registry

    return registry.version("segmenter", backend)[0]
