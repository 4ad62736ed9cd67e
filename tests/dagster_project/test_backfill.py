"""A backfill as a person asks for it: a real webserver, a real daemon, twelve shards, two of them
with a video that is none, and no more runs at a time than the machine has room for."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.run_queue import runs_at_once
from ego_assets.graph.partitions import SHARDS
from ego_assets.intake.shards import RawFile, write_shard
from resources.lake import Lake
from resources.ledger import Ledger, State
from tests.dagster_project.ui import backfill, ui_and_daemon
from tests.engine.stage_bench import write_video

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.heavy
SHARD_COUNT = 12
BAD = {3: b"this is no video", 7: b""}
"""Content of the bad files by shard: the first beside a good video, the second alone."""
TABLES = ("video_manifest", "clips", "detections")
LIMIT_S = 500
INSTANCE = """
telemetry: {enabled: false}
run_launcher:
  module: tests.dagster_project.forked_runs
  class: ForkedRunLauncher
run_coordinator:
  module: dagster_project.run_queue
  class: MachineRunCoordinator
  config: {dequeue_interval_seconds: 1}
compute_logs: {module: dagster._core.storage.noop_compute_log_manager, class: NoOpComputeLogManager}
"""
DEFINITIONS = """
import dagster as dg
from ego_assets.graph.assets import ASSETS
from resources.compute import Compute
from ego_assets.graph.backends import Backends
from resources.storage import Storage

defs = dg.Definitions(
    ASSETS[:4],
    resources={{
        "storage": Storage(lake_root={lake!r}),
        "compute": Compute(isolate=False),
        "backends": Backends(),
    }},
    executor=dg.in_process_executor,
)
"""
PARTITIONS = """
query Partitions($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      assetPartitionStatuses {
        ... on DefaultPartitionStatuses {
          materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions
        }
      }
      assetMaterializations(limit: 50) {
        partition
        metadataEntries {
          label
          ... on TableMetadataEntry { table { records } }
        }
      }
    }
  }
}
"""


def make_shards(folder: Path) -> Lake:
    lake, raw = Lake(folder / "lake"), folder / "raw"
    raw.mkdir()
    for number in range(SHARD_COUNT):
        files = [raw / f"{number:02d}.mp4"]
        if number in BAD:
            files.append(raw / f"{number:02d}_bad.mp4")
            files[-1].write_bytes(BAD[number])
        if BAD.get(number) == b"":
            del files[0]
        else:
            write_video(files[0], frames=8 + number)
        write_shard(lake, [RawFile(str(f), f.stat().st_size, 1.0) for f in files])
    return lake


def test_a_backfill_does_every_good_clip_and_lists_the_bad_videos(tmp_path: Path) -> None:
    lake = make_shards(tmp_path)
    shards = lake.shards()
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(INSTANCE)
    definitions = tmp_path / "toy_definitions.py"
    definitions.write_text(DEFINITIONS.format(lake=str(lake.root)))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions(SHARDS, shards)
    command = [sys.executable, "-m", "dagster", "dev", "-f", str(definitions)]
    environment = os.environ | {"DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT)}
    with ui_and_daemon(command, environment, lake, tmp_path / "log") as server:
        done = backfill(server, TABLES, shards, LIMIT_S)
        nodes = {
            table: server.ask(PARTITIONS, key={"path": [table]})["assetNodeOrError"]
            for table in TABLES
        }
    with dg.DagsterInstance.from_config(str(home)) as instance:
        spans = [(r.start_time, r.end_time) for r in instance.get_run_records()]
    assert len(spans) == SHARD_COUNT
    at_once = [sum(begin <= at < end for begin, end in spans) for at, _ in spans]
    assert 1 <= max(at_once) <= runs_at_once()[0]
    # What Dagster says: one run a shard (docs/adr/0014), every partition is there, none failed.
    assert done["status"] == "COMPLETED_SUCCESS"
    assert done["numPartitions"] == SHARD_COUNT
    tags = [{t["key"]: t["value"] for t in run["tags"]} for run in done["runs"]]
    assert sorted(t["dagster/partition"] for t in tags) == shards
    assert {run["status"] for run in done["runs"]} == {"SUCCESS"}
    for node in nodes.values():
        health = node["assetPartitionStatuses"]
        assert sorted(health.pop("materializedPartitions")) == shards
        assert not any(health.values()), health
    # The lake and the ledger: every clip of a good video is done, in each table.
    videos = [v for s in shards for v in lake.read("video_manifest", s).to_pylist()]
    good = {v["video_id"] for v in videos if v["accepted"]}
    assert len(good) == SHARD_COUNT - 1
    clips = [c for s in shards for c in lake.read("clips", s).to_pylist()]
    assert {c["video_id"] for c in clips} == good
    ledger = Ledger.beside(lake.root)
    assert {e.state for e in ledger.entries()} == {State.DONE}
    assert {e.item_id for e in ledger.entries(stage="detections")} == {c["clip_id"] for c in clips}
    # The bad ones are listed, and why: in the lake, and where a person looks.
    rejected = {Path(v["uri"]).name: v["reject_reason"] for v in videos if not v["accepted"]}
    assert set(rejected) == {"03_bad.mp4", "07_bad.mp4"}
    assert all(rejected.values())
    tables = [
        entry["table"]["records"]
        for made in nodes["video_manifest"]["assetMaterializations"]
        for entry in made["metadataEntries"]
        if entry["label"] == "raw videos"
    ]
    assert len(tables) == SHARD_COUNT
    rows = [json.loads(r) if isinstance(r, str) else r for t in tables for r in t]
    listed = {Path(r["file"]).name: r["rejected"] for r in rows if r["rejected"]}
    assert set(listed) == set(rejected)
    assert all(why.startswith(rejected[name]) for name, why in listed.items())
