"""What a person may say in the launchpad: some videos only, once more, another backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.definitions import build_defs
from ego_assets.graph.partitions import SHARDS
from ego_assets.intake.shards import RawFile, write_shard
from ego_assets.masks.settings import SegmentSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput
from resources.compute import Compute
from resources.lake import Lake
from resources.storage import Storage
from tests.stages.stage_bench import write_video
from tests.support.instances import dagster_instance


class BlindSegmenter:
    """A backend of somebody else: it sees nothing."""

    name = "blind"
    version = "9"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: SegmentSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        return ClipOutput({"detections": [], "object_masks": [], "hand_masks": []})


class Bench:
    """A shard of two videos whose manifest is made, and jobs over it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.lake, self.instance = Lake(folder / "lake"), instance
        files = [folder / "a.mp4", folder / "b.mp4"]
        for number, file in enumerate(files):
            write_video(file, frames=10 + number)
        self.shard = write_shard(self.lake, [RawFile(str(f), 1, 1.0) for f in files])
        instance.add_dynamic_partitions(SHARDS, [self.shard])
        storage, compute = Storage(lake_root=str(self.lake.root)), Compute(isolate=False)
        self.defs = build_defs({"storage": storage, "compute": compute})

    def run(self, job: str, *tables: str, **config: Any) -> bool:
        return (
            self.defs.resolve_job_def(job)
            .execute_in_process(
                partition_key=self.shard,
                instance=self.instance,
                asset_selection=[dg.AssetKey(t) for t in tables],
                run_config=config,
                raise_on_error=False,
            )
            .success
        )

    def said(self, table: str) -> dict[str, Any]:
        event = self.instance.get_latest_materialization_event(dg.AssetKey(table))
        assert event is not None
        assert event.asset_materialization is not None
        return {k: v.value for k, v in event.asset_materialization.metadata.items()}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with dagster_instance(tmp_path) as instance:
        yield Bench(tmp_path, instance)


def test_some_videos_only_then_the_rest_then_by_force(bench: Bench) -> None:
    assert bench.run("group_videos", "video_manifest")
    videos = sorted(bench.lake.read("video_manifest", bench.shard)["video_id"].to_pylist())
    asked = {"clips": {"config": {"only": videos[:1]}}}
    assert bench.run("group_videos", "clips", ops=asked)
    assert bench.lake.read("clips", bench.shard)["video_id"].to_pylist() == videos[:1]
    assert bench.run("group_videos", "clips")
    assert (bench.said("clips")["done"], bench.said("clips")["already done"]) == (1, 1)
    forced = {"clips": {"config": {"force": True}}}
    assert bench.run("group_videos", "clips", ops=forced)
    assert (bench.said("clips")["done"], bench.said("clips")["already done"]) == (2, 0)


def test_another_backend_for_one_run(bench: Bench) -> None:
    assert bench.run("group_videos", "video_manifest", "clips")
    wrong = {"backends": {"config": {"segmenter": "sam99"}}}
    assert not bench.run("group_masks", "hand_masks", resources=wrong)
    other = {"backends": {"config": {"segmenter": f"{__name__}:BlindSegmenter"}}}
    clips = bench.lake.read("clips", bench.shard)["clip_id"].to_pylist()
    ops = {"segmentation": {"config": {"only": clips[:1]}}}
    assert bench.run("group_masks", "hand_masks", resources=other, ops=ops)
    said = bench.said("hand_masks")
    assert said["backend"].endswith("BlindSegmenter 9")
    assert (said["units"], said["done"]) == (1, 1)
