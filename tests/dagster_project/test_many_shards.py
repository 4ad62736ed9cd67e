"""Runs and backfills over many shards: each is reported on its own, a bad one takes none along."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.backfill import execute_backfill_iteration

from dagster_project.definitions import build_defs, deployed
from ego_assets.graph.partitions import NO_EVENT, SHARDS, shards_of_run, shards_partitions
from ego_assets.intake.shards import RawFile, write_shard
from resources.compute import Compute
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.storage import Storage
from tests.engine.stage_bench import write_video
from tests.support.instances import dagster_instance

RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
DEFINITIONS = """
import dagster as dg
from dagster_project.definitions import build_defs
from ego_assets.graph.backends import Backends
from resources.compute import Compute
from resources.storage import Storage

given = {{"storage": Storage(lake_root={lake!r}), "compute": Compute(isolate=False)}}
given["backends"] = Backends()
assets = build_defs(given, shards_per_run=3).assets
keys = {{dg.AssetKey("video_manifest"), dg.AssetKey("clips")}}
chosen = [a for a in assets if isinstance(a, dg.AssetsDefinition) and a.keys <= keys]
defs = dg.Definitions(chosen, resources=given, executor=dg.in_process_executor)
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
    with dagster_instance(tmp_path, overrides=overrides) as found:
        yield found


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


class Range:
    """A run over all shards of a lake at once, as a person may choose in the launchpad."""

    def __init__(self, lake: Lake, instance: dg.DagsterInstance) -> None:
        self.shards = lake.shards()
        self.instance = instance
        instance.add_dynamic_partitions(SHARDS, self.shards)
        storage, compute = Storage(lake_root=str(lake.root)), Compute(isolate=False)
        defs = build_defs({"storage": storage, "compute": compute})
        self.graph = defs.get_repository_def().asset_graph
        self.job = defs.resolve_job_def("group_videos")

    def run(self, *tables: str, partition_key: str | None = None) -> dg.ExecuteInProcessResult:
        """partition_key: of one shard; None: over all."""
        tags = dict(zip(RANGE, (self.shards[0], self.shards[-1]), strict=True))
        return self.job.execute_in_process(
            instance=self.instance,
            tags=None if partition_key else tags,
            partition_key=partition_key,
            asset_selection=[dg.AssetKey(t) for t in tables] or None,
            raise_on_error=False,
        )


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


def statuses(instance: dg.DagsterInstance, table: str) -> tuple[set[str], set[str]]:
    """The shards that Dagster shows as materialized, and as failed."""
    key, store = dg.AssetKey(table), instance
    with partition_loading_context(dynamic_partitions_store=store):
        found = get_and_update_asset_status_cache_value(instance, key, shards_partitions)
        assert found is not None
        made = found.deserialize_materialized_partition_subsets(shards_partitions)
        failed = found.deserialize_failed_partition_subsets(shards_partitions)
        return set(made.get_partition_keys()), set(failed.get_partition_keys())


def versions(instance: dg.DagsterInstance, table: str) -> dict[str, dict[str, str]]:
    """Tags of each shard's newest materialization, but for pointers to single events."""
    records = instance.fetch_materializations(dg.AssetKey(table), limit=100).records
    made = [r.asset_materialization for r in reversed(records) if r.asset_materialization]
    return {
        str(m.partition): {k: v for k, v in (m.tags or {}).items() if "pointer" not in k}
        for m in made
    }


