"""Runs and backfills over many shards: each is reported on its own, a bad one takes none along."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.backfill import execute_backfill_iteration

from dagster_project.definitions import build_defs
from ego_assets.partitions import SHARDS
from ego_assets.stages.shards import RawFile, write_shard
from resources.compute import Compute
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.storage import Storage
from tests.stages.stage_bench import write_video

BAD = {7: b"this is no video", 13: b""}
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
DEFINITIONS = """
import dagster as dg
from ego_assets.assets.manifest import clips, raw_videos, video_manifest
from resources.compute import Compute
from resources.storage import Storage

defs = dg.Definitions(
    [raw_videos, video_manifest, clips],
    resources={{"storage": Storage(lake_root={lake!r}), "compute": Compute(isolate=False)}},
    executor=dg.in_process_executor,
)
"""
LAUNCHER = {
    "module": "dagster._core.launcher.sync_in_memory_run_launcher",
    "class": "SyncInMemoryRunLauncher",
}
COORDINATOR = {"module": "dagster.core.run_coordinator", "class": "DefaultRunCoordinator"}


def make_shards(folder: Path, count: int, bad: dict[int, bytes] | None = None) -> Lake:
    """One good video in each shard, and beside that of some a bad one."""
    lake, raw = Lake(folder / "lake"), folder / "raw"
    raw.mkdir()
    for number in range(count):
        files = [raw / f"{number:02d}.mp4"]
        write_video(files[0], frames=8 + number)
        if bad and number in bad:
            files.append(raw / f"{number:02d}_bad.mp4")
            files[1].write_bytes(bad[number])
        write_shard(lake, [RawFile(str(f), f.stat().st_size, 1.0) for f in files])
    return lake


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    overrides = {"run_launcher": LAUNCHER, "run_coordinator": COORDINATOR}
    with dg.instance_for_test(overrides=overrides, temp_dir=str(tmp_path)) as found:
        yield found


def materialized(instance: dg.DagsterInstance, table: str) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey(table)))


def metadata_of(instance: dg.DagsterInstance, table: str) -> dict[str, dict[str, Any]]:
    """Of each shard's newest materialization."""
    events = instance.fetch_materializations(dg.AssetKey(table), limit=100).records
    found: dict[str, dict[str, Any]] = {}
    for event in reversed(events):
        made = event.asset_materialization
        assert made is not None
        assert made.partition is not None
        entries = made.metadata.items()
        found[made.partition] = {k: getattr(v, "records", v.value) for k, v in entries}
    return found


def test_a_backfill_does_every_good_clip_and_lists_the_bad_videos(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    lake = make_shards(tmp_path, 20, BAD)
    shards = lake.shards()
    instance.add_dynamic_partitions(SHARDS, shards)
    definitions = tmp_path / "toy_definitions.py"
    definitions.write_text(DEFINITIONS.format(lake=str(lake.root)))
    tables = [dg.AssetKey("video_manifest"), dg.AssetKey("clips")]
    target = PythonFileTarget(str(definitions), None, None, None)
    with create_test_daemon_workspace_context(target, instance) as context:
        graph = context.create_request_context().asset_graph
        instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id="twenty",
                asset_graph=graph,
                partition_names=shards,
                asset_selection=tables,
                backfill_timestamp=0.0,
                tags={},
                dynamic_partitions_store=instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            )
        )
        for _ in range(4):
            errors = list(execute_backfill_iteration(context, logging.getLogger("backfill")))
            assert not [e for e in errors if e]
            backfill = instance.get_backfill("twenty")
            assert backfill is not None
            if backfill.status is not BulkActionStatus.REQUESTED:
                break
    assert backfill.status is BulkActionStatus.COMPLETED_SUCCESS
    runs = instance.get_runs()
    # One run a shard: see docs/adr/0014.
    assert sorted(r.tags["dagster/partition"] for r in runs) == shards
    for table in tables:
        assert materialized(instance, table.to_user_string()) == set(shards)
    videos = [v for s in shards for v in lake.read("video_manifest", s).to_pylist()]
    rejected = {Path(v["uri"]).name: v["reject_reason"] for v in videos if not v["accepted"]}
    assert set(rejected) == {"07_bad.mp4", "13_bad.mp4"}
    assert all(rejected.values())
    listed = {
        Path(r.data["file"]).name: r.data["rejected"]
        for m in metadata_of(instance, "video_manifest").values()
        for r in m["raw videos"]
    }
    assert {name for name, why in listed.items() if why} == set(rejected)
    assert len(listed) == 22
    clips = Ledger.beside(lake.root).entries(stage="clips")
    assert len(clips) == 20
    assert {e.state for e in clips} == {State.DONE}


class Range:
    """A run over all shards of a lake at once, as a person may choose in the launchpad."""

    def __init__(self, lake: Lake, instance: dg.DagsterInstance) -> None:
        self.shards = lake.shards()
        self.instance = instance
        instance.add_dynamic_partitions(SHARDS, self.shards)
        storage, compute = Storage(lake_root=str(lake.root)), Compute(isolate=False)
        defs = build_defs({"storage": storage, "compute": compute})
        self.job = defs.resolve_job_def("group_videos")

    def run(self) -> dg.ExecuteInProcessResult:
        tags = dict(zip(RANGE, (self.shards[0], self.shards[-1]), strict=True))
        return self.job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)


def test_one_run_over_a_range_reports_each_shard(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    lake = make_shards(tmp_path, 3, {1: b""})
    many = Range(lake, instance)
    assert many.run().success
    rows = {s: m["dagster/row_count"] for s, m in metadata_of(instance, "video_manifest").items()}
    assert rows == dict(zip(many.shards, (1, 2, 1), strict=True))
    for shard, metadata in metadata_of(instance, "clips").items():
        assert metadata["file"].endswith(f"{shard}.parquet")
        assert metadata["picture"].startswith("![")


def test_a_bad_shard_of_a_range_is_named_and_the_others_are_kept(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    lake = make_shards(tmp_path, 3)
    many = Range(lake, instance)
    lost = many.shards[1]
    (lake.root / "shards" / f"{lost}.json").write_text("{ not json")
    result = many.run()
    assert not result.success
    (event,) = [e for e in result.all_events if e.is_step_failure]
    assert lost in str(event.step_failure_data.user_failure_data)
    assert "1 of 3 shards" in str(event.step_failure_data.user_failure_data)
    assert set(metadata_of(instance, "video_manifest")) == set(many.shards) - {lost}
    done = Ledger.beside(lake.root).entries(stage="video_manifest", states=[State.DONE])
    assert {e.shard for e in done} == set(many.shards) - {lost}
