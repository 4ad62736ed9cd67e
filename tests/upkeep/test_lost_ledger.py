"""A ledger that was lost, or is older than the lake: nothing is done again, and what is new wins,
whatever clocks said."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ego_assets.catalog import TABLES
from ego_assets.engine import runner as runner_module
from ego_assets.engine.choices import Part
from ego_assets.engine.outcome import StageReport
from ego_assets.engine.plan import StageSpec
from ego_assets.engine.runner import run_stage
from ego_assets.engine.workers import lane as lane_module
from ego_assets.upkeep.audit import repair, verify
from ego_assets.upkeep.leftovers import compact_leftovers
from ego_assets.upkeep.recovery import rebuild as rebuild_module
from ego_assets.upkeep.recovery.differences import find_differences
from ego_assets.upkeep.recovery.rebuild import ready, rebuild
from ego_assets.upkeep.rollback import rollback
from ego_assets.upkeep.staleness import find_stale
from resources.lake import Lake, file_item_id
from resources.ledger import Ledger, State
from resources.ledger.adoption import Adoption
from resources.ledger.contents import Contents
from resources.raw.places import FileLocation, record
from tests.engine.stage_bench import SHARD, Bench, blank_row, make_bench, provenance
from tests.resources.postgres import Postgres
from tests.resources.s3_server import new_bucket, s3_server

TABLE = "object_movements"
LONG = [f"long{'0' * 12}-{i:04d}" for i in range(3)]
SHORT = f"short{'0' * 11}-0000"
ALL_DONE = {
    "video_manifest": {State.DONE: 2},
    "clips": {State.DONE: 2},
    TABLE: {State.DONE: 4},
}
AHEAD_MS = 30 * 86_400_000


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return make_bench(tmp_path)


def ledger_folder(bench: Bench) -> Path:
    return Path(bench.ledger.url.removeprefix("sqlite:///")).parent


def lose(bench: Bench) -> None:
    shutil.rmtree(ledger_folder(bench))


def keep(bench: Bench) -> Path:
    """A backup of the ledger as it is."""
    copy = bench.folder / "backup"
    shutil.copytree(ledger_folder(bench), copy)
    return copy


def bring(bench: Bench, backup: Path) -> None:
    lose(bench)
    shutil.copytree(backup, ledger_folder(bench))


def run(bench: Bench, run_id: str, share: float = 0.1, **changes: Any) -> StageReport:
    spec = replace(bench.spec, run_id=run_id, settings={"touch_share": share}, **changes)
    return run_stage(spec, isolate=False)


def shares(bench: Bench) -> list[float]:
    rows = bench.lake.read(TABLE, SHARD).sort_by("clip_id")
    return [round(x, 3) for x in rows["displacement_px"].to_pylist()]


def runs(bench: Bench) -> set[str | None]:
    return {e.run_id for e in bench.ledger.entries(stage=TABLE)}


def files(bench: Bench) -> dict[str, bytes]:
    root = bench.lake.root
    kept = [p for p in root.rglob("*") if p.is_file() and "_locks" not in p.parts]
    return {str(p.relative_to(root)): p.read_bytes() for p in kept if "_ledger" not in p.parts}


def clock_is_ahead(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "_wall_ms", lambda _: int(time.time() * 1000) + AHEAD_MS)


def told(bench: Bench) -> set[tuple[str, int]]:
    found = [p for p in verify(bench.lake, bench.ledger) if p.table == TABLE]
    return {(p.kind, len(p.units)) for p in found}


# -- lost ------------------------------------------------------------------------------------------


def test_a_run_after_the_loss_computes_nothing(bench: Bench) -> None:
    run(bench, "first")
    before, entries = files(bench), bench.ledger.entries(stage=TABLE)
    lose(bench)
    report = run(bench, "second")
    assert (report.done, report.skipped, report.taken_over) == (0, 4, 4)
    assert files(bench) == before
    again = bench.ledger.entries(stage=TABLE)
    told = [(e.item_id, e.shard, e.video_id, e.fingerprint, e.run_id, e.token) for e in again]
    assert told == [
        (e.item_id, e.shard, e.video_id, e.fingerprint, e.run_id, e.token) for e in entries
    ]


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_all_of_a_lake_is_entered_at_once(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On S3 with Postgres, as where many machines work on it."""
    if where == "folder":
        _all_is_entered(make_bench(tmp_path), f"sqlite:///{tmp_path}/another.sqlite")
        return
    with s3_server(monkeypatch), Postgres.started() as server:
        bench = make_bench(tmp_path, lake=Lake(f"s3://{new_bucket()}/lake"))
        ledger = Ledger(server.new_database())
        bench = replace(bench, ledger=ledger, spec=replace(bench.spec, ledger_url=ledger.url))
        _all_is_entered(bench, server.new_database())


