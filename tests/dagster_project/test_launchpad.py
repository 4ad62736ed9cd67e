"""What a person may say in the launchpad: some videos only, once more, another backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from dagster_project.definitions import build_defs
from ego_assets.graph.partitions import SHARDS
from ego_assets.intake.shards import RawFile, write_shard
from ego_assets.masks.settings import SegmentSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput
from ego_assets.videos.settings import ClipSettings
from resources.compute import Compute
from resources.lake import Lake
from resources.storage import Storage
from tests.engine.stage_bench import write_video
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


def test_a_setting_that_is_given_goes_before_the_file_also_where_it_is_the_default(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backends.yaml"
    file.write_text("settings: {split: {overlap_s: 1.0}}\n")
    monkeypatch.setenv("EGO_BACKENDS", str(file))
    assert bench.run("group_videos", "video_manifest")
    video = bench.lake.read("video_manifest", bench.shard)["video_id"][0].as_py()

    def overlap_s(**clips: Any) -> float:
        assert bench.run("group_videos", "clips", ops={"clips": {"config": clips}})
        made = bench.lake.provenance("clips", bench.shard, video)
        assert made is not None
        return json.loads(made.settings)["overlap_s"]

    usual = ClipSettings().overlap_s
    assert usual != 1.0
    assert overlap_s() == 1.0
    assert overlap_s(overlap_s=usual) == usual
    assert overlap_s() == usual, "it was chosen for the shard"
    assert overlap_s(keep_choices=False) == 1.0
    # The UI fills the form with the defaults of all settings, which nobody has given.
    filled = yaml.safe_load(launchpad(bench.defs.resolve_job_def("group_videos")))
    form = filled["ops"]["clips"]["config"]
    assert form["overlap_s"] == usual
    assert overlap_s(**form) == 1.0
    assert overlap_s(**form | {"max_clip_s": 19.0}) == 1.0
    assert overlap_s(**form | {"max_clip_s": 19.0, "overlap_s": 0.5}) == 0.5


def launchpad(job: dg.JobDefinition) -> str:
    """What the UI's launchpad of a job is filled with."""
    from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap

    snapshot = job.get_job_snapshot().config_schema_snapshot
    whole = snapshot.get_config_snap(job.run_config_schema.config_type.key)
    return default_values_yaml_from_type_snap(snapshot, whole)


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
