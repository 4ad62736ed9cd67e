"""What is called stale is what a run would do again; a retry leaves it as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ego_assets.engine.choices import Part
from ego_assets.engine.plan import StageSpec, chain, plan
from ego_assets.engine.runner import run_stage
from ego_assets.upkeep.staleness import StaleShard, data_versions, find_stale
from resources.ledger import State
from tests.engine.stage_bench import SHARD, Bench, provenance

LONG, SHORT = "long000000000000", "short00000000000"
CHANGES: list[dict[str, Any]] = [
    {"operator_version": "2"},
    {"weights_hash": "other"},
    {"settings": {"touch_share": 0.5}},
]


def stale(bench: Bench, *specs: StageSpec) -> StaleShard:
    recipe = [[Part(spec)] for spec in specs or [bench.spec]]
    (found,) = find_stale(bench.lake, bench.ledger, lambda _: recipe, [SHARD])
    return found


def run(bench: Bench, **changes: Any) -> int:
    return run_stage(bench.rerun(**changes), isolate=False).done


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: next(iter(c)))
def test_a_change_makes_everything_stale_until_it_is_done(
    bench: Bench, change: dict[str, Any]
) -> None:
    assert run(bench) == 4
    before = data_versions(bench.ledger, bench.spec.tables, SHARD)
    assert stale(bench).items == {}
    new = replace(bench.spec, **change)
    assert stale(bench, new).items == {"object_movements": 4}
    assert stale(bench, new).state != stale(bench).state
    assert run(bench, **change) == 4
    assert stale(bench, new).items == {}
    assert data_versions(bench.ledger, bench.spec.tables, SHARD) != before
    assert run(bench, **change) == 0


def test_inputs_that_changed_make_their_take_stale(bench: Bench) -> None:
    run(bench)
    rows = bench.lake.read("clips", SHARD, items=[SHORT])
    bench.lake.publish("clips", SHARD, SHORT, rows, replace(provenance("other"), token=2))
    assert stale(bench).items == {"object_movements": 1}
    assert run(bench) == 1
    assert stale(bench).items == {}


def test_what_waits_or_is_given_up_is_not_stale(bench: Bench) -> None:
    run(bench)
    bench.ledger.requeue("object_movements", [f"{SHORT}-0000"], "lost")
    assert stale(bench).items == {}
    bench.behave(f"{SHORT}-0000", bad=True)
    assert run(bench, max_attempts=1) == 0
    assert bench.ledger.entries(item_id=f"{SHORT}-0000")[0].state is State.QUARANTINED
    assert stale(bench).items == {}
    # A new version of the operator may do what the old one could not.
    assert stale(bench, replace(bench.spec, operator_version="2")).items == {"object_movements": 4}
    bench.ledger.drop(item_id=f"{SHORT}-0000")
    assert stale(bench, replace(bench.spec, operator_version="2")).items == {"object_movements": 3}


def test_a_unit_given_up_for_one_of_two_tables_is_judged_as_a_run_would(bench: Bench) -> None:
    pair = {"backend": "tests.engine.fake_backends:FakePair"}
    both = bench.rerun(tables=("object_movements", "robot_mappings"), **pair)
    assert run(bench, **pair) == 4
    bench.behave(f"{LONG}-0001", **{"raise": 99})
    assert run_stage(replace(both, max_attempts=1), isolate=False).done == 3
    assert run_stage(both, isolate=False).done == 0
    assert stale(bench, both).items == {}


def test_what_follows_from_stale_rows_is_stale(bench: Bench) -> None:
    run(bench)
    after = replace(
        bench.spec,
        tables=("object_poses",),
        inputs=("object_movements",),
        operator_version="7",
    )
    clips = bench.lake.read("clips", SHARD)["clip_id"].to_pylist()
    bench.ledger.expect("object_poses", SHARD, [(c, c[:16]) for c in clips])
    for group in plan(after, bench.lake, bench.ledger):
        previous = None
        for item in group.items:
            previous = chain(item.base_fingerprint, previous)
            attempt = bench.ledger.start(
                "object_poses", item.item_id, fingerprint=previous, worker="w", run_id="r"
            )
            bench.ledger.finish("object_poses", item.item_id, attempt)
    assert stale(bench, bench.spec, after).items == {}
    new = replace(bench.spec, operator_version="2")
    assert stale(bench, new, after).items == {"object_movements": 4, "object_poses": 4}


def test_a_retry_does_what_failed_and_leaves_what_is_stale(bench: Bench) -> None:
    middle = f"{LONG}-0001"
    run(bench)
    bench.ledger.requeue("object_movements", [middle], "lost")
    assert run(bench, settings={"touch_share": 0.5}, redo_stale=False) == 1
    rows = {r["clip_id"]: r for r in bench.lake.read("object_movements", SHARD).to_pylist()}
    assert rows[middle]["displacement_px"] == 0.5
    assert rows[f"{LONG}-0000"]["displacement_px"] == pytest.approx(0.12)
    # The state that the clip before it left is still its own.
    assert [rows[f"{LONG}-{i:04d}"]["path_length"] for i in range(3)] == [0.0, 1.0, 2.0]
    assert {e.state for e in bench.ledger.entries(stage="object_movements")} == {State.DONE}


def test_a_retry_leaves_quarantine_alone_whatever_the_version(bench: Bench) -> None:
    bench.behave(f"{SHORT}-0000", bad=True)
    run(bench, max_attempts=1)
    bench.behave(f"{SHORT}-0000")
    assert run(bench, operator_version="2", redo_stale=False) == 0
    assert bench.ledger.entries(item_id=f"{SHORT}-0000")[0].state is State.QUARANTINED
    assert run(bench, operator_version="2") == 4
