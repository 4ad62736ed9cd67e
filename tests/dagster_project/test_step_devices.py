"""A stage leases a device only if the backend that is chosen for it computes on one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.definitions import build_defs, deployed
from dagster_project.executors.step_devices import steps_without_device
from ego_assets.engine.choices import Choice, Choices
from ego_assets.graph.backends import Backends
from ego_assets.graph.partitions import SHARDS
from ego_assets.hands.landmarks.estimator import LandmarksHandEstimator
from ego_assets.intake.shards import find_files, register_files
from resources.devices.gpu import find_gpus
from resources.devices.leases import LeaseBook, Request
from resources.lake import Lake
from resources.storage import Storage
from tests.support.rendered import small_sample

ASKING = {"segmentation", "hand_poses", "scene_reconstruction", "object_poses"}
"""Whose tags ask for a device."""
SHARD = "20260101-0000"


class OnDevice(LandmarksHandEstimator):
    on_device = True


class SaysNothing:
    """A backend of somebody else."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions(SHARDS, [SHARD])
        yield made


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.delenv("EGO_BACKENDS", raising=False)
    return Lake(tmp_path / "lake")


def asking(lake: Lake, instance: dg.DagsterInstance, **config: Any) -> set[str]:
    """Steps that take a device in a run with these fields of resources in its launchpad."""
    deployed_as = config.pop("deployed", Backends())
    resources = {"storage": Storage(lake_root=lake.location), "backends": deployed_as}
    job = build_defs(resources).resolve_job_def("whole_graph")
    given = {name: {"config": said} for name, said in config.items()}
    run = instance.create_run_for_job(
        job, run_config={"resources": given}, tags={"dagster/partition": SHARD}
    )
    return ASKING - steps_without_device(job, run, instance, ASKING).keys()


def test_by_default_no_stage_takes_a_device(lake: Lake, instance: dg.DagsterInstance) -> None:
    assert asking(lake, instance) == set()


@pytest.mark.parametrize("name", ["OnDevice", "SaysNothing"])
def test_what_the_launchpad_chooses_counts(
    lake: Lake, instance: dg.DagsterInstance, name: str
) -> None:
    backends = {"hand_estimator": f"{__name__}:{name}"}
    assert asking(lake, instance, backends=backends) == {"hand_poses"}
    assert asking(lake, instance, deployed=Backends(**backends)) == {"hand_poses"}


def test_what_the_machines_file_chooses_counts(
    lake: Lake, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "backends.yaml").write_text("segmenter: sam2\nobject_pose_estimator: baseline\n")
    monkeypatch.setenv("EGO_BACKENDS", str(tmp_path / "backends.yaml"))
    assert asking(lake, instance) == {"segmentation"}
    assert asking(lake, instance, backends={"segmenter": "landmarks"}) == set()


def test_what_was_chosen_for_a_shard_counts(lake: Lake, instance: dg.DagsterInstance) -> None:
    hands = Choice(backends={"hand_estimator": f"{__name__}:OnDevice"}, items=("a clip",))
    Choices(lake).keep("hand_estimator", SHARD, hands)
    assert asking(lake, instance) == {"hand_poses"}
    Choices(lake).keep("hand_estimator", SHARD, Choice(backends={"hand_estimator": "landmarks"}))
    assert asking(lake, instance) == set()


def test_a_stage_that_decodes_on_a_device_takes_one(
    lake: Lake, instance: dg.DagsterInstance
) -> None:
    assert asking(lake, instance, compute={"hardware_decoding": True}) == ASKING


def masks_job() -> dg.JobDefinition:
    return deployed().resolve_job_def("group_masks")


@pytest.mark.heavy
def test_a_run_by_default_does_not_wait_for_the_only_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setenv("EGO_FAKE_GPUS", "1")
    monkeypatch.setenv("EGO_LAKE", str(tmp_path / "lake"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    lake = Lake(tmp_path / "lake")
    video = small_sample(tmp_path / "raw")
    (shard,) = register_files(lake, find_files([video]).files)
    taken = LeaseBook().ask(Request(1, run_id="greedy", step_key="hoards"), find_gpus())
    assert taken.poll()
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        instance.add_dynamic_partitions(SHARDS, [shard])
        videos = build_defs().resolve_job_def("group_videos")
        assert videos.execute_in_process(instance=instance, partition_key=shard).success
        result = dg.execute_job(
            dg.reconstructable(masks_job),
            instance=instance,
            tags={"dagster/partition": shard},
            run_config={"execution": {"config": {"lease_timeout_s": 5.0}}},
        )
        assert result.success
        said = json.dumps([e.message for e in result.all_events])
    assert "segmentation takes no device: landmarks computes on the CPU" in said
    assert lake.read("hand_masks", shard).num_rows > 0
    assert [c.step_key for c in LeaseBook().claims()] == ["hoards"]
    taken.release()
