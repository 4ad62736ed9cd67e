"""What is added to the raw lake appears whole, under a name that nothing had."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ego_assets.intake.shards import VIDEO_SUFFIXES
from resources.lake.storage import UnsafeKeyError
from resources.raw.additions import RawTarget, folders_aside, open_target
from resources.raw.reader import list_raw
from tests.resources.s3_server import new_bucket, s3_server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as endpoint:
        yield endpoint


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "folder":
        return str(tmp_path / "raw")
    request.getfixturevalue("server")
    monkeypatch.setenv("EGO_SCRATCH", str(tmp_path / "scratch"))
    return f"s3://{new_bucket()}/raw"


def put(target: RawTarget, name: str, data: bytes) -> bool:
    with target.aside() as folder:
        path = folder / "x.part"
        path.write_bytes(data)
        done = target.add(path, name)
        path.unlink()
        return done


def test_a_file_is_added_once(place: str) -> None:
    target = open_target(place)
    assert put(target, "k/a.mp4", b"first")
    assert not put(target, "k/a.mp4", b"second")
    assert not target.write("k/a.mp4", b"third")
    assert list(list_raw([place], VIDEO_SUFFIXES).files.items()) == [(target.uri("k/a.mp4"), 5)]
    assert target.size("k/a.mp4") == 5
    assert target.size("k/b.mp4") is None
    assert target.sha256("k/a.mp4").startswith("a7937b64")


def test_a_video_is_found_whatever_its_suffix(place: str) -> None:
    target = open_target(place)
    put(target, "a.txt", b"x")
    put(target, "a.mkv", b"x")
    put(target, "a.b.mp4", b"x")
    assert target.video_named("a") == "a.mkv"
    assert target.video_named("a.b") == "a.b.mp4"
    assert target.video_named("b") is None


def test_what_is_not_whole_is_not_listed(place: str) -> None:
    target = open_target(place)
    put(target, "a.mp4", b"x")
    with target.aside() as folder:
        (folder / "b.mp4").write_bytes(b"half")
        assert [Path(uri).name for uri in list_raw([place], VIDEO_SUFFIXES).files] == ["a.mp4"]


@pytest.mark.parametrize("name", ["../a.mp4", "/a.mp4", "a//b.mp4", "a\n.mp4"])
def test_no_name_leads_out(place: str, name: str) -> None:
    with pytest.raises(UnsafeKeyError):
        put(open_target(place), name, b"x")


def test_no_link_leads_out(tmp_path: Path) -> None:
    target = open_target(str(tmp_path / "raw"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "raw" / "k").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="leads out"):
        put(target, "k/a.mp4", b"x")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that knows no hard links."""

    def no_link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)


def check_the_first_stays(tmp_path: Path) -> None:
    target = open_target(str(tmp_path / "raw"))
    with target.aside() as folder:
        (folder / "x").write_bytes(b"first")
        (folder / "y").write_bytes(b"second")
        assert target.add(folder / "x", "a.mp4")
        assert not target.add(folder / "y", "a.mp4")
    assert (tmp_path / "raw" / "a.mp4").read_bytes() == b"first"


@pytest.mark.usefixtures("without_links")
@pytest.mark.parametrize("can_rename", [True, False])
def test_a_file_system_without_links_has_it_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_rename: bool
) -> None:
    if not can_rename:
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    check_the_first_stays(tmp_path)


@pytest.mark.usefixtures("without_links")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM])
def test_a_file_system_that_knows_neither_has_it_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Libc:
        def renameat2(self, *_: object) -> int:
            ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc())
    check_the_first_stays(tmp_path)


def test_without_links_a_file_that_comes_at_that_moment_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = open_target(str(tmp_path / "raw"))
    theirs = tmp_path / "raw" / "a.mp4"

    def no_link(*_: object) -> None:
        theirs.write_bytes(b"theirs")
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # it was looked at before
    with target.aside() as folder:
        (folder / "x").write_bytes(b"ours")
        assert not target.add(folder / "x", "a.mp4")
        assert (folder / "x").read_bytes() == b"ours"
    assert theirs.read_bytes() == b"theirs"


def test_each_prefix_has_its_own_folder_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv("EGO_SCRATCH", str(tmp_path / "scratch"))
    bucket = new_bucket()
    places = [f"s3://{bucket}/one", f"s3://{bucket}/two", f"s3://{bucket}/one/"]
    folders = []
    for place in places:
        with open_target(place).aside() as folder:
            folders.append(folder)
    assert folders[0] == folders[2] != folders[1]
    assert set(folders_aside([])) == set(folders)