def _all_is_entered(bench: Bench, url: str) -> None:
    run(bench, "first")
    middle = bench.lake.provenances("clips", SHARD)
    new = Ledger(url)
    said: list[str] = []
    assert ready(bench.lake, new, said.append) is new
    assert said, "a person is not told that the ledger was lost"
    assert new.counts() == ALL_DONE
    assert {e.fingerprint for e in new.entries(stage="clips")} == {
        p.fingerprint for p in middle.values()
    }
    ready(bench.lake, new, said.append)
    assert len(said) == 1
    assert not find_differences(bench.lake, new).found
    assert verify(bench.lake, new) == []
    report = run_stage(
        replace(bench.rerun(ledger_url=url), settings={"touch_share": 0.1}), isolate=False
    )
    assert (report.done, report.skipped) == (0, 4)


def test_it_is_looked_at_once_and_then_costs_one_query(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(bench, "first")
    ready(bench.lake, bench.ledger)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the lake was looked at")

    for name in ("list", "open", "read", "walk", "lock"):
        monkeypatch.setattr(bench.lake.storage, name, refuse)
    ready(bench.lake, bench.ledger)


def test_killed_at_any_step_it_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each statement of the database, each read of the lake."""
    run(bench, "first")
    lose(bench)
    bench.ledger.open()
    left = [0]

    def step(*_: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1

    sa.event.listen(bench.ledger._engine(), "before_cursor_execute", step)
    for name in ("list", "open", "walk"):
        real = getattr(bench.lake.storage, name)

        def call(*arguments: Any, real: Callable[..., Any] = real, **options: Any) -> Any:
            step()
            return real(*arguments, **options)

        monkeypatch.setattr(bench.lake.storage, name, call)
    for steps in range(200):
        left[0] = steps
        try:
            ready(bench.lake, bench.ledger)
            break
        except KeyboardInterrupt:
            left[0] = -1
            assert not Adoption(bench.ledger).is_whole()
            with bench.ledger.transaction() as connection:  # what half of it did is gone again
                if steps % 3 == 0:
                    connection.execute(sa.text("DELETE FROM work"))
                    connection.execute(sa.text("DELETE FROM lake_files"))
    assert 10 < steps < 200
    left[0] = -1
    assert bench.ledger.counts() == ALL_DONE
    assert not find_differences(bench.lake, bench.ledger).found


def _open(location: str, url: str, said: multiprocessing.Queue) -> None:
    said.put(ready(Lake(location), Ledger(url)).counts())


def test_of_many_that_open_it_at_once_none_sees_half_of_it(bench: Bench) -> None:
    run(bench, "first")
    lose(bench)
    context = multiprocessing.get_context("spawn")
    said = context.Queue()
    arguments = (bench.lake.location, bench.ledger.url, said)
    opening = [context.Process(target=_open, args=arguments) for _ in range(3)]
    for process in opening:
        process.start()
    assert [said.get(timeout=120) for _ in opening] == [ALL_DONE] * 3
    for process in opening:
        process.join(60)
        assert process.exitcode == 0


def test_what_was_made_without_a_gpu_still_waits_for_one(bench: Bench) -> None:
    why = "no GPU was free within 5 s"
    spec = replace(bench.spec, provisional=why)
    run_stage(spec, isolate=False, real=replace(bench.spec, operator_version="gpu"))
    waiting = bench.ledger.waiting_for_gpu()
    assert waiting == [(TABLE, SHARD, 4, why)]
    lose(bench)
    ready(bench.lake, bench.ledger)
    assert bench.ledger.waiting_for_gpu() == waiting
    # Without a device nothing is made again; with one, all of it is.
    again = replace(spec, run_id="again")
    report = run_stage(again, isolate=False, real=replace(bench.spec, operator_version="gpu"))
    assert report.done == 0
    assert run(bench, "real", operator_version="gpu").done == 4


def test_a_ledger_that_is_in_use_is_not_one_that_was_lost(bench: Bench) -> None:
    """Made by an earlier release, or a copy: that it lacks something is told, not hidden."""
    run(bench, "first")
    with bench.ledger.transaction() as connection:
        connection.execute(sa.text("DELETE FROM facts"))
    ready(bench.lake, bench.ledger)
    assert "clips" not in bench.ledger.counts()
    assert {d.table for d in find_differences(bench.lake, bench.ledger).found} == {
        "video_manifest",
        "clips",
    }


def test_what_a_stage_began_after_the_loss_is_made_whole(bench: Bench) -> None:
    run(bench, "first")
    lose(bench)
    run(bench, "second")
    assert "clips" not in bench.ledger.counts()
    ready(bench.lake, bench.ledger)
    assert bench.ledger.counts() == ALL_DONE


@pytest.mark.parametrize("when", ["planned", "published"])
def test_a_ledger_that_is_lost_late_in_a_stage_is_made_whole(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Whatever the stage still enters: the next who opens it enters the rest."""
    module, name = {
        "planned": (runner_module.planning, "plan_from"),
        "published": (lane_module, "publish"),
    }[when]
    real = getattr(module, name)
    left = [1 if when == "planned" else 4]  # the last of four clips

    def losing(*given: Any) -> Any:
        found = real(*given)
        left[0] -= 1
        if left[0] == 0:
            lose(bench)
        return found

    monkeypatch.setattr(module, name, losing)
    report = run(bench, "first")
    assert (report.failed, left) == (0, [0])
    ready(bench.lake, bench.ledger)
    assert bench.ledger.counts() == ALL_DONE


def test_units_that_are_none_of_the_shard_are_not_entered(bench: Bench) -> None:
    """Left by a run that was killed after a video had been cut otherwise."""
    run(bench, "first")
    row = bench.lake.read(TABLE, SHARD).to_pylist()[0]
    gone = f"long{'0' * 12}-0007"
    batch = TABLES[TABLE].from_rows([row | {"clip_id": gone}])
    bench.lake.publish(TABLE, SHARD, gone, batch, provenance("f"))
    lose(bench)
    assert rebuild(bench.lake, bench.ledger).found[TABLE] == 4
    assert gone not in {e.item_id for e in bench.ledger.entries()}
    assert not find_differences(bench.lake, bench.ledger).found
    assert ("extra", 0) in told(bench)


def test_what_was_not_done_waits_again(bench: Bench) -> None:
    """A run had been at the shard: a retry takes it up, and tries again what was given up."""
    bench.behave(SHORT, **{"raise": 9})
    run(bench, "first", max_attempts=1)
    assert bench.ledger.counts()[TABLE] == {State.DONE: 3, State.QUARANTINED: 1}
    lose(bench)
    ready(bench.lake, bench.ledger)
    assert bench.ledger.counts()[TABLE] == {State.DONE: 3, State.PENDING: 1}
    assert bench.ledger.unfinished_shards() == [SHARD]


def test_who_owns_a_video_and_who_came_too_late_is_known_again(tmp_path: Path) -> None:
    lake, ledger = Lake(tmp_path / "lake"), Ledger.beside(tmp_path)
    owner, copy, gone = "/raw/a.mp4", "/raw/b.mp4", "/raw/c.mp4"
    raw = [{"uri": uri, "byte_size": 1, "duration_s": 1.0} for uri in (owner, copy, gone)]
    lake.write_shard(SHARD, {"files": raw})
    details = {owner: None, copy: "same bytes as /raw/a.mp4", gone: "moved away: same bytes"}
    for uri, detail in details.items():
        row = blank_row("video_manifest", video_id="v" * 16, shard=SHARD, uri=uri, byte_size=1)
        row |= {"sha256": "v" * 64, "accepted": detail is None, "reject_detail": detail}
        row["reject_reason"] = "duplicate" if detail else None
        batch = TABLES["video_manifest"].from_rows([row])
        lake.publish("video_manifest", SHARD, file_item_id(uri), batch, provenance("m"))
    ready(lake, ledger)
    contents = Contents(ledger)
    assert contents.owner("v" * 16) == (owner, SHARD)
    contents.disown(owner)
    (heir,) = contents.duplicates_without_owner("video_manifest", 9)
    assert heir.file_id == file_item_id(copy)
    rebuild(lake, ledger)  # what a person, or the sensor, has let go of is not taken back
    assert contents.owner("v" * 16) is None


def test_of_two_owners_the_later_one_counts_though_the_first_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "SHARDS_AT_ONCE", 1)
    lake, ledger = Lake(tmp_path / "lake"), Ledger.beside(tmp_path)
    for number, (uri, token) in enumerate({"/raw/a.mp4": 5, "/raw/b.mp4": 9}.items()):
        shard = f"20260101-000{number}"
        lake.write_shard(shard, {"files": [{"uri": uri, "byte_size": 1, "duration_s": 1.0}]})
        row = blank_row("video_manifest", video_id="v" * 16, shard=shard, uri=uri, byte_size=1)
        batch = TABLES["video_manifest"].from_rows([row | {"sha256": "v" * 64, "accepted": True}])
        made = replace(provenance("m"), token=token)
        lake.publish("video_manifest", shard, file_item_id(uri), batch, made)
    record(lake, SHARD, {file_item_id("/raw/a.mp4"): FileLocation("/raw/z.mp4", "v" * 64)})
    ready(lake, ledger)
    assert Contents(ledger).owner("v" * 16) == ("/raw/b.mp4", "20260101-0001")


