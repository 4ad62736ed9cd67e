"""`ego run` takes part in the machine's leases like any other run."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from dagster_project import run_graph
from dagster_project.cli import main
from dagster_project.home import open_instance
from dagster_project.run_graph import Summary, _one_gpu, run_shards
from dagster_project.terminal import progress_bar
from ego_assets.graph.backends import Backends
from ego_assets.hands.baseline.estimator import BaselineHandEstimator
from ego_assets.intake.shards import find_files, register_files
from resources.devices.gpu import find_gpus, why_without_gpu
from resources.devices.leases import Lease, LeaseBook, Request
from resources.lake import Lake
from resources.ledger import Ledger
from tests.support.rendered import render_sample


class OnDevice(BaselineHandEstimator):
    """As a model would be: another backend, which wants a device."""

    name = "on_device"
    version = "model"
    on_device = True


def test_a_run_holds_one_device_and_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setenv("EGO_FAKE_GPUS", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with _one_gpu():
        (first,) = LeaseBook().holders()
        assert Path(os.environ["EGO_LEASE"]).stem == first.id  # for the stages to hold, too
        with _one_gpu():
            assert len({k for c in LeaseBook().holders() for k in c.devices}) == 2
        assert [c.id for c in LeaseBook().holders()] == [first.id]
    assert LeaseBook().claims() == []
    assert "EGO_LEASE" not in os.environ


def test_without_a_device_nothing_is_leased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setenv("EGO_FAKE_GPUS", "0")
    with _one_gpu():
        assert not (tmp_path / "leases").exists()


def test_the_ledger_is_migrated_before_dagster_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads that migrate at a time take Alembic's environment from each other."""

    def begin(root: str) -> None:
        with sqlite3.connect(tmp_path / "lake/_ledger/ledger.sqlite") as ledger:
            assert ledger.execute("SELECT version_num FROM alembic_version").fetchone()
        raise InterruptedError

    monkeypatch.setattr(run_graph, "open_instance", begin)
    with pytest.raises(InterruptedError):
        run_graph.run_shards(tmp_path / "lake", [])


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lease]:
    """A machine with one device, which somebody else has."""
    monkeypatch.setenv("EGO_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setenv("EGO_FAKE_GPUS", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    lease = LeaseBook().ask(Request(1, run_id="greedy", step_key="hoards"), find_gpus())
    assert lease.poll()
    yield lease
    lease.release()


def test_a_run_goes_on_without_a_device_if_it_may_not_wait(taken: Lease) -> None:
    with _one_gpu(degrade_after_s=0.0):
        assert "held by hoards of run greedy" in why_without_gpu()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        assert [c.step_key for c in LeaseBook().claims()] == ["hoards"], "it still waits"
    assert why_without_gpu() == ""
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_run_that_waits_for_a_device_says_so(
    taken: Lease, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar() as tell, _one_gpu(0.0, tell):
        pass
    said = capsys.readouterr().err
    assert said.startswith("waits for a GPU: GPU 0 (simulated) is held by hoards of run greedy")


@pytest.mark.heavy
def test_a_run_that_computes_on_no_device_does_not_wait_for_one(
    tmp_path: Path, taken: Lease
) -> None:
    video = render_sample(tmp_path / "raw", seed=6, duration_s=1.0)
    lake = Lake(tmp_path / "lake")
    shards = register_files(lake, find_files([video]).files)
    notes: list[str] = []
    summary = run_shards(lake.location, shards, tell=lambda p: notes.append(p.note))
    assert summary.ok, summary
    assert (summary.waiting_for_gpu, summary.degraded) == ({}, "")
    assert not any(notes)
    assert [c.step_key for c in LeaseBook().claims()] == ["hoards"]


@pytest.mark.heavy
def test_a_degraded_run_and_the_one_that_makes_it_good(tmp_path: Path, taken: Lease) -> None:
    video = render_sample(tmp_path / "raw", seed=6, duration_s=1.0)
    lake = Lake(tmp_path / "lake")
    shards = register_files(lake, find_files([video]).files)

    def run() -> Summary:
        backends = Backends(hand_estimator=f"{__name__}:OnDevice")
        overrides = {"backends": backends}
        return run_shards(lake.location, shards, degrade_after_s=0.1, overrides=overrides)

    summary = run()
    assert summary.ok, summary
    assert summary.waiting_for_gpu == {"hand_poses": 1}
    assert "no GPU was free within 0.1 s (--degrade-after)" in summary.degraded
    assert summary.rows["hand_poses"] > 0
    assert summary.rows["robot_mappings"] > 0, "what follows has to wait"
    assert operator_of(lake, shards[0]) == "hand_estimator:baseline"
    with open_instance(lake.location) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("hand_poses"))
        assert event is not None
        assert event.asset_materialization is not None
        said = event.asset_materialization.metadata
    assert str(said["degraded"].value).startswith("made by baseline in place of")
    assert said["waiting for a GPU"].value == 1
    assert "materialize this partition again" in str(said["what brings the real result"].value)
    status = CliRunner().invoke(main, ["status", "--lake", lake.location, "--json"])
    (told,) = json.loads(status.output)["waiting_for_gpu"]
    assert (told["stage"], told["shard"], told["units"]) == ("hand_poses", shards[0], 1)
    assert Ledger.of(lake.location).unfinished_shards() == shards
    taken.release()
    summary = run()
    assert summary.ok, summary
    assert (summary.waiting_for_gpu, summary.degraded) == ({}, "")
    assert operator_of(lake, shards[0]).endswith("OnDevice")
    assert Ledger.of(lake.location).unfinished_shards() == []


def operator_of(lake: Lake, shard: str) -> str:
    (found,) = lake.provenances("hand_poses", shard).values()
    return found.operator
