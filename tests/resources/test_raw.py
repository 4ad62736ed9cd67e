"""Raw files: listed whatever their names, fetched once, kept while they are read, never written."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ego_assets.intake.shards import find_files
from resources.raw import reader as raw_module
from resources.raw import scratch as scratch_module
from resources.raw.reader import (
    RawChangedError,
    RawReader,
    path_of,
    raw_version,
    sidecar_of,
    uri_of,
)
from resources.raw.scratch import Scratch, ScratchError
from resources.raw.sidecars import find_sidecar, sidecar_state
from tests.resources.s3_server import new_bucket, s3_client, s3_server

ODD_NAMES = (
    b"plain.mp4",
    b"with space and 'quotes\".mp4",
    "кино 🎬.mp4".encode(),
    b"line\nbreak.mp4",
    b"not utf8 \xff\xfe.mp4",
    b"bell\x07.mp4",
    b"100%25.mp4",
    b"-rf.mp4",
    b"x" * 250 + b".mp4",
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_is_listed_and_leads_back_to_its_file(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.write_bytes(b"12345")
    (uri,) = find_files([tmp_path]).files
    assert uri.isprintable()
    assert uri.encode()
    assert path_of(uri) == path
    assert path_of(sidecar_of(uri)) == path.with_suffix(".camera.json")
    with RawReader().hold(uri) as held:
        assert held.read_bytes() == b"12345"


def test_a_link_out_of_its_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "raw" / "deep").mkdir(parents=True)
    (tmp_path / "raw" / "deep" / "own.mp4").write_bytes(b"own")
    (tmp_path / "raw" / "in.mp4").symlink_to("deep/own.mp4")
    (tmp_path / "raw" / "out.mp4").symlink_to("../secret.mp4")
    (tmp_path / "raw" / "dangling.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "raw" / "folder").symlink_to(tmp_path)
    found = find_files([tmp_path / "raw"])
    assert list(found.files) == [str(tmp_path / "raw" / "deep" / "own.mp4")]
    out = "a link that leads out of its folder is not followed"
    assert found.refused == {
        str(tmp_path / "raw" / "dangling.mp4"): "a link that leads to nothing",
        str(tmp_path / "raw" / "folder"): out,
        str(tmp_path / "raw" / "out.mp4"): out,
    }
    assert list(find_files([tmp_path / "raw" / "out.mp4"]).files) == [str(tmp_path / "secret.mp4")]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as endpoint:
        yield endpoint


@pytest.fixture
def bucket(server: str) -> str:
    return new_bucket()


def put(bucket: str, key: str, data: bytes) -> str:
    s3_client().put_object(Bucket=bucket, Key=key, Body=data)
    return f"s3://{bucket}/{key}"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The uris that were fetched, in order."""
    fetched: list[str] = []
    real = scratch_module._download

    def counted(part: Any, path: Path) -> None:
        fetched.append(part[0])
        real(part, path)

    monkeypatch.setattr(scratch_module, "_download", counted)
    return fetched


def test_a_bucket_is_listed_by_prefix_and_by_object(bucket: str) -> None:
    for key in (
        "raw/a.mp4",
        "raw/b.MOV",
        "raw/.c.mp4",
        "raw/.d/e.mp4",
        "raw/notes.txt",
        "raw2/f.mp4",
    ):
        put(bucket, key, b"12")
    wanted = {f"s3://{bucket}/raw/a.mp4": 2, f"s3://{bucket}/raw/b.MOV": 2}
    assert find_files([f"s3://{bucket}/raw"]).files == wanted
    assert find_files([f"s3://{bucket}/raw/"]).files == wanted
    assert list(find_files([f"s3://{bucket}/raw/notes.txt"]).files) == [
        f"s3://{bucket}/raw/notes.txt"
    ]
    assert len(find_files([f"s3://{bucket}"]).files) == 3
    with pytest.raises(FileNotFoundError, match="nothing"):
        find_files([f"s3://{bucket}/nothing"])


def test_the_calibration_of_a_folder_comes_along_from_s3(bucket: str, tmp_path: Path) -> None:
    uri = put(bucket, "raw/a.mp4", b"video")
    assert (find_sidecar(uri), sidecar_state(uri)) == (None, None)
    put(bucket, "raw/camera.yaml", b"of the folder")
    reader = RawReader(Scratch(tmp_path, 10**8))
    assert find_sidecar(uri) == f"s3://{bucket}/raw/camera.yaml"
    before = sidecar_state(uri)
    with reader.hold(uri) as path:
        assert path.with_suffix(".camera.yaml").read_bytes() == b"of the folder"
    put(bucket, "raw/a.camera.txt", b"its own")
    assert sidecar_state(uri) != before
    with reader.hold(uri) as path:
        assert path.with_suffix(".camera.txt").read_bytes() == b"its own"


