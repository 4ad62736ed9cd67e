"""`ego run` takes part in the machine's leases like any other run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dagster_project.run_graph import _one_gpu
from resources.gpu_leases import LeaseBook


def test_a_run_holds_one_device_and_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setenv("EGO_FAKE_GPUS", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with _one_gpu():
        (first,) = LeaseBook().holders()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ["CUDA_VISIBLE_DEVICES"])
        with _one_gpu():
            assert len({k for c in LeaseBook().holders() for k in c.devices}) == 2
        assert [c.id for c in LeaseBook().holders()] == [first.id]
    assert LeaseBook().claims() == []


def test_without_a_device_nothing_is_leased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setenv("EGO_FAKE_GPUS", "0")
    with _one_gpu():
        assert not (tmp_path / "leases").exists()
