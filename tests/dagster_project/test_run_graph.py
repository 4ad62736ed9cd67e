"""`ego run` takes part in the machine's leases like any other run."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from dagster_project import run_graph
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
