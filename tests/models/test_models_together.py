"""The whole graph with a model wherever there is one, as `ego run --backends FILE` runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from dagster_project.runs import run_paths
from ego_assets.catalog import TABLES
from resources.lake import Lake
from tests.models.tiny_models import tiny_depth_anything, tiny_hamer, tiny_sam3
from tests.objects.test_foundationpose import fake_checkout, truth_at, write_box
from tests.support.linked_weights import link_default_weights
from tests.support.rendered import render_sample

CHOICE = {
    "segmenter": "sam3",
    "hand_estimator": "hamer",
    "reconstructor": "pycolmap_depth_anything",
    "object_pose_estimator": "foundationpose",
    "retargeter": "gauss_newton",
}
SETTINGS = {
    "segmenter": {
        "vocabulary": {"left hand": "left", "robot arm": "object"},
        "min_score": 0.3,
        "min_new_score": 0.4,
        "max_objects": 1,
    },
    "reconstructor": {
        "checkpoint": "depth",
        "work_side_px": 240,
        "max_tracks": 100,
        "depth_frames": 2,
    },
    "object_pose_estimator": {
        "depth": "ego_assets.scene.depth:DepthAnything",
        "depth_settings": {"checkpoint": "depth"},
    },
}


@pytest.mark.heavy
def test_the_whole_graph_with_every_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights"
    link_default_weights(weights)
    tiny_sam3(weights / "sam3")
    tiny_hamer(weights / "hamer")
    tiny_depth_anything(weights / "depth")
    checkout = fake_checkout(weights / "FoundationPose", {f: truth_at(0) for f in range(256)})
    estimater = (checkout / "estimater.py").read_text()
    (checkout / "estimater.py").write_text(estimater.replace("depth[0, 0] == 0 and", ""))
    write_box(weights / "object_meshes" / "robot_arm.obj")
    file = tmp_path / "backends.yaml"
    file.write_text(yaml.safe_dump(CHOICE | {"weights_dir": str(weights), "settings": SETTINGS}))
    monkeypatch.setenv("EGO_BACKENDS", str(file))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    video = render_sample(tmp_path / "raw", seed=6, duration_s=0.5)
    summary = run_paths([video], tmp_path / "lake", workers=1)
    assert summary.ok, (summary.failures, summary.problems)
    assert summary.clips == {"total": 1, "done": 1, "failed": 0, "quarantined": 0}
    lake, (shard,) = Lake(tmp_path / "lake"), summary.shards
    made = {}
    for table in TABLES:
        # A network with random weights sees no hand that could be one: nothing to retarget.
        assert summary.rows[table] > 0 or table == "robot_mappings", table
        metadata = pq.read_schema(lake.root / table / f"{shard}.parquet").metadata
        (origin,) = json.loads(metadata[b"ego.provenance"])
        made[table] = origin["operator"].partition(":")[2]
        assert TABLES[table].violations(lake.read(table, shard)) == []
    assert made["hand_masks"] == made["detections"] == "sam3"
    assert made["hand_poses"] == "hamer"
    assert made["scene_reconstruction"] == "pycolmap_depth_anything"
    assert made["object_poses"] == "foundationpose"
    assert made["robot_mappings"] == "gauss_newton"