def test_a_damaged_file_keeps_the_rest_from_nothing(bench: Bench) -> None:
    run(bench, "first")
    bench.lake.compact("clips", SHARD, None)
    path = bench.lake.root / TABLE / f"{SHARD}.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    lose(bench)
    made = rebuild(bench.lake, bench.ledger)
    assert [p for p in made.problems if str(path) in p]
    assert TABLE not in bench.ledger.counts()
    (found,) = find_differences(bench.lake, bench.ledger).found
    assert (found.table, found.shard) == (TABLE, SHARD)
    assert repair(bench.lake, bench.ledger, verify(bench.lake, bench.ledger))["files"] == 1
    assert not find_differences(bench.lake, bench.ledger).found
    assert run(bench, "second").done == 4


def test_a_live_claim_is_left_alone(bench: Bench) -> None:
    run(bench, "first")
    bench.ledger.start(TABLE, SHORT, fingerprint="g", worker="elsewhere:1:1", run_id="now")
    rows = bench.lake.read(TABLE, SHARD, items=[SHORT])
    newer = replace(provenance("h"), token=bench.ledger.entries(item_id=SHORT)[0].token + 9)
    bench.lake.publish(TABLE, SHARD, SHORT, rows, newer)
    rebuild(bench.lake, bench.ledger)
    (entry,) = bench.ledger.entries(item_id=SHORT)
    assert (entry.state, entry.run_id) == (State.RUNNING, "now")
    with bench.ledger.transaction() as connection:
        connection.execute(sa.text("UPDATE work SET heartbeat_at = 1"))
    rebuild(bench.lake, bench.ledger)
    (entry,) = bench.ledger.entries(item_id=SHORT)
    assert (entry.state, entry.fingerprint) == (State.DONE, "h")


