"""The raw-data sensor at a real instance: partitions and run requests, each once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.definitions import build_defs
from ego_assets.engine.runner import run_stage
from ego_assets.graph.partitions import SHARDS
from resources.lake import Lake
from resources.ledger import Ledger
from resources.raw_lake import RawLake
from resources.storage import Storage
from tests.engine.raw_bench import write_video
from tests.engine.stage_bench import spec_for
from tests.resources.s3_server import new_bucket, s3_client, s3_server
from tests.support.instances import dagster_instance

QUICK: dict[str, Any] = {"settle_s": 0.0, "wait_s": 0.0}


class Bench:
    """Ticks of the sensor, with or without the daemon's part."""

    def __init__(self, instance: dg.DagsterInstance, lake: Path, place: str, **raw: Any) -> None:
        self.instance = instance
        self.lake = Lake(lake)
        self.resources = {
            "storage": Storage(lake_root=str(lake)),
            "raw_lake": RawLake(folders=[place], **(QUICK | raw)),
        }
        self.repository = build_defs(self.resources).get_repository_def()
        self.sensor = self.repository.get_sensor_def("raw_data_sensor")
        self.cursor: str | None = None

    def evaluate(self) -> dg.SensorResult:
        context = dg.build_sensor_context(
            self.instance,
            cursor=self.cursor,
            repository_def=self.repository,
            resources=self.resources,
        )
        found = self.sensor(context)
        assert isinstance(found, dg.SensorResult)
        return found

    def tick(self, runs: bool = True) -> list[str]:
        """As the daemon does it: partitions, then runs (or a crash before them). New run keys."""
        found = self.evaluate()
        for request in found.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(SHARDS, list(request.partition_keys))
        made = []
        for request in (found.run_requests or ()) if runs else ():
            tags = request.tags | {"dagster/run_key": str(request.run_key)}
            filters = dg.RunsFilter(tags={"dagster/run_key": str(request.run_key)})
            if not self.instance.get_runs(filters):
                job = self.repository.get_job("whole_graph")
                self.instance.create_run_for_job(job, tags=tags)
                made.append(str(request.run_key))
        self.cursor = found.cursor
        return made


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(tmp_path) as made:
        yield made


def test_a_file_becomes_a_partition_and_a_run_once(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.mp4").write_bytes(b"x" * 5_000_000)
    (raw / "b.mp4").write_bytes(b"y" * 9_000_000)
    bench = Bench(instance, tmp_path / "lake", str(raw), shard_files=1)
    requests = bench.evaluate().run_requests
    shards = bench.lake.shards()
    assert len(shards) == 2
    assert [int(r.tags["dagster/priority"]) for r in requests] == [9, 5]
    assert {r.partition_key for r in requests} == set(shards)
    assert bench.tick(runs=False) == []  # killed between registering and requesting
    bench.cursor = None
    assert sorted(key.partition(":")[0] for key in bench.tick()) == shards
    assert bench.tick() == []
    assert bench.tick() == []
    assert list(instance.get_dynamic_partitions(SHARDS)) == shards
    (raw / "a.mp4").write_bytes(b"z" * 7_000_000)
    (again,) = bench.tick()
    assert again.partition(":")[0] in shards
    assert bench.tick() == []
    assert bench.lake.shards() == shards


def test_two_lakes_of_one_instance_get_their_own_runs(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Their shards of one day have one name, even with the same files."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.mp4").write_bytes(b"x")
    for name in ("lake", "other"):
        bench = Bench(instance, tmp_path / name, str(raw))
        assert len(bench.tick()) == 1
        assert bench.tick() == []


def test_a_superseded_file_is_shown_at_its_shard(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.mp4").write_bytes(b"x")
    bench = Bench(instance, tmp_path / "lake", str(raw))
    bench.tick()
    (raw / "a.mp4").write_bytes(b"xyz")
    (event,) = bench.evaluate().asset_events
    assert event.partition == bench.lake.shards()[0]
    assert event.metadata["superseded file"].value == str(raw / "a.mp4")
    # A daemon that was killed before it had that in its log is told again.
    assert len(bench.evaluate().asset_events) == 1
    bench.tick()
    assert bench.evaluate().asset_events == []


def test_a_refused_link_is_shown_once(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"s")
    (raw / "out.mp4").symlink_to("../secret.mp4")
    bench = Bench(instance, tmp_path / "lake", str(raw))
    for _ in range(2):
        (event,) = bench.evaluate().asset_events
        assert event.description == "1 files refused"
    bench.tick()
    assert bench.evaluate().asset_events == []


def test_a_link_in_a_circle_does_not_stop_intake(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """It is shown once, with the reason, and the others have their run."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(raw / "pipe.mp4")
    (raw / "z.mp4").write_bytes(b"z")
    bench = Bench(instance, tmp_path / "lake", str(raw))
    (event,) = bench.evaluate().asset_events
    assert event.description == "2 files refused"
    shown = {r.data["file"]: r.data["why"] for r in event.metadata["refused"].records}
    assert shown == {
        str(raw / "loop.mp4"): "a link that leads in a circle",
        str(raw / "pipe.mp4"): "a named pipe, not a file",
    }
    assert len(bench.tick()) == 1
    assert bench.evaluate().asset_events == []


def test_a_missing_folder_is_said_and_no_failure(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    bench = Bench(instance, tmp_path / "lake", str(tmp_path / "none"))
    assert "no file or folder" in str(bench.evaluate().skip_reason)


def test_a_bucket_and_its_changes(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(monkeypatch):
        bucket = new_bucket()

        def put(name: str, data: bytes) -> None:
            s3_client().put_object(Bucket=bucket, Key=f"raw/{name}", Body=data)

        for number in range(3):
            put(f"{number}.mp4", os.urandom(9))
        bench = Bench(instance, tmp_path / "lake", f"s3://{bucket}/raw", shard_files=2)
        assert len(bench.tick()) == 2
        assert bench.tick() == []
        put("0.mp4", os.urandom(9))
        put("9.mp4", os.urandom(9))
        assert len(bench.tick()) == 2
        assert bench.tick() == []
        held = [f["uri"] for s in bench.lake.shards() for f in bench.lake.read_shard(s)["files"]]
        assert sorted(held) == [f"s3://{bucket}/raw/{n}.mp4" for n in (0, 1, 2, 9)]


def test_files_that_were_moved_or_are_gone_are_shown_once(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for number, name in enumerate("abc"):
        write_video(raw / f"{name}.mp4", frames=12 + number, light=60 + 9 * number)
    bench = Bench(instance, tmp_path / "lake", str(raw))
    bench.tick()
    (shard,) = bench.lake.shards()
    spec = spec_for("video_manifest", bench.lake, Ledger.beside(bench.lake.root), shard)
    run_stage(spec, isolate=False)
    assert bench.tick() == []
    (raw / "b.mp4").rename(raw / "z.mp4")
    (raw / "c.mp4").unlink()
    for _ in range(2):  # a daemon that was killed before it had that in its log is told again
        events = bench.evaluate().asset_events
        assert sorted(e.description or "" for e in events) == ["1 files gone", "1 files moved"]
    bench.tick()
    assert bench.evaluate().asset_events == []
    assert bench.lake.shards() == [shard]
    names = [Path(uri).name for uri in bench.lake.read("video_manifest", shard)["uri"].to_pylist()]
    assert sorted(names) == ["a.mp4", "c.mp4", "z.mp4"]