@pytest.fixture
def asked(server: str) -> Iterator[list[str]]:
    """What S3 was asked, in order; of a listing it tells little at a time."""
    names: list[str] = []

    def ask(params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
        names.append(model.name)
        return params | ({"MaxKeys": 5} if model.name == "ListObjectsV2" else {})

    events = raw_module.make_client().meta.events
    events.register("provide-client-params.s3", ask, unique_id="asked")
    yield names
    events.unregister("provide-client-params.s3", unique_id="asked")


def test_a_calibration_is_found_among_all_that_is_named_alike(
    bucket: str, asked: list[str]
) -> None:
    """Also behind pages of recordings whose names begin with that of the calibration."""
    uri = put(bucket, "raw/camera.0000.mp4", b"video")
    for number in range(1, 12):
        put(bucket, f"raw/camera.{number:04d}.mp4", b"")
        put(bucket, f"raw/camera.left/{number}.png", b"")
        put(bucket, f"raw/camera.right{number:02d}.mp4", b"")
    assert find_sidecar(uri) is None
    put(bucket, "raw/camera.yml", b"{}")
    assert find_sidecar(uri) == f"s3://{bucket}/raw/camera.yml"
    put(bucket, "raw/camera.json", b"{}")
    asked.clear()
    assert find_sidecar(f"s3://{bucket}/raw/b.mp4") == f"s3://{bucket}/raw/camera.json"
    put(bucket, "raw/camera.0000.camera.txt", b"{}")
    assert find_sidecar(uri) == f"s3://{bucket}/raw/camera.0000.camera.txt"
    assert asked.count("ListObjectsV2") == len(asked) <= 6


def test_the_state_of_a_local_calibration_says_which_file_it_is(tmp_path: Path) -> None:
    uri = uri_of(tmp_path / "a.mp4")
    assert sidecar_state(uri) is None
    seen = []
    for name in ("camera.txt", "camera.json", "a.camera.yml", "a.camera.json"):
        (tmp_path / name).write_text("{}")
        assert find_sidecar(uri) == uri_of(tmp_path / name)
        seen.append(sidecar_state(uri))
    assert len(set(seen)) == 4


def test_an_object_is_fetched_once_with_its_calibration(
    bucket: str, tmp_path: Path, downloads: list[str]
) -> None:
    data = os.urandom(40_000_000)  # three parts
    uri = put(bucket, "raw/a b.mp4", data)
    put(bucket, "raw/a b.camera.json", b"{}")
    reader = RawReader(Scratch(tmp_path, 10**8))
    with reader.hold(uri) as path:
        assert path.name == "a b.mp4"
        assert path.read_bytes() == data
        assert path.with_suffix(".camera.json").read_bytes() == b"{}"
    with reader.hold(uri):
        pass
    assert len(downloads) == 2
    with (
        pytest.raises(RawChangedError, match="run video_manifest again"),
        reader.hold(uri, "0" * 64),
    ):
        pass


def test_another_version_is_another_copy(bucket: str, tmp_path: Path) -> None:
    reader = RawReader(Scratch(tmp_path, 1000))
    uri = put(bucket, "a.mp4", b"old")
    before = raw_version(uri)
    with reader.hold(uri) as old:
        put(bucket, "a.mp4", b"new!")
        assert raw_version(uri) != before
        with reader.hold(uri) as new:
            assert (old.read_bytes(), new.read_bytes()) == (b"old", b"new!")
    s3_client().delete_object(Bucket=bucket, Key="a.mp4")
    with pytest.raises(FileNotFoundError, match=r"a\.mp4"), reader.hold(uri):
        pass


def test_the_space_is_bounded_and_what_is_held_stays(
    bucket: str, tmp_path: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_module, "PATIENCE_S", 0.5)
    scratch = Scratch(tmp_path, 250)
    reader = RawReader(scratch)
    a, b, c = (put(bucket, f"{n}.mp4", n.encode() * 100) for n in "abc")
    with reader.hold(a) as held:
        for uri in (b, c, b):
            with reader.hold(uri):
                assert scratch.used_bytes() <= 250
        assert held.read_bytes() == b"a" * 100
    assert downloads == [a, b, c, b]  # a was held; b and c had one place between them
    no_room = pytest.raises(ScratchError, match="EGO_SCRATCH_GB")
    with reader.hold(a), reader.hold(b), no_room, reader.hold(c):
        pass
    with (
        pytest.raises(ScratchError, match="at most"),
        reader.hold(put(bucket, "d.mp4", b"d" * 251)),
    ):
        pass


def test_who_waits_for_room_gets_it_when_it_is_free(bucket: str, tmp_path: Path) -> None:
    reader = RawReader(Scratch(tmp_path, 150))
    a, b = (put(bucket, f"{n}.mp4", n.encode() * 100) for n in "ab")
    got: list[bytes] = []

    def read_b() -> None:
        with reader.hold(b) as path:
            got.append(path.read_bytes())

    thread = threading.Thread(target=read_b)
    with reader.hold(a):
        thread.start()
        time.sleep(0.5)
        assert got == []
    thread.join(30)
    assert got == [b"b" * 100]


def hold_many(
    uris: list[str], root: str, room: int, seed: int, environment: dict[str, str] | None = None
) -> None:
    os.environ.update(environment or {})  # a fork server has that of its own start
    reader = RawReader(Scratch(Path(root), room))
    for n in range(30):
        uri = uris[(seed + n * (seed + 1)) % len(uris)]
        with reader.hold(uri) as path:
            size = int(uri.rpartition("/")[2].removesuffix(".mp4"))
            assert path.read_bytes() == bytes([size % 256]) * size
            time.sleep(0.002)


def test_processes_share_it_and_some_are_killed(bucket: str, tmp_path: Path) -> None:
    sizes = [100, 101, 102, 103, 104, 105]
    uris = [put(bucket, f"{s}.mp4", bytes([s % 256]) * s) for s in sizes]
    context = multiprocessing.get_context("forkserver")
    workers = [
        context.Process(target=hold_many, args=(uris, str(tmp_path), 450, seed, dict(os.environ)))
        for seed in range(5)
    ]
    for worker in workers:
        worker.start()
    time.sleep(1.5)
    workers[0].kill()
    for worker in workers:
        worker.join(600)
    assert [w.exitcode for w in workers[1:]] == [0] * 4
    hold_many(uris, str(tmp_path), 450, 9)
    assert Scratch(tmp_path, 450).used_bytes() <= 450 + 64 * len(sizes)


def test_a_killed_fetch_is_begun_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(bucket, "a.mp4", b"a" * 100)
    scratch = Scratch(tmp_path, 150)

    def killed(part: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scratch_module, "_download", killed)
        patch.setattr(
            scratch_module.shutil, "rmtree", lambda *_, **__: None
        )  # it did not come to it
        with pytest.raises(KeyboardInterrupt), RawReader(scratch).hold(uri):
            pass
    with RawReader(scratch).hold(uri) as path:
        assert path.read_bytes() == b"a" * 100


def test_wrong_bytes_are_noticed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(bucket, "a.mp4", b"a" * 100)
    monkeypatch.setattr(scratch_module, "read_body", lambda *_, **__: b"b" * 100)
    with pytest.raises(ScratchError, match="checksum"), RawReader(Scratch(tmp_path, 150)).hold(uri):
        pass


def test_the_expired_goes(bucket: str, tmp_path: Path) -> None:
    reader = RawReader(Scratch(tmp_path, 10_000))
    with reader.hold(put(bucket, "a.mp4", b"a")) as old:
        pass
    long_ago = time.time() - scratch_module.EXPIRES_S - 1
    os.utime(old.parent / "ready", (long_ago, long_ago))
    with reader.hold(put(bucket, "b.mp4", b"b")):
        assert not old.exists()


def test_a_scratch_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to("theirs")
    monkeypatch.setenv("EGO_SCRATCH", str(tmp_path / "link"))
    with pytest.raises(ScratchError, match="EGO_SCRATCH"):
        Scratch.of_machine()
    monkeypatch.setenv("EGO_SCRATCH", str(tmp_path / "theirs"))
    monkeypatch.setenv("EGO_SCRATCH_GB", "0.5")
    assert Scratch.of_machine().max_bytes == 500_000_000


def test_a_uri_without_an_object_has_no_version(bucket: str) -> None:
    assert raw_version(f"s3://{bucket}/none.mp4") is None
    assert raw_version("/no/such/file.mp4") is None
    assert uri_of(Path("/a/b.mp4")) == "/a/b.mp4"
    with pytest.raises(ValueError, match="s3://bucket/prefix"):
        raw_module.bucket_and_key("s3://")
