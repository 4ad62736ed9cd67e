"""Several takes at a time on one worker: in order within a take, side by side across, one model."""

from __future__ import annotations

import json
import threading
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ego_assets.engine.runner import run_stage
from ego_assets.engine.workers import shared_task, supervisor
from ego_assets.models import registry
from resources.ledger import State
from tests.engine.stage_bench import SHARD, Bench, make_bench

TABLE = "object_movements"
BACKEND = "tests.engine.lane_backends:LaneEstimator"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = make_bench(tmp_path, {f"v{n}": 4 for n in range(4)})
    lanes, on_device = registry.lanes("movement_estimator", BACKEND)
    assert on_device
    made.spec = replace(made.spec, backend=BACKEND, lanes=lanes)
    return made


def spans(bench: Bench) -> list[dict[str, Any]]:
    lines = (bench.folder / "raw" / "spans.jsonl").read_text().splitlines()
    return sorted((json.loads(x) for x in lines), key=lambda s: s["began"])


def overlaps(found: list[dict[str, Any]]) -> int:
    edges = [(s["began"], 1) for s in found] + [(s["ended"], -1) for s in found]
    running = most = 0
    for _, change in sorted(edges):
        running += change
        most = max(most, running)
    return most


def test_takes_are_side_by_side_and_each_is_in_order(bench: Bench) -> None:
    (bench.folder / "raw" / "together").touch()
    report = run_stage(bench.spec, workers=1)
    assert (report.done, report.failures) == (16, [])
    found = spans(bench)
    assert overlaps(found) == 3
    assert len({(s["pid"], s["model"]) for s in found}) == 1, "one worker, one model"
    for take in {s["clip"][:16] for s in found}:
        mine = [s for s in found if s["clip"].startswith(take)]
        assert [s["clip"][-4:] for s in mine] == ["0000", "0001", "0002", "0003"]
        assert all(a["ended"] <= b["began"] for a, b in pairwise(mine))
    rows = bench.lake.read(TABLE, SHARD).sort_by("clip_id")
    assert rows["path_length"].to_pylist() == [0, 1, 2, 3] * 4


def test_each_worker_has_a_device_to_itself(bench: Bench) -> None:
    run_stage(replace(bench.spec, devices=("0", "3")), workers=2)
    devices: dict[int, set[str]] = {}
    for span in spans(bench):
        devices.setdefault(span["pid"], set()).add(span["device"])
    assert sorted(map(sorted, devices.values())) == [["0"], ["3"]]


def test_who_kills_the_worker_is_found_and_the_others_go_free(bench: Bench) -> None:
    killer = "v1" + "0" * 14 + "-0001"
    bench.behave(killer)
    report = run_stage(bench.spec, workers=1)
    assert [(f.item_id, f.state) for f in report.failures] == [(killer, "quarantined")]
    assert "SIGSEGV" in report.failures[0].reason
    entries = {e.item_id: e for e in bench.ledger.entries(stage=TABLE)}
    assert {e.attempts for u, e in entries.items() if u != killer} == {1}
    assert entries[killer].state is State.QUARANTINED
    # One that was done when the worker died, and did not come to say so, is found done.
    assert report.done + report.skipped == 15
    assert bench.ledger.counts()[TABLE][State.DONE] == 15
    assert report.worker_deaths <= 4


def test_a_worker_that_hangs_takes_only_one_along(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "ITEM_TIMEOUT_S", 0.0)
    monkeypatch.setattr(supervisor, "ITEM_TIMEOUT_PER_VIDEO_S", 0.0)
    report = run_stage(replace(bench.spec, max_deaths=1), workers=1)
    assert report.failures
    assert all("hung" in f.reason for f in report.failures)


def test_a_killed_run_with_lanes_leaves_nothing_half(bench: Bench) -> None:
    killer = "v0" + "0" * 14 + "-0000"
    bench.behave(killer)
    run_stage(bench.spec, workers=2)
    (bench.folder / "raw" / f"{killer}.json").unlink()
    bench.ledger.release()
    report = run_stage(replace(bench.spec, run_id="again"), workers=2)
    assert report.failures == []
    assert bench.lake.read(TABLE, SHARD).num_rows == 16
    assert bench.ledger.counts() == {TABLE: {State.DONE: 16}}


def test_a_second_model_comes_when_the_first_has_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a lane ran out of memory; two models would not fit where one did not."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    class Model:
        def __init__(self, *_: Any) -> None:
            assert not alive
            alive.add(self)

    monkeypatch.setattr(shared_task, "build_task", Model)
    shared = shared_task.SharedTask(bench.spec)

    def next_try() -> None:
        with shared.use(bench.lake, bench.ledger):
            pass

    with shared.use(bench.lake, bench.ledger):
        shared.forget()  # another lane's
        trying = threading.Thread(target=next_try)
        trying.start()
        trying.join(0.2)
        assert trying.is_alive(), "it waits"
    trying.join(30)
    assert not trying.is_alive()
    assert len(alive) == 1
    shared.forget()
    assert not alive, "nobody has it: it goes at once"
