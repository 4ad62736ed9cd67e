"""A real daemon: files that are dropped while it runs, or while it is dead, become materialized
partitions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from ego_assets.graph.partitions import SHARDS
from resources.lake import Lake
from tests.resources.s3_server import new_bucket, s3_client, s3_server

pytestmark = pytest.mark.heavy
BIN = Path(sys.executable).parent
DEFINITIONS = """
import dagster as dg
from ego_assets.graph.assets import ASSETS
from ego_assets.graph.partitions import shards_partitions
from resources.compute import Compute
from resources.storage import Storage
from resources.raw_lake import RawLake
from sensors.raw_data import build_raw_data_sensor

job = dg.define_asset_job("whole_graph", partitions_def=shards_partitions)
defs = dg.Definitions(
    ASSETS[:2],
    jobs=[job],
    sensors=[build_raw_data_sensor(job)],
    resources={{
        "storage": Storage(lake_root={lake!r}),
        "raw_lake": RawLake(folders=[{folder!r}, {bucket!r}], settle_s=1, wait_s=0, shard_files=1),
        "compute": Compute(isolate=False),
    }},
    executor=dg.in_process_executor,
)
"""
CONFIG = """
telemetry: {enabled: false}
concurrency: {runs: {max_concurrent_runs: 3}}
"""
LIMIT_S = 240


def wait_for(what: str, probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not probe():
        assert time.monotonic() < deadline, f"no {what} after {LIMIT_S} s"
        time.sleep(0.5)


@contextmanager
def daemon(definitions: Path, log: Path) -> Iterator[None]:
    """Killed in the end, with all it started."""
    with log.open("a") as out:
        process = subprocess.Popen(
            [str(BIN / "dagster-daemon"), "run", "-f", str(definitions)],
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_killed_daemon_catches_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, lake = tmp_path / "raw", Lake(tmp_path / "lake")
    raw.mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text(CONFIG)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    with s3_server(monkeypatch):
        bucket = new_bucket()

        def drop(name: str) -> None:
            (raw / f"{name}.mp4").write_bytes(b"local " + name.encode())
            body = b"remote " + name.encode()
            s3_client().put_object(Bucket=bucket, Key=f"raw/{name}.mp4", Body=body)

        drop("before")
        definitions = tmp_path / "toy_definitions.py"
        places = {"folder": str(raw), "bucket": f"s3://{bucket}/raw", "lake": str(lake.root)}
        definitions.write_text(DEFINITIONS.format(**places))
        start = [str(BIN / "dagster"), "sensor", "start", "raw_data_sensor", "-f", definitions]
        subprocess.run(start, check=True, timeout=LIMIT_S, capture_output=True)
        with dg.DagsterInstance.get() as instance:

            def requested() -> list[str]:
                return sorted(r.tags["dagster/partition"] for r in instance.get_runs())

            def materialized() -> list[str]:
                key = dg.AssetKey("video_manifest")
                return sorted(instance.get_materialized_partitions(key))

            with daemon(definitions, tmp_path / "log"):
                wait_for("shard", lambda: len(lake.shards()) > 0)
            # It was killed in the tick that registered, or soon after.
            drop("while it was dead")
            with daemon(definitions, tmp_path / "log"):
                wait_for("run of each shard", lambda: len(requested()) >= 4)
                drop("later")
                wait_for("end of the last run", lambda: len(materialized()) >= 6)
            assert requested() == materialized() == lake.shards()
            assert sorted(instance.get_dynamic_partitions(SHARDS)) == lake.shards()
        held = [f["uri"] for s in lake.shards() for f in lake.read_shard(s)["files"]]
        assert len(held) == len(set(held)) == 6
        seen = [v["uri"] for s in lake.shards() for v in lake.read("video_manifest", s).to_pylist()]
        assert sorted(seen) == sorted(held)
