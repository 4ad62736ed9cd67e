"""The stage pipeline: done once, redone when it must be, alive when its workers are not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import struct
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import psutil
import pytest

from ego_assets.engine.claims import claim
from ego_assets.engine.outcome import StageReport, Tally
from ego_assets.engine.plan import Group, WorkItem, plan
from ego_assets.engine.runner import run_stage
from ego_assets.engine.workers import lane as lane_module
from ego_assets.engine.workers import supervisor as supervision
from ego_assets.engine.workers.lane import Lane
from ego_assets.engine.workers.messages import Started
from ego_assets.engine.workers.results import Place, Take
from ego_assets.engine.workers.supervisor import Slot, Supervisor
from resources.ledger import Attempt, LateAttemptError, State, takeover
from resources.processes import silence
from tests.engine.stage_bench import SHARD, Bench, as_forked

LONG = [f"long{'0' * 12}-{i:04d}" for i in range(3)]
SHORT = f"short{'0' * 11}-0000"
TABLE = "object_movements"
PATIENCE_S = 120.0


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
    assert report.skipped == 0, "what was done before the death is not counted twice"
    assert bench.attempts(LONG[0]) == 1
    assert counts(bench) == [0, 1, 2, 0]


@pytest.mark.parametrize("die", [0, 1])
def test_a_worker_takes_along_what_it_has_started(bench: Bench, die: int) -> None:
    bench.behave(SHORT, die=die, starts="helper")
    assert run_stage(bench.spec, workers=1).worker_deaths == die
    helpers = [int(line) for line in (bench.folder / "raw/helper").read_text().split()]
    assert [psutil.pid_exists(helper) for helper in helpers] == [False] * (1 + die)


def test_a_worker_killed_in_the_middle_of_a_message_costs_one_attempt(bench: Bench) -> None:
    ours, theirs = multiprocessing.Pipe()
    os.write(theirs.fileno(), struct.pack("!i", 20_000) + bytes(5_000))
    theirs.close()
    process = as_forked(multiprocessing.get_context("fork").Process(target=lambda: None), ours)
    group = Group((WorkItem(SHORT, None, "", "", 1.0, 1.0, {}),))
    report = StageReport("s", SHARD)
    supervisor = Supervisor(bench.spec, bench.ledger, Tally(report))
    supervisor.slots = [Slot(process, "", groups={SHORT: group})]
    supervisor.listen()
    assert (report.worker_deaths, supervisor.slots) == (1, [])
    assert list(supervisor.queue) == [group], "it is not tried again"


def _stop_talking(pipe: Connection) -> None:
    pipe.close()
    time.sleep(600)


def test_a_worker_that_is_stuck_at_its_end_is_killed_and_said_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "ENDING_S", 0.2)
    ours, theirs = multiprocessing.Pipe()
    stuck = multiprocessing.get_context("fork").Process(
        target=_stop_talking, args=(theirs,), daemon=True
    )
    process = as_forked(stuck, ours)
    theirs.close()
    item = WorkItem(SHORT, None, "", "", 1.0, 1.0, {})
    bench.ledger.expect(TABLE, SHARD, [(SHORT, None)])
    attempt = bench.ledger.start(TABLE, SHORT, fingerprint="f", worker="w", run_id="r")
    supervisor = Supervisor(bench.spec, bench.ledger, Tally(StageReport("s", SHARD)))
    slot = Slot(process, "", groups={SHORT: Group((item,))})
    supervisor.slots = [slot]
    supervisor.take(slot, Started(item, {TABLE: attempt}))
    while supervisor.slots:
        supervisor.listen()
    stuck.join(PATIENCE_S)
    assert stuck.exitcode == -signal.SIGKILL
    (entry,) = bench.ledger.entries(stage=TABLE, item_id=SHORT)
    assert "stopped talking, did not end within 0.2 s, and was killed" in (entry.error or "")


@pytest.mark.parametrize("force", [False, True])
def test_a_clip_that_kills_its_worker_twice_is_quarantined(bench: Bench, force: bool) -> None:
    bench.behave(LONG[0], die=99)
    report = run_stage(replace(bench.spec, force=force), workers=1)
    assert (report.done, report.quarantined, report.worker_deaths) == (3, 1, 2)
    entry = bench.ledger.entries(stage=TABLE, item_id=LONG[0])[0]
    assert entry.state is State.QUARANTINED
    assert "killed by SIGKILL" in (entry.error or "")
    assert (entry.error or "").endswith("last lines of its log:\nlast words of attempt 2")


def test_a_hanging_clip_is_killed_and_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit_s(started: Started) -> float:
        """Only what hangs is looked at, however slow the machine is."""
        hangs = started.item.item_id == SHORT and bench.attempts(SHORT) == 1
        return 0.5 if hangs else PATIENCE_S

    monkeypatch.setattr(supervision, "limit_s", limit_s)
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
    report = run_stage(replace(bench.spec, items=(SHORT,)), workers=1)
    assert (report.items, report.done) == (1, 1)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _run_in_session(spec) -> None:  # type: ignore[no-untyped-def]
    run_stage(spec, workers=1)


def test_killed_with_all_its_workers_only_what_was_in_flight_is_redone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = bench.folder / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    bench.behave(LONG[1], sleep_s=600)
    process = multiprocessing.get_context("spawn").Process(
        target=_run_in_session, args=(replace(bench.spec, items=tuple(LONG)),)
    )
    process.start()
    deadline = time.monotonic() + PATIENCE_S
    while not bench.attempts(LONG[1]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker = bench.ledger.entries(stage=TABLE, item_id=LONG[1])[0].worker or ""
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    pid = int(worker.split(":")[1])
    while is_alive(pid):  # the kernel kills the orphan
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(temporary.iterdir()) == [], "the killed run left files behind"
    report = run_stage(bench.rerun(), workers=1)
    assert (report.done, report.skipped) == (3, 1)
    assert bench.attempts(LONG[0]) == 1
    assert counts(bench) == [0, 1, 2, 0]


def test_two_schedulers_on_one_shard_share_the_work(bench: Bench) -> None:
    """Neither does what the other does; both end when all is done."""
    for clip in [*LONG, SHORT]:
        bench.behave(clip, sleep_s=0.3, hang=100)
    context = multiprocessing.get_context("spawn")
    specs = [replace(bench.spec, run_id=f"run{n}") for n in range(2)]
    runs = [context.Process(target=run_stage, args=(spec,)) for spec in specs]
    for run in runs:
        run.start()
    try:
        # Four interpreters start for this: on a busy machine that alone takes minutes.
        for run in runs:
            run.join(5 * PATIENCE_S)
        assert [run.exitcode for run in runs] == [0, 0], "None: it has not ended"
    finally:
        for run in runs:
            run.kill()
    assert [bench.attempts(c) for c in [*LONG, SHORT]] == [1, 1, 1, 1]
    assert counts(bench) == [0, 1, 2, 0]


def test_what_another_did_between_look_and_claim_is_not_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lane_module.claim

    def late(*given: Any) -> Any:
        monkeypatch.setattr(lane_module, "claim", real)
        run_stage(bench.rerun(run_id="other"), isolate=False)
        return real(*given)

    monkeypatch.setattr(lane_module, "claim", late)
    report = run_stage(bench.spec, isolate=False)
    assert (report.done, report.skipped) == (0, 4)
    assert [bench.attempts(c) for c in [*LONG, SHORT]] == [1, 1, 1, 1]


def _run_in_a_group(spec) -> None:  # type: ignore[no-untyped-def]
    os.setpgid(0, 0)
    run_stage(spec)


def test_a_run_that_was_stopped_for_long_changes_nothing_and_charges_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes, finishes late, and is fenced off; the clip is not held for lost with its run."""
    woken = bench.folder / "woken"
    bench.behave(SHORT, until=str(woken), hang=1)
    context = multiprocessing.get_context("spawn")
    late = context.Process(target=_run_in_a_group, args=(replace(bench.spec, items=(SHORT,)),))
    late.start()
    deadline = time.monotonic() + PATIENCE_S
    while not bench.attempts(SHORT):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(late.pid or 0, signal.SIGSTOP)
    with sqlite3.connect(bench.ledger.url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE work SET heartbeat_at = heartbeat_at - 1000")
    monkeypatch.setattr(takeover, "WATCH_S", 0.0)
    report = run_stage(bench.rerun(items=(SHORT,)), isolate=False)
    assert report.done == 1
    mine = bench.lake.provenance(TABLE, SHARD, SHORT)
    assert mine is not None
    assert mine.run_id == "again"
    assert bench.ledger.entries(stage=TABLE, item_id=SHORT)[0].lost == 1
    os.killpg(late.pid or 0, signal.SIGCONT)
    woken.touch()
    late.join(PATIENCE_S)
    assert late.exitcode == 0
    assert bench.attempts(SHORT) == 2
    assert bench.lake.provenance(TABLE, SHARD, SHORT) == mine
    entry = bench.ledger.entries(stage=TABLE, item_id=SHORT)[0]
    assert (entry.run_id, entry.state, entry.attempts, entry.lost) == ("again", State.DONE, 1, 0)
    assert counts(bench) == [0]


def test_a_clip_is_not_hung_because_its_whole_run_was_stopped(bench: Bench) -> None:
    """A laptop that was closed, a container that was frozen: no attempt is charged for it."""
    now = [0.0]
    supervisor = Supervisor(bench.spec, bench.ledger, Tally(StageReport("s", SHARD)))
    supervisor.clock = silence.AwakeClock(supervision.ASLEEP_S, lambda: now[0])
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    slot = Slot(as_forked(process, multiprocessing.Pipe()[0]), "")
    supervisor.slots = [slot]
    started = Started(WorkItem(SHORT, None, "", "", 1.0, 1.0, {}), {TABLE: Attempt(1, 1)})
    supervisor.take(slot, started)
    now[0] += 86_400
    supervisor.bury_hung()
    assert supervisor.slots == [slot]
    limit = supervision.limit_s(started)
    while supervisor.slots:
        now[0] += 1.0
        supervisor.bury_hung()
    assert limit - supervision.ASLEEP_S <= now[0] - 86_400 <= limit + 1


def test_a_unit_that_another_run_has_is_not_timed_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(bench.spec, bench.ledger, Tally(StageReport("s", SHARD)))
    slot = Slot(None, "")  # type: ignore[arg-type]
    said: list[int] = []

    def take(message: object) -> None:
        supervisor.take(slot, message)
        said.append(len(slot.current))

    lane = Lane(bench.spec, "me", take)
    (group,) = (
        g for g in plan(bench.spec, bench.lake, bench.ledger) if g.items[0].item_id == SHORT
    )
    (item,) = group.items
    bench.ledger.expect(TABLE, SHARD, [(SHORT, item.video_id)])

    def late(*_: object, **__: object) -> None:
        raise LateAttemptError("taken over")

    monkeypatch.setattr(lane.ledger, "finish", late)
    monkeypatch.setattr(lane.ledger, "fail", late)
    for behave in [{}, {"raise": 99}]:
        bench.behave(SHORT, **behave)
        held = claim(lane.ledger, bench.spec, "me", SHORT, "f", lane.todo.pending_tables(item, "f"))
        assert held is not None
        lane.attempt(Take(group), Place(), "f", held, None)
        assert (said[0], said[-1]) == (1, 0)
        said.clear()
        bench.ledger.interrupt(TABLE, SHORT, held.attempts[TABLE])


def test_what_was_dropped_is_no_failure(bench: Bench) -> None:
    bench.behave(SHORT, bad=True)
    assert [f.item_id for f in run_stage(bench.spec, isolate=False).failures] == [SHORT]
    assert bench.ledger.drop(item_id=SHORT) == 1
    assert run_stage(bench.rerun(), isolate=False).failures == []
    assert bench.attempts(SHORT) == 1
    # What would be made from it is dropped with it (the operator here makes no such table).
    later = bench.rerun(tables=("robot_mappings",), inputs=(TABLE,))
    assert SHORT not in {f.item_id for f in run_stage(later, isolate=False).failures}
    assert bench.ledger.entries(stage="robot_mappings", item_id=SHORT)[0].state is State.DROPPED
    bench.behave(SHORT)
    assert bench.ledger.release(item_id=SHORT) == 2
    assert run_stage(bench.rerun(run_id="third"), isolate=False).failures == []
    assert bench.attempts(SHORT) == 2