def test_a_bad_shard_of_a_range_takes_no_other_along(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    lake = make_shards(tmp_path, 3)
    many = Range(lake, instance)
    lost, good = many.shards[1], {many.shards[0], many.shards[2]}
    shard_file = lake.root / "shards" / f"{lost}.json"
    content = shard_file.read_text()
    shard_file.write_text("{ not json")
    result = many.run()
    assert not result.success
    # What is below goes on with the others; the last step fails, and says which and why.
    (event,) = [e for e in result.all_events if e.is_step_failure]
    assert event.step_key == "clips_checks"
    why = str(event.step_failure_data.user_failure_data)
    assert "1 of 3 shards" in why
    assert f"{lost}: video_manifest: " in why
    for table in ("video_manifest", "clips"):
        assert statuses(instance, table) == (good, {lost})
        done = Ledger.beside(lake.root).entries(stage=table, states=[State.DONE])
        assert {e.shard for e in done} == good
    checked = {
        str(e.asset_check_evaluation_data.metadata["shards"].value)
        for e in result.all_events
        if e.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
    }
    assert checked == {", ".join(sorted(good))}
    shard_file.write_text(content)
    # A table below it is not shown as made, either, by a run that knows nothing of this one.
    for found in (many.run("clips"), many.run("clips", partition_key=lost)):
        (event,) = [e for e in found.all_events if e.is_step_failure]
        failure = str(event.step_failure_data.user_failure_data)
        assert f"video_manifest of shard {lost} has not been made" in failure
        assert statuses(instance, "clips") == (good, {lost})
    # Mended, the next run makes it; what was made is not made again.
    assert many.run().success
    for table in ("video_manifest", "clips"):
        assert statuses(instance, table) == (set(many.shards), set())
    again = {s: m["done"] for s, m in metadata_of(instance, "clips").items()}
    assert again == {shard: int(shard == lost) for shard in many.shards}


def test_a_shard_that_breaks_half_way_keeps_what_it_has(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    lake = make_shards(tmp_path, 3)
    many = Range(lake, instance)
    (lake.root / "clips").write_text("no folder")
    result = many.run()
    assert not result.success
    assert statuses(instance, "video_manifest") == (set(many.shards), set())
    assert statuses(instance, "clips") == (set(), set(many.shards))
    (event,) = [e for e in result.all_events if e.is_step_failure]
    assert event.step_key == "clips"


def test_a_shard_has_the_same_versions_from_a_range_and_alone(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    lake = make_shards(tmp_path, 2)
    many = Range(lake, instance)
    assert many.run().success
    tables = ("video_manifest", "clips")
    in_range = {table: versions(instance, table) for table in tables}
    for shard in many.shards:
        many.job.execute_in_process(instance=instance, partition_key=shard)
    assert {table: versions(instance, table) for table in tables} == in_range
    assert len({v["dagster/data_version"] for v in in_range["clips"].values()}) == 2
    # The same rows made again, alone: nothing is stale in the UI that came from the range.
    assert many.run().success
    only = [dg.AssetKey("video_manifest")]
    many.job.execute_in_process(
        instance=instance, partition_key=many.shards[0], asset_selection=only
    )
    resolver = CachingStaleStatusResolver(instance, many.graph, LoadingContextForTest(instance))
    for table, shard in itertools.product(tables, many.shards):
        assert resolver.get_status(dg.AssetKey(table), shard) is StaleStatus.FRESH
    assert NO_EVENT == SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION


def test_a_backfill_of_several_shards_a_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """As the daemon does it, by hand: seven shards by three, one of them bad."""
    lake = make_shards(tmp_path, 7)
    shards = lake.shards()
    lost = shards[4]
    (lake.root / "shards" / f"{lost}.json").write_text("{ not json")
    instance.add_dynamic_partitions(SHARDS, shards)
    definitions = tmp_path / "toy_definitions.py"
    definitions.write_text(DEFINITIONS.format(lake=str(lake.root)))
    tables = [dg.AssetKey("video_manifest"), dg.AssetKey("clips")]
    target = PythonFileTarget(str(definitions), None, None, None)
    with create_test_daemon_workspace_context(target, instance) as context:
        graph = context.create_request_context().asset_graph
        instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id="seven",
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
        for _ in range(6):
            errors = list(execute_backfill_iteration(context, logging.getLogger("backfill")))
            assert not [e for e in errors if e]
            backfill = instance.get_backfill("seven")
            assert backfill is not None
            if backfill.status is not BulkActionStatus.REQUESTED:
                break
    assert backfill.status is BulkActionStatus.COMPLETED_FAILED
    runs = instance.get_runs()
    assert sorted(len(shards_of_run(instance, r.tags)) for r in runs) == [1, 3, 3]
    assert sorted(r.status.value for r in runs) == ["FAILURE", "SUCCESS", "SUCCESS"]
    for table in tables:
        assert statuses(instance, table.to_user_string()) == (set(shards) - {lost}, {lost})


@pytest.mark.parametrize(("given", "policy"), [("", None), ("1", None), ("4", 4), ("0", None)])
def test_the_environment_says_how_many_shards_a_run_takes(
    given: str, policy: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_SHARDS_PER_RUN", given)
    node = deployed().get_repository_def().asset_graph.get(dg.AssetKey("clips"))
    found = node.backfill_policy
    assert (found is None) == (given in ("", "1"))
    assert found is None or found.max_partitions_per_run == policy


@pytest.mark.parametrize("given", ["many", "-1", "1.5"])
def test_a_number_of_shards_that_is_none_is_refused(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_SHARDS_PER_RUN", given)
    with pytest.raises(ValueError, match="EGO_SHARDS_PER_RUN"):
        deployed()
