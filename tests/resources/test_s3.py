"""The lake on an S3 server: the same promises as in a folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ego_assets.engine.errors import ErrorKind, classify
from ego_assets.engine.runner import run_stage
from ego_assets.upkeep import audit
from resources.lake import Lake, LakeError
from resources.lake.s3 import client
from resources.lake.s3 import storage as s3_module
from resources.lake.s3.storage import S3Storage
from resources.lake.storage import ChangedError, UnsafeKeyError
from resources.ledger import Ledger, State
from resources.processes import process_name
from resources.storage import Storage
from tests.engine.stage_bench import make_bench
from tests.resources.s3_server import most_inside, new_bucket, s3_client, s3_server
from tests.resources.test_lake import SHARD, first_x, publish


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as endpoint:
        yield endpoint


@pytest.fixture
def storage(server: str) -> S3Storage:
    return S3Storage(f"s3://{new_bucket()}/some/lake")


@pytest.fixture
def lake(storage: S3Storage) -> Lake:
    return Lake(storage.location)


def test_bytes_come_back_and_missing_ones_are_missing(storage: S3Storage) -> None:
    assert not storage.is_lake()
    storage.write("a/b/c.bin", b"hello")
    assert storage.read("a/b/c.bin") == b"hello"
    with storage.open("a/b/c.bin") as file:
        assert file.read(2) == b"he"
    assert (storage.exists("a/b/c.bin"), storage.exists("a/b")) == (True, False)
    assert storage.is_lake()
    storage.delete("a/b/c.bin")
    for look in (storage.read, storage.open):
        with pytest.raises(FileNotFoundError):
            look("a/b/c.bin")


def test_a_bucket_that_is_away_is_no_missing_file(storage: S3Storage) -> None:
    """A server that is coming back may not know its buckets yet: that is waited out."""
    storage.write("a/b.bin", b"x")
    client = s3_client()
    client.delete_object(Bucket=storage.bucket, Key="some/lake/a/b.bin")
    client.delete_bucket(Bucket=storage.bucket)
    uses: list[Callable[[], object]] = [
        lambda: storage.exists("a/b.bin"),
        lambda: storage.read("a/b.bin"),
        lambda: storage.open("a/b.bin"),
        lambda: storage.size("a/b.bin"),
        lambda: storage.list("a"),
        lambda: list(storage.walk("a")),
        lambda: storage.write("a/b.bin", b"y"),
        lambda: storage.write("a/c.bin", b"y", replace=False),
        lambda: storage.lock("a").__enter__(),
    ]
    for use in uses:
        with pytest.raises(Exception) as error:
            use()
        assert classify(error.value) is ErrorKind.TRANSIENT, error.value
    client.create_bucket(Bucket=storage.bucket)
    assert not storage.exists("a/b.bin")


def test_a_folder_lists_its_own_keys_only(storage: S3Storage) -> None:
    for key in ("a/2", "a/1", "a/b/3", "ab/4"):
        storage.write(key, b"x")
    assert storage.list("a") == ["a/1", "a/2"]
    assert storage.list("none") == []


def test_of_many_that_create_one_wins(storage: S3Storage) -> None:
    won: list[int] = []

    def create(number: int) -> None:
        mine = S3Storage(storage.location)
        if mine.write("shards/x.json", str(number).encode(), replace=False):
            won.append(number)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(n).encode() for n in won] == [storage.read("shards/x.json")]


@pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", "a\nb", "a\x00b", "", "x" * 300])
def test_unsafe_keys_are_refused(storage: S3Storage, key: str) -> None:
    with pytest.raises(UnsafeKeyError):
        storage.write(key, b"") if key else storage.read(key) or storage.uri(key)


def test_a_file_is_uploaded_whole_or_not_at_all(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "SINGLE_PUT_BYTES", 6 * 2**20)
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 * 2**20)
    data = bytes(range(256)) * 50_000
    with storage.open_aside("big") as file:
        file.write(data)
        file.raw.flush()
    assert storage.read("big") == data
    with pytest.raises(RuntimeError), storage.open_aside("big") as file:
        file.write(b"half")
        raise RuntimeError("killed")
    assert storage.read("big") == data
    where = {"Bucket": storage.bucket, "Key": "some/lake/left"}
    storage.client.create_multipart_upload(**where)
    assert storage.sweep_aside(1e10) == 0
    assert storage.sweep_aside(0) == 1


def test_a_writer_that_read_an_older_version_is_refused(storage: S3Storage) -> None:
    assert storage.version("k") is None
    storage.write("k", b"one")
    seen = storage.version("k")
    storage.write("k", b"two")
    for version in (seen, None):
        with pytest.raises(ChangedError), storage.open_aside("k", version=version) as file:
            file.write(b"late")
            file.raw.flush()
        assert storage.read("k") == b"two"
    with storage.open_aside("k", version=storage.version("k")) as file:
        file.write(b"three")
        file.raw.flush()
    assert storage.read("k") == b"three"


def test_a_lock_keeps_others_out_and_an_old_one_is_broken(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert most_inside(storage, threads=6) == 1
    # A dead process of this machine is known soon; one of another by its age.
    monkeypatch.setattr(s3_module, "GRACE_S", 1.0)
    where, pid, began = process_name().rsplit(":", 2)
    storage.write(f"_locks/t/{where}:{pid}:{int(began) - 1}.a", b"")
    with storage.lock("t"):
        pass
    assert storage.list("_locks/t") == []
    storage.write("_locks/t/elsewhere:1:1.b", b"")
    entered = threading.Thread(target=most_inside, args=(storage, 1))
    entered.start()
    entered.join(1.5)
    assert entered.is_alive()
    monkeypatch.setattr(s3_module, "LOCK_S", 1.0)
    monkeypatch.setattr(s3_module, "LOCK_BEAT_S", 0.3)
    entered.join(30)
    assert storage.list("_locks/t") == []


def test_a_lock_is_kept_however_long_it_is_held(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process of which nothing is known but that it puts its lock again and again."""
    monkeypatch.setattr(s3_module, "LOCK_S", 2.0)
    monkeypatch.setattr(s3_module, "LOCK_BEAT_S", 1.0)
    monkeypatch.setattr(s3_module, "process_name", lambda: "elsewhere:1:1")
    inside = threading.Event()
    leaves = threading.Event()

    def hold() -> None:
        with storage.lock("t"):
            inside.set()
            leaves.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(30)
    entered = threading.Thread(target=most_inside, args=(storage, 1))
    entered.start()
    entered.join(7)
    assert entered.is_alive()
    leaves.set()
    holder.join()
    entered.join(30)
    assert storage.list("_locks/t") == []


