"""The whole graph into a lake on S3, with the ledger beside nothing: same assets, same commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ego_assets.schemas import TABLES
from resources.lake import Lake
from samples import render_sample
from tests.resources.s3_server import new_bucket, s3_server

pytestmark = pytest.mark.slow
EGO = str(Path(sys.executable).with_name("ego"))


def test_the_whole_graph_into_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ego(*arguments: str, status: int = 0) -> Any:
        command = [EGO, *arguments, "--lake", location, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path)
        assert done.returncode == status, f"{done.stdout}\n{done.stderr[-3000:]}"
        return json.loads(done.stdout) if status == 0 else done.stderr

    video = render_sample(tmp_path / "raw", seed=9, duration_s=1.0)
    with s3_server(monkeypatch):
        location = f"s3://{new_bucket()}/team/lake"
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("EGO_LEDGER_URL", raising=False)
        assert "EGO_LEDGER_URL" in ego("run", str(video), status=2)
        monkeypatch.setenv("EGO_LEDGER_URL", f"sqlite:///{tmp_path}/ledger.sqlite")
        summary = ego("run", str(video))
        assert summary["ok"] is True
        assert summary["clips"] == {"total": 1, "done": 1, "failed": 0, "quarantined": 0}
        lake = Lake(location)
        for table in TABLES:
            assert lake.read(table, summary["shards"][0]).num_rows == summary["rows"][table]
            assert lake.newest_fragments(table, summary["shards"][0]) == {}
        assert ego("verify")["problems"] == []
        assert ego("sql", "SELECT count(*) AS n FROM hand_poses WHERE is_valid IS NOT NULL") == [
            {"n": summary["rows"]["hand_poses"]}
        ]
        assert ego("status")["stages"]["robot_mappings"]["done"] == 1
        assert ego("run", str(video))["rows"] == summary["rows"]
