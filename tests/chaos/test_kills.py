"""Killed at random moments, and again: then everything is there exactly once, and nothing else.

EGO_CHAOS_KILLS sets how many kills each test deals out.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from ego_assets.catalog import TABLES
from ego_assets.engine.plan import StageSpec
from ego_assets.engine.runner import run_stage
from ego_assets.engine.workers.results import CLIPS_BEHIND
from resources.environment import keep_count
from resources.lake import Lake, Provenance, history
from resources.ledger import BusyError, LateAttemptError, Ledger, State
from resources.processes import process_name
from tests.engine.stage_bench import SHARD, make_bench
from tests.resources.s3_server import new_bucket, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.chaos]
WRITER_KILLS = int(os.environ.get("EGO_CHAOS_KILLS", "160"))
S3_KILLS = int(os.environ.get("EGO_CHAOS_KILLS", "40"))
RUN_KILLS = int(os.environ.get("EGO_CHAOS_KILLS", "50"))
TABLE = "clips"
ITEMS = [f"{n:016x}" for n in range(8)]

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.chaos.test_kills", "ego_assets.engine.workers.worker"])


def clip_rows(item: str, generation: int) -> list[dict[str, Any]]:
    fields = dict.fromkeys(TABLES[TABLE].model_fields)
    return [
        fields
        | {
            "video_id": item,
            "shard": SHARD,
            "clip_id": f"{item}-{n:04d}",
            "clip_index": n,
            "take_id": f"{item}-t000",
            "index_in_take": n,
            "start_frame": n,
            "end_frame": n + 1,
            "start_pts_s": float(n),
            "end_pts_s": n + 1.0,
            "context_frames": 0,
            "split_reason": "start",
            "estimated_cost": float(generation),
        }
        for n in range(3)
    ]


def write_generation(
    root: str, url: str, generation: int, seed: int, environment: dict[str, str] | None = None
) -> None:
    """What workers do, bare: claim, publish, finish; and compact every now and then."""
    os.environ.update(environment or {})
    lake, ledger, dice = Lake(root), Ledger(url), random.Random(seed)
    fingerprint = f"g{generation:06d}"
    while True:
        done = {
            e.item_id
            for e in ledger.entries(stage=TABLE, states=[State.DONE])
            if e.fingerprint == fingerprint
        }
        todo = [u for u in ITEMS if u not in done]
        if not todo:
            break
        item = dice.choice(todo)
        try:
            attempt = ledger.start(
                TABLE, item, fingerprint=fingerprint, worker=process_name(), run_id="r"
            )
            names = dict.fromkeys(Provenance.__dataclass_fields__, "x")
            origin = Provenance(
                **names | {"attempt": 1, "fingerprint": fingerprint, "token": attempt.token}
            )
            batch = TABLES[TABLE].from_rows(clip_rows(item, generation))
            published = lake.publish(TABLE, SHARD, item, batch, origin)
            ledger.finish(TABLE, item, attempt, published.sha256)
        except (BusyError, LateAttemptError):
            time.sleep(0.01)
        if dice.random() < 0.3:
            lake.compact(TABLE, SHARD, ITEMS)
    lake.compact(TABLE, SHARD, ITEMS)


def is_local(lake: Lake) -> bool:
    return not lake.location.startswith("s3://")


def kill_after(target: Callable[..., None], arguments: tuple[Any, ...], seconds: float) -> bool:
    """Run in a process of its own and kill all of it. Tells whether it was still at it."""
    process = FORKS.Process(target=target, args=arguments)
    process.start()
    process.join(seconds)
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.join()
    psutil.wait_procs(children, timeout=30)
    assert process.exitcode in {0, -signal.SIGKILL}, "it failed by itself"
    return process.exitcode != 0


@pytest.fixture(params=["folder", "s3"])
def lake(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lake]:
    if request.param == "folder":
        yield Lake(tmp_path / "lake")
        return
    with s3_server(monkeypatch):
        yield Lake(f"s3://{new_bucket()}/lake")


def test_killed_writers_and_compactors_lose_and_double_nothing(lake: Lake, tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    ledger.expect(TABLE, SHARD, [(u, u) for u in ITEMS])
    dice = random.Random(7)
    write_generation(lake.location, ledger.url, 0, 0)
    kills = generation = 0
    # A writer to S3 begins with a client, and does less in the same time.
    wanted, longest_s = (WRITER_KILLS, 0.25) if is_local(lake) else (S3_KILLS, 2.0)
    while kills < wanted:
        generation += 1
        arguments = (lake.location, ledger.url, generation, dice.randrange(2**32), dict(os.environ))
        kills += kill_after(write_generation, arguments, dice.uniform(0.02, longest_s))
        # At no time does a reader see an item twice, or not at all, or half of it.
        rows = lake.read(TABLE, SHARD).to_pylist()
        assert Counter(r["video_id"] for r in rows) == dict.fromkeys(ITEMS, 3)
        for item in ITEMS:
            assert len({r["estimated_cost"] for r in rows if r["video_id"] == item}) == 1
    generation += 1
    write_generation(lake.location, ledger.url, generation, 0)
    rows = lake.read(TABLE, SHARD).to_pylist()
    wanted = [row for item in ITEMS for row in clip_rows(item, generation)]
    assert sorted(rows, key=lambda r: r["clip_id"]) == wanted
    assert ledger.counts() == {TABLE: {State.DONE: len(ITEMS)}}
    assert lake.storage.list(f"{TABLE}/_fragments/{SHARD}") == [], "leftovers"
    assert len(lake.storage.list(f"{TABLE}/_checksums")) == 1
    assert len(history.kept(lake, TABLE, SHARD)) <= keep_count()
    if is_local(lake):
        lake.storage.sweep_aside(0)
        assert not list(lake.root.glob(".aside/*"))
    else:
        assert lake.storage.list(f"_locks/{TABLE}.{SHARD}") == []


def run_two_workers(spec: StageSpec) -> None:
    run_stage(spec, workers=2)


@pytest.mark.heavy
def test_killed_runs_redo_only_what_was_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = {f"v{n}": 6 for n in range(10)}
    (tmp_path / "undisturbed").mkdir()
    (tmp_path / "killed").mkdir()
    calm = make_bench(tmp_path / "undisturbed", videos)
    run_stage(calm.spec, workers=2)
    bench = make_bench(tmp_path / "killed", videos)
    clips = [r["clip_id"] for r in bench.lake.read("clips", SHARD).to_pylist()]
    for clip in clips:
        bench.behave(clip, sleep_s=0.2, hang=1000)
    dice = random.Random(11)
    kills = lost = 0
    # Forced again and again, so that there is always something to be killed at.
    for run in range(RUN_KILLS):
        behind = run % 2 == 1
        spec = bench.rerun(
            run_id=f"run{run // 16}", force=True, max_lost=1000, publish_behind=behind
        )
        if kill_after(run_two_workers, (spec,), dice.uniform(0.3, 2.5)):
            kills += 1
            lost += 2 * (1 + CLIPS_BEHIND * behind)
    before = sum(bench.attempts(c) for c in clips)
    runs = RUN_KILLS // 16 + 1
    report = run_stage(replace(bench.spec, max_lost=1000), workers=2)
    assert report.failures == []
    assert bench.lake.read("object_movements", SHARD) == calm.lake.read("object_movements", SHARD)
    assert not list(bench.lake.root.glob("object_movements/_fragments/*/*"))
    assert set(bench.ledger.counts()["object_movements"]) == {State.DONE}
    assert kills > RUN_KILLS // 2, "the kills came too late to mean anything"
    # Lost work: what two workers had in flight, a kill.
    assert before <= len(clips) * runs + lost
