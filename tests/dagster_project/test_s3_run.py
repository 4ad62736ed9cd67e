"""The whole graph from raw videos on S3 into a lake on S3: same assets, same commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ego_assets.catalog import TABLES
from resources.lake import Lake
from tests.resources.s3_server import new_bucket, s3_client, s3_server
from tests.support.rendered import small_sample

pytestmark = pytest.mark.heavy
SECRET = "planted-secret-5b1c"  # pragma: allowlist secret
EGO = str(Path(sys.executable).with_name("ego"))


def list_keys(bucket: str, prefix: str) -> set[str]:
    pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {entry["Key"] for page in pages for entry in page.get("Contents", ())}


def get(bucket: str, key: str) -> bytes:
    return s3_client().get_object(Bucket=bucket, Key=key)["Body"].read()


def test_the_whole_graph_into_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bytes] = []

    def ego(*arguments: str, status: int = 0) -> Any:
        command = [EGO, *arguments, "--lake", location, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path)
        said.extend([done.stdout.encode(), done.stderr.encode()])
        assert done.returncode == status, f"{done.stdout}\n{done.stderr[-3000:]}"
        return json.loads(done.stdout) if status == 0 else done.stderr

    video = small_sample(tmp_path / "rendered")
    with s3_server(monkeypatch):
        bucket = new_bucket()
        location = f"s3://{bucket}/team/lake"
        for path in (video, video.with_suffix(".camera.json")):
            s3_client().upload_file(str(path), bucket, f"raw/day 1/{path.name}")
        raw = f"s3://{bucket}/raw"
        monkeypatch.setenv("EGO_SCRATCH", str(tmp_path / "scratch"))
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("EGO_LEDGER_URL", raising=False)
        assert "EGO_LEDGER_URL" in ego("run", raw, status=2)
        monkeypatch.setenv("EGO_LEDGER_URL", f"sqlite:///{tmp_path}/ledger.sqlite")
        summary = ego("run", raw)
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
        assert ego("run", raw)["rows"] == summary["rows"]
        assert ego("run", f"s3://{bucket}/none", status=2).count("Traceback") == 0
        manifest = lake.read("video_manifest", summary["shards"][0]).to_pylist()
        assert [v["uri"] for v in manifest] == [f"{raw}/day 1/{video.name}"]
        assert manifest[0]["intrinsics_source"] == "calibration_file"
        (copy,) = (tmp_path / "scratch").glob("*/*.mp4")
        assert copy.read_bytes() == video.read_bytes()
        assert list_keys(bucket, "raw/") == {
            f"raw/day 1/{video.stem}{s}" for s in (".mp4", ".camera.json")
        }
        # The secret is nowhere: not in events, logs, provenance, the ledger.
        objects = [get(bucket, key) for key in list_keys(bucket, "")]
        files = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
        assert len(objects) > 10
        assert len(files) > 5
        assert not any(SECRET.encode() in data for data in objects + files + said)
