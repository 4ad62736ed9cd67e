"""An earlier run's output comes back whole, and nothing that is older than the return undoes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ego_assets.catalog import TABLES
from ego_assets.engine.choices import Choice, Choices
from ego_assets.engine.outcome import StageReport
from ego_assets.engine.runner import run_stage
from ego_assets.upkeep.audit import verify
from ego_assets.upkeep.diff import NothingToCompareError, diff_runs
from ego_assets.upkeep.rollback import RollbackError, rollback
from resources.lake import Lake, history
from resources.ledger import Ledger, State
from tests.engine.stage_bench import SHARD, Bench, make_bench, provenance
from tests.resources.s3_server import new_bucket, s3_server

TABLE = "object_movements"
STAGE = "movement_estimator"


@pytest.fixture(params=["folder", "s3"])
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    if request.param == "folder":
        yield make_bench(tmp_path)
        return
    with s3_server(monkeypatch):
        yield make_bench(tmp_path, lake=Lake(f"s3://{new_bucket()}/lake"))


def run(bench: Bench, run_id: str, touch_share: float, **changes: Any) -> StageReport:
    spec = replace(bench.spec, run_id=run_id, settings={"touch_share": touch_share}, **changes)
    return run_stage(spec, isolate=False)


def shares(bench: Bench) -> list[float]:
    rows = bench.lake.read(TABLE, SHARD).sort_by("clip_id")
    return [round(x, 3) for x in rows["displacement_px"].to_pylist()]


def stage_problems(bench: Bench) -> list[str]:
    return [str(p) for p in verify(bench.lake, bench.ledger) if p.table == TABLE]


def test_a_run_comes_back_and_goes_again(bench: Bench) -> None:
    run(bench, "first", 0.1)
    before = bench.lake.read(TABLE, SHARD)
    run(bench, "second", 0.2)
    short = bench.lake.read("clips", SHARD).to_pylist()[-1]["clip_id"]
    run(bench, "third", 0.3, items=(short,))
    assert shares(bench) == [0.2, 0.2, 0.2, 0.3]
    known = history.versions(bench.lake, TABLE, SHARD)
    assert [dict(v.runs) for v in known] == [{"second": 3, "third": 1}, {"second": 4}, {"first": 4}]
    (change,) = rollback(bench.lake, bench.ledger, "first")
    assert (change.units, change.requeued, change.was_current) == (4, 0, False)
    assert bench.lake.read(TABLE, SHARD) == before
    assert stage_problems(bench) == []
    assert {e.run_id for e in bench.ledger.entries(stage=TABLE)} == {"first"}
    # Its work is done: the same settings make nothing again, others do.
    assert run(bench, "fourth", 0.1).skipped == 4
    assert [c.was_current for c in rollback(bench.lake, bench.ledger, "first")] == [True]
    (change,) = rollback(bench.lake, bench.ledger, "second")
    assert shares(bench) == [0.2] * 4
    assert run(bench, "fifth", 0.4).done == 4
    assert shares(bench) == [0.4] * 4
    assert bench.lake.storage.list(f"{TABLE}/_fragments/{SHARD}") == []
    assert stage_problems(bench) == []


def test_what_was_chosen_after_it_is_forgotten(bench: Bench) -> None:
    choices = Choices(bench.lake)

    def choose_and_run(run_id: str, share: float, *items: str) -> Choice:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        choice = Choice({"touch_share": share}, {}, items, run_id, now)
        choices.keep(STAGE, SHARD, choice)
        run(bench, run_id, share, items=items)
        return choice

    first = choose_and_run("first", 0.1)
    choose_and_run("second", 0.2)
    (item, *_) = bench.lake.read("clips", SHARD)["clip_id"].to_pylist()
    choose_and_run("third", 0.3, item)
    choices.keep("another", SHARD, replace(first, made_at="9"))
    rollback(bench.lake, bench.ledger, "first")
    assert choices.of(STAGE, SHARD) == [first]
    assert choices.of("another", SHARD)


def test_late_attempts_do_not_undo_it_and_new_ones_do(bench: Bench) -> None:
    run(bench, "first", 0.1)
    run(bench, "second", 0.2)
    rows = bench.lake.read(TABLE, SHARD).to_pylist()
    items = {e.item_id: e.token for e in bench.ledger.entries(stage=TABLE)}
    rollback(bench.lake, bench.ledger, "first")
    for row in rows:  # an orphan of the second run, or of one between the two
        batch = TABLES[TABLE].from_rows([row])
        late = replace(provenance("late"), token=items[row["clip_id"]])
        bench.lake.publish(TABLE, SHARD, row["clip_id"], batch, late)
    assert shares(bench) == [0.1] * 4
    assert {p.run_id for p in bench.lake.provenances(TABLE, SHARD).values()} == {"first"}
    bench.lake.compact(TABLE, SHARD, items)
    assert shares(bench) == [0.1] * 4
    new = replace(provenance("new"), token=max(items.values()) + 1)
    bench.lake.publish(TABLE, SHARD, rows[0]["clip_id"], TABLES[TABLE].from_rows(rows[:1]), new)
    assert sorted(shares(bench)) == [0.1, 0.1, 0.1, 0.2]


def test_killed_at_any_step_one_or_the_other_is_current(bench: Bench) -> None:
    run(bench, "first", 0.1)
    run(bench, "second", 0.2)
    storage = bench.lake.storage
    real = {name: getattr(storage, name) for name in ("write", "copy", "delete")}
    for steps in range(40):
        left = [steps]

        def dies(name: str, left: list[int] = left) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return real[name](*arguments, **options)

            return call

        run_id = "first" if shares(bench) == [0.2] * 4 else "second"
        for name in real:
            setattr(storage, name, dies(name))
        try:
            rollback(bench.lake, bench.ledger, run_id)
            over = True
        except KeyboardInterrupt:
            over = False
        for name, function in real.items():
            setattr(storage, name, function)
        for key in storage.list(f"_locks/{TABLE}.{SHARD}"):  # on S3; its owner lives on: we do
            storage.delete(key)
        assert shares(bench) in ([0.1] * 4, [0.2] * 4)
        rollback(bench.lake, bench.ledger, run_id)
        assert shares(bench) == [0.1 if run_id == "first" else 0.2] * 4
        assert stage_problems(bench) == []
        if over:
            break
    assert steps > 4
    assert over


def test_units_that_it_did_not_have_wait_again(bench: Bench) -> None:
    short = bench.lake.read("clips", SHARD).to_pylist()[-1]["clip_id"]
    run(bench, "first", 0.1, items=(short,))
    run(bench, "second", 0.2)
    (change,) = rollback(bench.lake, bench.ledger, "first")
    assert (change.units, change.requeued) == (1, 3)
    assert shares(bench) == [0.1]
    assert bench.ledger.counts()[TABLE] == {State.DONE: 1, State.PENDING: 3}
    assert run(bench, "third", 0.1).done == 3
    assert shares(bench) == [0.1] * 4


def test_refusals_change_nothing(bench: Bench) -> None:
    run(bench, "first", 0.1)
    run(bench, "second", 0.2)
    with pytest.raises(RollbackError, match=r"no version that is kept.*other"):
        rollback(bench.lake, bench.ledger, "other")
    item = bench.ledger.entries(stage=TABLE)[0].item_id
    bench.ledger.start(TABLE, item, fingerprint="f", worker="elsewhere:1:1", run_id="third")
    with pytest.raises(RollbackError, match="being made by run third"):
        rollback(bench.lake, bench.ledger, "first")
    assert shares(bench) == [0.2] * 4


def test_only_so_many_versions_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_KEEP_VERSIONS", "2")
    for number in range(5):
        run(bench, f"run{number}", 0.1 + number / 10)
    runs = [dict(v.runs) for v in history.versions(bench.lake, TABLE, SHARD)]
    assert runs == [{"run4": 4}, {"run3": 4}, {"run2": 4}]
    monkeypatch.setenv("EGO_KEEP_VERSIONS", "0")
    run(bench, "run5", 0.9)
    assert len(history.versions(bench.lake, TABLE, SHARD)) == 3


def test_an_earlier_version_that_is_damaged_is_named(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    run(bench, "first", 0.1)
    run(bench, "second", 0.2)
    (path,) = (bench.lake.root / TABLE / "_history" / SHARD).glob("*.parquet")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    (problem,) = stage_problems(bench)
    assert problem.startswith(f"damaged: {TABLE}/_history/")
    assert shares(bench) == [0.2] * 4


def test_two_runs_compared(bench: Bench) -> None:
    run(bench, "first", 0.1)
    run(bench, "second", 0.2)
    short = bench.lake.read("clips", SHARD).to_pylist()[-1]["clip_id"]
    run(bench, "third", 0.3, items=(short,))
    (found,) = (d for d in diff_runs(bench.lake, "first", "second") if d.table == TABLE)
    assert (found.rows_a, found.rows_b, found.equal, found.changed) == (4, 4, 0, 4)
    moved = found.columns[0]
    assert (moved.column, moved.changed, moved.ks) == ("displacement_px", 4, 1.0)
    assert (moved.mean_a, moved.mean_b) == (pytest.approx(0.1), pytest.approx(0.2))
    (found,) = (d for d in diff_runs(bench.lake, "second", "third") if d.table == TABLE)
    assert (found.equal, found.changed, found.only_a, found.only_b) == (3, 1, 0, 0)
    with pytest.raises(NothingToCompareError, match="ego history"):
        diff_runs(bench.lake, "first", "none")


def test_the_ledger_of_a_lake_that_was_rolled_back_can_be_lost(tmp_path: Path) -> None:
    """The floors lie in the lake: a new ledger hands out higher tokens still."""
    bench = make_bench(tmp_path)
    run(bench, "first", 0.1)
    run(bench, "second", 0.2)
    rollback(bench.lake, bench.ledger, "first")
    fresh = replace(bench, ledger=Ledger(f"sqlite:///{tmp_path}/new.sqlite"))
    run(fresh, "third", 0.3, ledger_url=fresh.ledger.url)
    assert shares(fresh) == [0.3] * 4