def test_rows_once_late_attempts_never(lake: Lake) -> None:
    publish(lake, "a", 1, "old", token=10)
    publish(lake, "a", 2, "newer", token=20)
    assert first_x(lake, "a") == 2
    assert lake.compact("hand_poses", SHARD, ["a"]) == 5
    publish(lake, "a", 1, "late", token=15)
    assert first_x(lake, "a") == 2
    publish(lake, "b", 3, token=30)
    assert lake.compact("hand_poses", SHARD, ["a", "b"]) == 10
    assert lake.newest_fragments("hand_poses", SHARD) == {}
    assert lake.fingerprints("hand_poses", SHARD) == {"a": "newer", "b": "f"}
    assert lake.scan("hand_poses").collect().height == 10
    with pytest.raises(LakeError, match="no local folder"):
        _ = lake.root


@pytest.mark.slow
def test_a_stage_on_s3_is_audited_damaged_and_mended(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    bench = make_bench(tmp_path, {"v0": 3, "v1": 2}, lake)
    spec = replace(bench.spec, lake_root=lake.location, ledger_url=ledger.url)
    report = run_stage(spec, workers=2)
    assert (report.done, report.failures) == (5, [])
    assert run_stage(replace(spec, run_id="again"), workers=1).skipped == 5
    mine = [p for p in audit.verify(lake, ledger) if p.table == "object_movements"]
    assert mine == []
    key = f"object_movements/{SHARD}.parquet"
    data = bytearray(lake.storage.read(key))
    data[100] ^= 1
    client = s3_client()
    where = {"Bucket": lake.location.split("/")[2], "Key": f"some/lake/{key}"}
    client.put_object(**where, Body=bytes(data))
    (found,) = [p for p in audit.verify(lake, ledger) if p.table == "object_movements"]
    assert (found.kind, len(found.units)) == ("damaged", 5)
    assert audit.repair(lake, ledger, [found])["units"] == 5
    assert run_stage(replace(spec, run_id="third"), workers=2).done == 5
    assert lake.read("object_movements", SHARD).num_rows == 5
    assert ledger.counts() == {"object_movements": {State.DONE: 5}}
    assert lake.storage.exists(f"_damaged/{key}")


def test_keys_of_the_configuration_reach_workers_and_not_the_environment(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = new_bucket()
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    storage = Storage(
        lake_root=f"s3://{bucket}/lake",
        s3_endpoint_url=server,
        s3_region="us-east-1",
        s3_access_key_id="key",
        s3_secret_access_key="not-for-others",  # pragma: allowlist secret
    )
    try:
        bench = make_bench(tmp_path, {"short": 1}, lake=storage.lake())
        spec = replace(bench.spec, backend="tests.engine.fake_backends:FakeEstimator")
        assert run_stage(spec, workers=1).done == 1
        assert bench.lake.read("object_movements", SHARD).num_rows
        assert "not-for-others" not in str(os.environ) + repr(client.used_account())
    finally:
        client.use_account(client.S3Account())
