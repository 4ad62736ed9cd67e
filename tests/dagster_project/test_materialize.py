"""The graph in this process, on a temporary lake, with resources swapped: runs, subsets, reruns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from dagster_project.definitions import build_defs
from ego_assets.partitions import SHARDS
from ego_assets.schemas import TABLES
from ego_assets.stages.shards import find_files, register_files
from resources.compute import Compute
from resources.lake import Lake
from resources.storage import Storage
from samples import render_sample

pytestmark = pytest.mark.slow


class Bench:
    """A lake with one shard of `files`, and the graph over it."""

    def __init__(self, folder: Path, files: list[Path], instance: dg.DagsterInstance) -> None:
        self.lake = Lake(folder / "lake")
        (self.shard,) = register_files(self.lake, find_files(files).files)
        self.instance = instance
        instance.add_dynamic_partitions(SHARDS, [self.shard])
        overrides = {
            "storage": Storage(lake_root=str(self.lake.root)),
            "compute": Compute(workers=2, backoff_s=0.01),
        }
        self.job = build_defs(overrides).resolve_job_def("whole_graph")

    def run(self, *tables: str) -> dg.ExecuteInProcessResult:
        keys = [dg.AssetKey(t) for t in tables]
        return self.job.execute_in_process(
            partition_key=self.shard,
            instance=self.instance,
            asset_selection=keys or None,
            raise_on_error=False,
        )

    def metadata(self, table: str) -> dict[str, Any]:
        event = self.instance.get_latest_materialization_event(dg.AssetKey(table))
        assert event is not None
        assert event.asset_materialization is not None
        return {k: v.value for k, v in event.asset_materialization.metadata.items()}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as found:
        yield found


def test_the_whole_graph_then_nothing_to_do(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    video = render_sample(tmp_path / "raw", seed=6, duration_s=2.0)
    bench = Bench(tmp_path, [video], instance)
    assert bench.run().success
    before = {}
    for table in TABLES:
        files = list((bench.lake.root / table).glob("*.parquet"))
        assert [f.stem for f in files] == [bench.shard]
        before[table] = files[0].read_bytes()
        said = bench.metadata(table)
        assert said["done"] == 1
        assert said["picture"].startswith("![")
        (origin,) = json.loads(pq.read_schema(files[0]).metadata[b"ego.provenance"])
        assert {"run_id", "settings", "code_version", "weights_hash"} <= set(origin), sorted(origin)
    assert bench.run().success
    for table in TABLES:
        assert bench.metadata(table)["already done"] == 1
        assert (bench.lake.root / table / f"{bench.shard}.parquet").read_bytes() == before[table]


def test_one_table_of_three_is_made_alone(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    video = render_sample(tmp_path / "raw", seed=7, duration_s=1.0)
    bench = Bench(tmp_path, [video], instance)
    assert bench.run("video_manifest", "clips", "hand_masks").success
    assert bench.lake.read("hand_masks", bench.shard).num_rows > 0
    assert bench.lake.read("object_masks", bench.shard).num_rows == 0
    # What comes later brings in the rest without doing the hands again.
    assert bench.run("object_masks", "detections").success
    assert bench.lake.read("detections", bench.shard).num_rows > 0


def test_every_odd_file_goes_through_the_whole_graph(
    tmp_path: Path, instance: dg.DagsterInstance, real_data: Path
) -> None:
    """Short or small ones; `test_odd_files` probes all of them."""
    names = (
        "all_black.mp4",
        "audio_only.mp4",
        "one_frame.mp4",
        "png_image_named.mp4",
        "random_bytes.mp4",
        "rotated_90_metadata.mp4",
        "text_named.mp4",
        "tiny_32x18.mp4",
        "truncated_no_moov.mp4",
        "zero_bytes.mp4",
    )
    bench = Bench(tmp_path, [real_data / "odd" / n for n in names], instance)
    assert bench.run().success
    rows = bench.lake.read("video_manifest", bench.shard).to_pylist()
    accepted = {Path(r["uri"]).name for r in rows if r["accepted"]}
    assert accepted == {
        "all_black.mp4",
        "one_frame.mp4",
        "rotated_90_metadata.mp4",
        "tiny_32x18.mp4",
    }
    assert all(r["reject_reason"] for r in rows if not r["accepted"])
    reconstructed = bench.lake.read("scene_reconstruction", bench.shard).to_pylist()
    assert all(r["invalid_reason"] for r in reconstructed if not r["is_valid"])
    assert bench.lake.read("clips", bench.shard).num_rows == 4
