"""The lake on an S3 server that keeps what it acknowledged and refuses a wrong secret."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from ego_assets.engine.errors import ErrorKind, classify
from ego_assets.engine.runner import run_stage
from ego_assets.intake.shards import find_files, register_files
from ego_assets.upkeep import audit
from resources.lake import Lake
from resources.lake.s3.storage import S3Storage
from resources.ledger import Ledger, State
from resources.raw.reader import RawReader, raw_version
from resources.raw.scratch import Scratch
from tests.engine.stage_bench import make_bench
from tests.resources.s3_server import most_inside, new_bucket, s3_client
from tests.resources.swift_server import SwiftServer, swift_server
from tests.resources.test_lake import SHARD, first_x, publish

pytestmark = pytest.mark.slow
EGO = str(Path(sys.executable).with_name("ego"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    folder = tmp_path_factory.mktemp("swift")
    with pytest.MonkeyPatch.context() as patch, swift_server(folder, patch) as running:
        yield running


@pytest.fixture
def storage(server: SwiftServer) -> S3Storage:
    return S3Storage(f"s3://{new_bucket()}/some/lake")


def test_of_many_who_write_first_what_one_wrote_stays(storage: S3Storage) -> None:
    """Seldom the server tells two that they were first: what must be first has a lock besides."""

    def write(number: int) -> bool:
        return S3Storage(storage.location).write("shards/a.json", b"%d" % number, replace=False)

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(write, range(16)))
    assert 1 <= sum(won) < 16
    assert won[int(storage.read("shards/a.json"))]
    assert not write(16)


def test_files_are_registered_once_by_however_many(storage: S3Storage, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.mp4").write_bytes(b"x")
    files = find_files([tmp_path]).files

    def register(_: int) -> list[str]:
        return register_files(Lake(storage.location), files, min_shards=3)

    with ThreadPoolExecutor(6) as pool:
        made = [key for keys in pool.map(register, range(6)) for key in keys]
    lake = Lake(storage.location)
    assert sorted(made) == lake.shards()
    held = [f["uri"] for shard in lake.shards() for f in lake.read_shard(shard)["files"]]
    assert sorted(held) == sorted(files)


def test_rows_arrays_compaction_history(storage: S3Storage) -> None:
    lake = Lake(storage.location)
    publish(lake, "a", 1, "old", token=10)
    publish(lake, "a", 2, "newer", token=20)
    publish(lake, "b", 5, token=1)
    assert first_x(lake, "a") == 2
    assert lake.compact("hand_poses", SHARD, ["a", "b"]) == 10
    publish(lake, "a", 3, "newest", token=30)
    assert lake.compact("hand_poses", SHARD, ["a", "b"]) == 10
    assert (first_x(lake, "a"), first_x(lake, "b")) == (3, 5)
    assert len(storage.list(f"hand_poses/_history/{SHARD}")) == 2
    assert storage.list("_locks/hand_poses." + SHARD) == []


def test_locks_hold_here_too(storage: S3Storage) -> None:
    assert most_inside(storage, threads=5) == 1
    assert storage.list("_locks/t") == []


def test_raw_videos_come_from_it(storage: S3Storage, tmp_path: Path) -> None:
    data = bytes(range(256)) * 100_000  # two parts
    s3_client().put_object(Bucket=storage.bucket, Key="raw/a.mp4", Body=data)
    uri = f"s3://{storage.bucket}/raw/a.mp4"
    assert raw_version(uri) is not None
    with RawReader(Scratch(tmp_path, 10**9)).hold(uri) as path:
        assert path.read_bytes() == data


def test_a_wrong_secret_is_told_once_and_not_shown(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write("k", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-77f0")
    with pytest.raises(ClientError) as refused:
        S3Storage(storage.location).write("k", b"y")
    assert classify(refused.value) is ErrorKind.PERMANENT
    done = subprocess.run(
        [EGO, "status", "--lake", storage.location], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: S3: ClientError")
    assert len(done.stderr.splitlines()) <= 3
    assert "wrong-secret-77f0" not in done.stdout + done.stderr


def test_the_server_is_killed_in_mid_run_and_comes_back(
    server: SwiftServer, storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    videos = {f"v{n}": 6 for n in range(6)}
    bench = make_bench(tmp_path, videos, Lake(storage.location))
    clips = [r["clip_id"] for r in bench.lake.read("clips", bench.spec.shard).to_pylist()]
    for clip in clips:
        bench.behave(clip, sleep_s=0.3, hang=1000)
    acknowledged: set[str] = set()

    def blackout() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            done = ledger.entries(stage="object_movements", states=[State.DONE])
            if len(done) >= 4:
                break
            time.sleep(0.05)
        server.kill()
        acknowledged.update(e.item_id for e in ledger.entries(states=[State.DONE]))
        time.sleep(8)
        server.start()

    thread = threading.Thread(target=blackout)
    thread.start()
    report = run_stage(replace(bench.spec, ledger_url=ledger.url), workers=2)
    thread.join()
    assert 4 <= len(acknowledged) < len(clips), "it was killed in mid-run"
    assert report.failures == []
    assert (report.done, report.quarantined) == (len(clips), 0)
    rows = bench.lake.read("object_movements", bench.spec.shard)
    assert sorted(rows["clip_id"].to_pylist()) == sorted(clips)
    problems = audit.verify(bench.lake, ledger)
    assert [p for p in problems if p.table == "object_movements"] == []
    # None that was acknowledged is done again, and no attempt was charged for the outage.
    entries = ledger.entries(stage="object_movements")
    assert {e.attempts for e in entries} == {1}
    assert all(bench.attempts(clip) == 1 for clip in acknowledged)
