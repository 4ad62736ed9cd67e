"""Killed, hung or full between the model and the lake: nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ego_assets.engine.claims import claim
from ego_assets.engine.outage import StageBrokenError
from ego_assets.engine.outcome import StageReport, Tally
from ego_assets.engine.plan import Group, StageSpec, plan
from ego_assets.engine.runner import run_stage
from ego_assets.engine.workers import supervisor
from ego_assets.engine.workers.messages import Broken, Computed, Publishing, Started
from ego_assets.engine.workers.supervisor import Slot, Supervisor
from resources.ledger import State
from resources.processes import is_gone
from tests.engine.stage_bench import SHARD, Bench, as_forked, make_bench

TABLE = "object_movements"
BACKEND = "tests.engine.behind_backends:BehindEstimator"
LONG = [f"long{'0' * 12}-{i:04d}" for i in range(3)]
SHORT = f"short{'0' * 11}-0000"
PATIENCE_S = 120.0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = make_bench(tmp_path)
    made.spec = replace(made.spec, backend=BACKEND, publish_behind=True)
    return made


def publishing(bench: Bench, clip: str, **plan: Any) -> None:
    (bench.folder / "raw" / f"{clip}.publish.json").write_text(json.dumps(plan))


def begun(bench: Bench, clip: str) -> Path:
    """The file that is there once the model has begun the clip."""
    return bench.folder / "raw" / f"{clip}.attempts"


def counts(bench: Bench) -> list[float]:
    rows = bench.lake.read(TABLE, SHARD).to_pylist()
    return [r["path_length"] for r in sorted(rows, key=lambda r: r["clip_id"])]


def test_killed_between_model_and_lake(bench: Bench) -> None:
    """Once: another worker does it, and the clip that was computed meanwhile, again."""
    publishing(bench, LONG[0], die=1, until=str(begun(bench, LONG[1])))
    report = run_stage(bench.spec, workers=1)
    assert (report.done, report.skipped, report.worker_deaths) == (4, 0, 1)
    assert report.failures == []
    assert counts(bench) == [0, 1, 2, 0]
    assert {e.attempts for e in bench.ledger.entries(stage=TABLE)} == {1}, "nobody was charged"
    assert bench.ledger.counts() == {TABLE: {State.DONE: 4}}
    assert bench.attempts(LONG[0]) == 2


@pytest.mark.parametrize("where", ["model", "publisher"])
def test_the_clip_that_kills_is_found_and_those_in_the_queue_go_free(
    bench: Bench, where: str
) -> None:
    if where == "publisher":
        publishing(bench, LONG[0], die=99, until=str(begun(bench, LONG[1])))
        killer, kept = LONG[0], [0, 1, 0]
    else:
        publishing(bench, LONG[0], until=str(bench.folder / "never"), first=True)
        bench.behave(LONG[1], die=99)
        killer, kept = LONG[1], [0, 0, 0]
    report = run_stage(bench.spec, workers=1)
    assert [(f.item_id, f.state) for f in report.failures] == [(killer, "quarantined")]
    assert "SIGKILL" in report.failures[0].reason
    assert (report.done, counts(bench)) == (3, kept)
    entries = {e.item_id: e for e in bench.ledger.entries(stage=TABLE)}
    assert {e.attempts for u, e in entries.items() if u != killer} == {1}
    assert report.worker_deaths == 3, "the first one told nobody who it was"


def _run(spec: StageSpec) -> None:
    run_stage(spec, workers=1)


def test_a_killed_run_loses_the_queue_and_no_more(bench: Bench) -> None:
    publishing(bench, LONG[1], until=str(bench.folder / "never"))
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(bench.spec,))
    process.start()
    deadline = time.monotonic() + PATIENCE_S
    is_held = bench.folder / "raw" / f"{LONG[1]}.published"
    while not (is_held.exists() and begun(bench, SHORT).exists()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    worker = bench.ledger.entries(stage=TABLE, item_id=LONG[1])[0].worker
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    while not is_gone(worker):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert counts(bench) == [0]
    (bench.folder / "raw" / f"{LONG[1]}.publish.json").unlink()
    report = run_stage(bench.rerun(), workers=1)
    assert (report.done, report.skipped, report.failures) == (3, 1, [])
    assert counts(bench) == [0, 1, 2, 0]
    assert bench.ledger.counts() == {TABLE: {State.DONE: 4}}


def test_a_publisher_that_hangs_is_killed_and_those_behind_it_are_not_timed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_held = bench.folder / "raw" / f"{LONG[0]}.published"

    def limit_s(started: Started) -> float:
        """Only what hangs is looked at, however slow the machine is."""
        first = max(a.number for a in started.attempts.values()) == 1
        hangs = started.item.item_id == LONG[0] and first and is_held.exists()
        return 0.5 if hangs else PATIENCE_S

    monkeypatch.setattr(supervisor, "limit_s", limit_s)
    publishing(bench, LONG[0], until=str(bench.folder / "never"), first=True)
    report = run_stage(bench.spec, workers=1)
    assert (report.done, report.worker_deaths, report.failures) == (4, 1, [])
    assert counts(bench) == [0, 1, 2, 0]
    attempts = {e.item_id: e.attempts for e in bench.ledger.entries(stage=TABLE)}
    assert attempts == dict.fromkeys([*LONG, SHORT], 1) | {LONG[0]: 2}


def test_waiting_in_the_queue_is_not_timed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "limit_s", lambda started: -1.0)
    (item,) = plan(replace(bench.spec, items=(SHORT,)), bench.lake, bench.ledger)[1].items
    boss = Supervisor(bench.spec, bench.ledger, Tally(StageReport("s", SHARD)))
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(PATIENCE_S,))
    ours, _theirs = multiprocessing.Pipe()
    slot = Slot(as_forked(process, ours), "", groups={SHORT: Group((item,))})
    boss.slots = [slot]
    bench.ledger.expect(TABLE, SHARD, [(SHORT, item.video_id)])
    held = claim(bench.ledger, bench.spec, "w", SHORT, "f", {TABLE: 0})
    assert held is not None
    boss.take(slot, Started(item, held.attempts))
    boss.take(slot, Computed(SHORT))
    boss.bury_hung()
    assert process.is_alive()
    boss.take(slot, Publishing(SHORT))
    boss.bury_hung()
    held.rest()
    assert not process.is_alive()
    entry = bench.ledger.entries(stage=TABLE, item_id=SHORT)[0]
    assert "hung" in (entry.error or "")
    assert len(boss.queue) == 1, "the take goes on"


def test_a_full_disk_ends_the_stage_and_frees_every_claim(bench: Bench) -> None:
    publishing(bench, LONG[0], full=True, until=str(begun(bench, LONG[1])))
    bench.behave(LONG[1], sleep_s=PATIENCE_S)  # it need not come to an end
    with pytest.raises(StageBrokenError, match=r"No space left.*make room"):
        run_stage(bench.spec, workers=1)
    entries = bench.ledger.entries(stage=TABLE)
    assert {(e.state, e.attempts) for e in entries} == {(State.PENDING, 0)}


def test_what_a_worker_said_before_it_was_killed_is_heard(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that the disk is full, and goes on with the next clip before that is read."""
    take = Supervisor.take

    def takes_late(supervisor: Supervisor, slot: Slot, message: Any) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while isinstance(message, Broken) and not begun(bench, LONG[2]).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        take(supervisor, slot, message)

    monkeypatch.setattr(Supervisor, "take", takes_late)
    publishing(bench, LONG[0], full=True, until=str(begun(bench, LONG[1])))
    bench.behave(LONG[2], sleep_s=PATIENCE_S)
    with pytest.raises(StageBrokenError, match="make room"):
        run_stage(bench.spec, workers=1)
    entries = bench.ledger.entries(stage=TABLE)
    assert {(e.state, e.attempts) for e in entries} == {(State.PENDING, 0)}


@pytest.mark.parametrize("lanes", [1, 3])
def test_rows_are_the_same_as_published_in_turn(bench: Bench, tmp_path: Path, lanes: int) -> None:
    (tmp_path / "calm").mkdir()
    calm = make_bench(tmp_path / "calm")
    run_stage(calm.spec, isolate=False)
    run_stage(replace(bench.spec, lanes=lanes), workers=1)
    assert bench.lake.read(TABLE, SHARD) == calm.lake.read(TABLE, SHARD)
    plain = run_stage(bench.rerun(), isolate=False)
    assert plain.skipped == 4, "the fingerprints are those of a lane in turn"
