"""The stage pipeline: done once, redone when it must be, alive when its workers are not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import replace

import psutil
import pytest
from stage_bench import SHARD, Bench

from ego_assets.stages import runner
from ego_assets.stages.runner import run_stage
from resources.ledger import State

LONG = [f"long{'0' * 12}-{i:04d}" for i in range(3)]
SHORT = f"short{'0' * 11}-0000"
TABLE = "object_movements"


def counts(bench: Bench) -> list[float]:
    rows = bench.lake.read(TABLE, SHARD).to_pylist()
    return [r["path_length"] for r in sorted(rows, key=lambda r: r["clip_id"])]


def test_every_clip_is_done_in_order_and_state_is_carried(bench: Bench) -> None:
    report = run_stage(bench.spec, workers=2)
    assert (report.done, report.failed, report.skipped) == (4, 0, 0)
    assert counts(bench) == [0, 1, 2, 0]
    assert report.rows == {TABLE: 4}
    assert (bench.lake.root / TABLE / f"{SHARD}.parquet").is_file()
    assert not list((bench.lake.root / TABLE / "_fragments").rglob("*.parquet"))


def test_a_second_run_does_nothing(bench: Bench) -> None:
    run_stage(bench.spec, workers=2)
    path = bench.lake.root / TABLE / f"{SHARD}.parquet"
    before = path.read_bytes()
    report = run_stage(bench.rerun(), workers=2)
    assert (report.done, report.skipped) == (0, 4)
    assert path.read_bytes() == before
    assert all(bench.attempts(c) == 1 for c in [*LONG, SHORT])


def test_force_does_everything_again_and_leaves_each_row_once(bench: Bench) -> None:
    run_stage(bench.spec, workers=1)
    report = run_stage(bench.rerun(force=True), workers=1)
    assert report.done == 4
    assert bench.lake.read(TABLE, SHARD).num_rows == 4
    found = bench.lake.provenance(TABLE, SHARD, SHORT)
    assert found is not None
    assert found.run_id == "again"


def test_a_new_operator_version_makes_clips_stale(bench: Bench) -> None:
    run_stage(bench.spec, workers=1)
    assert run_stage(bench.rerun(operator_version="2"), workers=1).done == 4


def test_a_failing_clip_is_tried_again(bench: Bench) -> None:
    bench.behave(SHORT, **{"raise": 2})
    report = run_stage(bench.spec, workers=1)
    assert (report.done, report.retried, report.failed) == (4, 2, 0)
    assert bench.attempts(SHORT) == 3


def test_a_clip_that_keeps_failing_is_quarantined_and_the_rest_goes_on(bench: Bench) -> None:
    bench.behave(LONG[1], **{"raise": 99})
    report = run_stage(bench.spec, workers=2)
    assert (report.done, report.quarantined) == (3, 1)
    assert "fails as it was told" in report.failures[0].reason
    assert counts(bench) == [0, 0, 0]  # the clip after it starts afresh
    assert bench.attempts(LONG[1]) == 3
    again = run_stage(bench.rerun(), workers=2)
    assert (again.done, again.quarantined) == (0, 1)
    assert bench.attempts(LONG[1]) == 3


def test_a_released_clip_is_done_and_its_successor_with_it(bench: Bench) -> None:
    bench.behave(LONG[1], **{"raise": 3})
    run_stage(bench.spec, workers=1)
    assert bench.ledger.release(shard=SHARD) == 1
    report = run_stage(bench.rerun(), workers=1)
    assert (report.done, report.skipped, report.failed) == (2, 2, 0)
    assert counts(bench) == [0, 1, 2, 0]


def test_a_clip_that_kills_its_worker_once_is_done_by_another(bench: Bench) -> None:
    bench.behave(LONG[1], die=1)
    report = run_stage(bench.spec, workers=1)
    assert (report.done, report.worker_deaths, report.failed) == (4, 1, 0)
    assert bench.attempts(LONG[0]) == 1
    assert counts(bench) == [0, 1, 2, 0]


@pytest.mark.parametrize("force", [False, True])
def test_a_clip_that_kills_its_worker_twice_is_quarantined(bench: Bench, force: bool) -> None:
    bench.behave(LONG[0], die=99)
    report = run_stage(replace(bench.spec, force=force), workers=1)
    assert (report.done, report.quarantined, report.worker_deaths) == (3, 1, 2)
    entry = bench.ledger.entries(stage=TABLE, unit_id=LONG[0])[0]
    assert entry.state is State.QUARANTINED
    assert "killed by SIGKILL" in (entry.error or "")


def test_a_hanging_clip_is_killed_and_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "UNIT_TIMEOUT_S", 1.0)
    monkeypatch.setattr(runner, "UNIT_TIMEOUT_PER_VIDEO_S", 0.0)
    bench.behave(SHORT, sleep_s=600)
    report = run_stage(bench.spec, workers=2)
    assert (report.done, report.worker_deaths) == (4, 1)
    assert bench.attempts(SHORT) == 2


def test_rows_outside_the_contract_never_reach_the_lake(bench: Bench) -> None:
    bench.behave(SHORT, bad=True)
    report = run_stage(bench.spec, workers=1)
    assert (report.done, report.quarantined) == (3, 1)
    assert "touch_share" in report.failures[0].reason
    assert SHORT not in bench.lake.read(TABLE, SHARD)["clip_id"].to_pylist()


def test_a_clip_whose_input_is_missing_waits_and_says_for_what(bench: Bench) -> None:
    report = run_stage(replace(bench.spec, inputs=("hand_masks",)), workers=1)
    assert (report.done, report.blocked) == (0, 4)
    assert "hand_masks" in report.failures[0].reason
    assert bench.attempts(SHORT) == 0


def test_units_picks_clips(bench: Bench) -> None:
    report = run_stage(replace(bench.spec, units=(SHORT,)), workers=1)
    assert (report.units, report.done) == (1, 1)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _run_in_session(spec) -> None:  # type: ignore[no-untyped-def]
    run_stage(spec, workers=1)


def test_killed_with_all_its_workers_only_what_was_in_flight_is_redone(bench: Bench) -> None:
    bench.behave(LONG[1], sleep_s=600)
    process = multiprocessing.get_context("spawn").Process(
        target=_run_in_session, args=(replace(bench.spec, units=tuple(LONG)),)
    )
    process.start()
    deadline = time.monotonic() + 60
    while not bench.attempts(LONG[1]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker = bench.ledger.entries(stage=TABLE, unit_id=LONG[1])[0].worker or ""
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    pid = int(worker.split(":")[1])
    while is_alive(pid):  # the kernel kills the orphan
        assert time.monotonic() < deadline
        time.sleep(0.05)
    report = run_stage(bench.rerun(), workers=1)
    assert (report.done, report.skipped) == (3, 1)
    assert bench.attempts(LONG[0]) == 1
    assert counts(bench) == [0, 1, 2, 0]