# -- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["ledger", "table", "unit"])
def test_new_rows_win_over_those_of_a_clock_that_was_ahead(bench: Bench, lost: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock_is_ahead(patch)
        run(bench, "first")
    if lost == "ledger":
        lose(bench)
    else:
        only = f" AND unit_id = '{SHORT}'" if lost == "unit" else ""
        with bench.ledger.transaction() as connection:
            connection.execute(sa.text(f"DELETE FROM work WHERE stage = '{TABLE}'{only}"))
    assert run(bench, "second", 0.2).done == 4
    assert shares(bench) == [0.2] * 4
    assert runs(bench) == {"second"}
    assert told(bench) == set()


def test_new_rows_win_over_fragments_floors_and_what_is_carried(bench: Bench) -> None:
    """Whatever an attempt may leave: each file has a token, and the next one's is higher."""
    run(bench, "first", 0.1)
    with pytest.MonkeyPatch.context() as patch:
        clock_is_ahead(patch)
        run(bench, "second", 0.2)
    rollback(bench.lake, bench.ledger, "first")  # its floors are of the future, too
    far = int(time.time() * 1000) + 2 * AHEAD_MS
    bench.lake.write_carried(bench.spec.operator, SHARD, LONG[0], {"count": 50}, far, "x")
    lose(bench)
    assert run(bench, "third", 0.3).done == 4
    assert shares(bench) == [0.3] * 4
    assert bench.ledger.entries(item_id=LONG[0])[0].token > far
    # What the first clip left for the second one is read by a run that begins there.
    bench.ledger.requeue(TABLE, LONG[1:2], "test")
    run(bench, "fourth", 0.3)
    counts = {r["clip_id"]: r["path_length"] for r in bench.lake.read(TABLE, SHARD).to_pylist()}
    assert [counts[c] for c in LONG] == [0, 1, 2]


def test_a_unit_that_is_new_again_has_a_higher_token_than_all_versions(bench: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock_is_ahead(patch)
        run(bench, "first", 0.1)
        run(bench, "second", 0.2)
    newest = max(e.token for e in bench.ledger.entries())
    bench.ledger.forget(TABLE, SHARD, [])
    bench.lake.compact(TABLE, SHARD, [])
    run(bench, "third", 0.3)
    assert min(e.token for e in bench.ledger.entries(stage=TABLE)) > newest


def test_an_attempt_whose_rows_do_not_count_is_told_and_made_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another ledger was at work on the lake meanwhile, and its clock is ahead."""
    run(bench, "first")
    real = bench.lake.read(TABLE, SHARD, items=[SHORT])
    far = int(time.time() * 1000) + AHEAD_MS
    publish, interfered = Lake.publish, []

    def with_interference(lake: Lake, table: str, shard: str, item: str, *rest: Any) -> Any:
        if item == SHORT and not interfered:
            interfered.append(item)
            publish(lake, table, shard, item, real, replace(provenance("x"), token=far))
        return publish(lake, table, shard, item, *rest)

    monkeypatch.setattr(Lake, "publish", with_interference)
    report = run(bench, "second", 0.2)
    assert len(report.outdone) == 1
    assert SHORT in report.outdone[0]
    assert report.done == 4
    assert shares(bench) == [0.2] * 4
    assert told(bench) == set()


def test_what_another_ledger_did_meanwhile_is_not_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that outdo an attempt may be just those that it was to make."""
    far = int(time.time() * 1000) + AHEAD_MS
    publish, interfered = Lake.publish, []

    def with_interference(
        lake: Lake, table: str, shard: str, item: str, batch: Any, origin: Any
    ) -> Any:
        if item == SHORT and not interfered:
            interfered.append(item)
            publish(lake, table, shard, item, batch, replace(origin, token=far, run_id="other"))
        return publish(lake, table, shard, item, batch, origin)

    monkeypatch.setattr(Lake, "publish", with_interference)
    run(bench, "first")
    assert bench.attempts(SHORT) == 1
    assert bench.ledger.entries(item_id=SHORT)[0].run_id == "other"
    assert told(bench) == set()


@pytest.mark.parametrize("isolate", [False, True])
def test_a_ledger_that_is_lost_while_a_stage_runs(bench: Bench, isolate: bool) -> None:
    for clip in [*LONG, SHORT]:
        bench.behave(clip, until="go")
    reports: list[StageReport] = []
    spec = replace(bench.spec, settings={"touch_share": 0.1})
    stage = threading.Thread(
        target=lambda: reports.append(run_stage(spec, workers=2, isolate=isolate))
    )
    stage.start()
    deadline = time.monotonic() + 120
    while not bench.attempts(LONG[0]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lose(bench)
    (bench.folder / "raw" / "go").touch()
    stage.join(120)
    assert reports
    assert reports[0].failed == 0
    assert shares(bench) == [0.1] * 4
    assert {e.state for e in bench.ledger.entries(stage=TABLE)} == {State.DONE}
    assert told(bench) == set()
    assert all(bench.attempts(c) == 1 for c in [*LONG, SHORT])


# -- older than the lake ---------------------------------------------------------------------------


@pytest.fixture
def older(bench: Bench) -> Iterator[Bench]:
    """The lake holds what a second run made, the ledger says what the first one did."""
    first_run(bench)
    backup = keep(bench)
    run(bench, "second", 0.2)
    bring(bench, backup)
    yield bench


def first_run(bench: Bench) -> None:
    """After which the ledger knows of all tables."""
    run(bench, "first", 0.1)
    rebuild(bench.lake, bench.ledger)


def stale_units(bench: Bench, share: float) -> dict[str, int]:
    spec: StageSpec = replace(bench.spec, settings={"touch_share": share})
    by_lake = find_differences(bench.lake, bench.ledger).shards
    recipe = [[Part(spec)]]
    (found,) = find_stale(bench.lake, bench.ledger, lambda _: recipe, [SHARD], by_lake)
    return dict(found.items)


def test_an_older_ledger_is_told_and_mended(older: Bench) -> None:
    (found,) = find_differences(older.lake, older.ledger).found
    assert (found.table, found.shard) == (TABLE, SHARD)
    assert stale_units(older, 0.1) == {TABLE: 4}
    assert stale_units(older, 0.2) == {}
    assert told(older) == {("newer", 4)}
    done = repair(older.lake, older.ledger, verify(older.lake, older.ledger))
    assert (done["taken_over"], done["units"], done["files"]) == (4, 0, 0)
    assert not find_differences(older.lake, older.ledger).found
    assert runs(older) == {"second"}
    assert stale_units(older, 0.1) == {TABLE: 4}
    assert run(older, "third", 0.2).done == 0
    assert run(older, "fourth", 0.1).done == 4
    assert shares(older) == [0.1] * 4


def test_what_an_older_ledger_has_never_heard_of_is_judged_by_the_lake(bench: Bench) -> None:
    rebuild(bench.lake, bench.ledger)
    backup = keep(bench)
    run(bench, "first", 0.1)
    bring(bench, backup)
    assert stale_units(bench, 0.1) == {}
    assert stale_units(bench, 0.2) == {TABLE: 4}


def test_a_run_takes_over_what_is_newer_and_does_only_what_is_asked(older: Bench) -> None:
    assert run(older, "third", 0.2).taken_over == 4
    assert {older.attempts(c) for c in [*LONG, SHORT]} == {2}
    assert shares(older) == [0.2] * 4


def test_of_an_older_ledger_too_few_units_are_known(bench: Bench) -> None:
    """What it does not know is nobody's to drop: not for the upkeep, not for a rollback."""
    run(bench, "first", 0.1, items=(SHORT,))
    backup = keep(bench)
    run(bench, "second", 0.2)
    bring(bench, backup)
    with bench.ledger.transaction() as connection:
        connection.execute(sa.text(f"DELETE FROM work WHERE unit_id <> '{SHORT}'"))
    rows = bench.lake.read(TABLE, SHARD, items=LONG[:1])
    token = bench.lake.provenances(TABLE, SHARD)[LONG[0]].token
    bench.lake.publish(TABLE, SHARD, LONG[0], rows, replace(provenance("f"), token=token + 1))
    compact_leftovers(bench.lake, bench.ledger)
    assert bench.lake.read(TABLE, SHARD).num_rows == 4
    rollback(bench.lake, bench.ledger, "first")
    rollback(bench.lake, bench.ledger, "second")
    assert shares(bench) == [0.2] * 4
    assert bench.ledger.counts()[TABLE] == {State.DONE: 4}


def test_rows_that_are_older_than_the_ledger_are_made_again(bench: Bench) -> None:
    """The lake was brought back from a backup, or lost a file."""
    first_run(bench)
    shutil.copytree(bench.lake.root / TABLE, bench.folder / "older")
    run(bench, "second", 0.2)
    shutil.rmtree(bench.lake.root / TABLE)
    shutil.copytree(bench.folder / "older", bench.lake.root / TABLE)
    assert [d.table for d in find_differences(bench.lake, bench.ledger).found] == [TABLE]
    assert told(bench) == {("stale", 4)}
    repair(bench.lake, bench.ledger, verify(bench.lake, bench.ledger))
    assert run(bench, "third", 0.2).done == 4
    shutil.rmtree(bench.lake.root / TABLE)
    assert [d.table for d in find_differences(bench.lake, bench.ledger).found] == [TABLE]
    assert told(bench) == {("missing", 4)}
    repair(bench.lake, bench.ledger, verify(bench.lake, bench.ledger))
    assert not find_differences(bench.lake, bench.ledger).found
    assert run(bench, "fourth", 0.2).done == 4
    assert not find_differences(bench.lake, bench.ledger).found


def test_rows_of_a_table_that_are_gone_from_the_ledger_are_told(bench: Bench) -> None:
    first_run(bench)
    assert not find_differences(bench.lake, bench.ledger).found
    with bench.ledger.transaction() as connection:
        connection.execute(sa.text(f"DELETE FROM work WHERE unit_id = '{SHORT}'"))
    (found,) = find_differences(bench.lake, bench.ledger).found
    assert "1 work items" in found.why


def test_what_agrees_is_opened_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run(bench, "first", 0.1)
    bench.lake.compact("clips", SHARD, None)
    bench.lake.compact("video_manifest", SHARD, None)
    rebuild(bench.lake, bench.ledger)
    assert not find_differences(bench.lake, bench.ledger).found

    def refuse(key: str) -> Any:
        raise AssertionError(f"{key} was opened")

    monkeypatch.setattr(bench.lake.storage, "open", refuse)
    assert not find_differences(bench.lake, bench.ledger).found


def test_what_there_is_no_time_for_is_told(older: Bench) -> None:
    found = find_differences(older.lake, older.ledger, budget_s=-1.0)
    assert found.not_compared > 0
    assert "`ego rebuild-ledger`" in str(found)


# -- compactions -----------------------------------------------------------------------------------


def test_a_compaction_keeps_what_another_run_has_planned_since(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video was cut otherwise while a stage went on: the clips of the new cut are not its to
    drop."""
    new = f"long{'0' * 12}-0003"
    row = blank_row(TABLE, **bench_row(new))
    real = Lake.compact

    def with_another_run(lake: Lake, table: str, shard: str, items: Any) -> int:
        if table == TABLE:
            bench.ledger.expect(TABLE, SHARD, [(new, new[:16])])
            attempt = bench.ledger.start(TABLE, new, fingerprint="f", worker="w", run_id="other")
            origin = replace(provenance("f"), token=attempt.token)
            batch = TABLES[TABLE].from_rows([row])
            published = lake.publish(TABLE, SHARD, new, batch, origin)
            bench.ledger.finish(TABLE, new, attempt, published.sha256)
        return real(lake, table, shard, items)

    monkeypatch.setattr(Lake, "compact", with_another_run)
    run(bench, "first")
    assert new in bench.lake.provenances(TABLE, SHARD)


def bench_row(clip: str) -> dict[str, Any]:
    return {
        "video_id": clip[:16],
        "shard": SHARD,
        "clip_id": clip,
        "track_id": "track",
        "start_frame": 0,
        "end_frame": 1,
        "start_pts_s": 0.0,
        "end_pts_s": 0.1,
        "state": "still",
        "displacement": 0.0,
        "path_length": 0.0,
        "mean_speed": 0.0,
        "displacement_px": 0.0,
        "scale_kind": "arbitrary",
        "touch_share": 0.0,
        "backend": "fake",
        "quality_tier": "baseline",
    }


def test_the_oldest_version_that_is_kept_can_be_brought_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not make room for what it replaces."""
    monkeypatch.setenv("EGO_KEEP_VERSIONS", "2")
    for number in range(3):
        run(bench, f"run{number}", 0.1 * (number + 1))
    rollback(bench.lake, bench.ledger, "run0")
    assert shares(bench) == [0.1] * 4
    assert told(bench) == set()
