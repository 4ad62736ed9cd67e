"""Telemetry through the stages of a shard: rows in the lake, files beside a video, erasure."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ego_assets.engine.plan import plan
from ego_assets.upkeep.erasure import erase
from ego_assets.upkeep.erasure.survey import find_videos, survey
from resources.ledger import State
from tests.engine import raw_bench
from tests.engine.raw_bench import RawBench
from tests.support.erased import bytes_with
from tests.telemetry.made_telemetry import Motion, write_video
from tests.telemetry.test_gpmf import payloads

STAGES = ("probe", "split", "telemetry")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RawBench:
    """Two videos without telemetry, and one of a GoPro, g.mp4."""
    monkeypatch.setitem(raw_bench.STAGES, "telemetry", "telemetry")
    made = RawBench(tmp_path, videos=2)
    write_video(made.raw / "g.mp4", payloads(Motion(), 2))
    return made


def sources(bench: RawBench) -> dict[str, tuple[str, int]]:
    """{file: (source, faults)}."""
    (shard,) = bench.lake.shards()
    names = {r["video_id"]: Path(r["uri"]).name for r in bench.manifest()}
    rows = bench.lake.read("telemetry_sources", shard).to_pylist()
    return {names[r["video_id"]]: (r["source"], r["fault_count"]) for r in rows}


def test_a_shard_has_the_telemetry_that_there_is(bench: RawBench) -> None:
    report = bench.run(stages=STAGES)["telemetry"]
    assert report.failed == 0 and sources(bench) == {"g.mp4": ("gpmd", 0)}
    (shard,) = bench.lake.shards()
    rows = bench.lake.read("telemetry", shard)
    assert rows["accel_mps2"].null_count < rows.num_rows and rows.num_rows >= 400
    entries = bench.ledger.entries(stage="telemetry", shard=shard)
    assert [e.state for e in entries] == [State.DONE] * 3


def test_a_file_beside_a_video_is_read_and_read_again_when_it_changes(bench: RawBench) -> None:
    beside = bench.raw / "a.telemetry.csv"
    bench.run(stages=STAGES)
    clips = bench.work()
    beside.write_text("time_s,iso\n0,100\n0.5,x\n")
    bench.run(stages=STAGES)
    assert sources(bench)["a.mp4"] == ("csv", 1)
    beside.write_text("time_s,iso\n0,100\n0.5,200\n")
    bench.run(stages=STAGES)
    assert sources(bench)["a.mp4"] == ("csv", 0)
    after = bench.work()
    assert {k: v for k, v in after.items() if not k[0].startswith("telemetry")} == {
        k: v for k, v in clips.items() if not k[0].startswith("telemetry")
    }
    again = bench.run(stages=STAGES)["telemetry"]
    assert bench.work() == after and again.failed == 0
    beside.unlink()
    bench.run(stages=STAGES)
    assert set(sources(bench)) == {"g.mp4"}


def test_work_is_planned_as_it_was_while_the_disk_is_away_or_a_video_is_renamed(
    bench: RawBench,
) -> None:
    (bench.raw / "a.telemetry.csv").write_text("time_s,iso\n0,100\n")
    bench.run(stages=STAGES)
    (shard,) = bench.lake.shards()

    def planned() -> dict[str, str]:
        groups = plan(bench.spec("telemetry", shard), bench.lake, bench.ledger)
        return {i.item_id: i.base_fingerprint for g in groups for i in g.items}

    before = planned()
    bench.raw.rename(bench.root / "unmounted")
    assert planned() == before
    (bench.root / "unmounted").rename(bench.raw)
    for name in ("mp4", "telemetry.csv"):
        (bench.raw / f"a.{name}").rename(bench.raw / f"z.{name}")
    work = bench.work()
    bench.run(stages=STAGES)
    assert planned() == before
    assert {k: v for k, v in bench.work().items() if k[0] == "telemetry"} == {
        k: v for k, v in work.items() if k[0] == "telemetry"
    }


def test_a_link_beside_a_video_is_not_followed(bench: RawBench) -> None:
    secret = bench.root / "secret.csv"
    secret.write_text("time_s,iso\n0,100\n")
    (bench.raw / "b.telemetry.csv").symlink_to(secret)
    os.mkfifo(bench.raw / "a.telemetry.mcap")
    report = bench.run(stages=STAGES)["telemetry"]
    assert report.failed == 0
    assert sources(bench) == {"a.mp4": ("mcap", 1), "b.mp4": ("csv", 1), "g.mp4": ("gpmd", 0)}
    (shard,) = bench.lake.shards()
    rows = bench.lake.read("telemetry", shard, columns=["source"])
    assert set(rows["source"].to_pylist()) == {"gpmd"}


def test_positions_of_a_forgotten_video_are_gone(bench: RawBench) -> None:
    bench.run(stages=STAGES)
    video_id = bench.video("g.mp4")["video_id"]
    (shard,) = bench.lake.shards()
    rows = bench.lake.read("telemetry", shard)
    latitude = np.float64(rows["gps_latitude_deg"].drop_null()[0].as_py()).tobytes()
    found = [
        survey(bench.lake, bench.ledger, each)
        for each in find_videos(bench.lake, bench.ledger, [video_id])
    ]
    erase.forget(bench.lake, bench.ledger, found, lambda words, shards: [], "")
    assert bench.lake.read("telemetry", shard).num_rows == 0
    assert bench.lake.read("telemetry_sources", shard).num_rows == 0
    lake = bench.root / "lake"
    assert bytes_with(lake, video_id) == []
    assert not [p for p in lake.rglob("*.parquet") if latitude in p.read_bytes()]
