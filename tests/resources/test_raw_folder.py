"""A raw folder holds whatever somebody put there: it is listed, or refused by name, alone."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ego_assets.intake.shards import VIDEO_SUFFIXES, find_files
from resources.raw import local as raw_local
from resources.raw.reader import (
    RawMovedError,
    RawReader,
    RawRefusedError,
    path_of,
    raw_version,
    scan_raw,
    uri_of,
)
from resources.raw.scratch import Scratch
from resources.raw.sidecars import sidecar_version
from tests.resources.s3_server import new_bucket, s3_client, s3_server


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[Path]:
    """A folder with two good videos, one of them deep."""
    folder = tmp_path / "raw"
    (folder / "n").mkdir(parents=True)
    (folder / "a.mp4").write_bytes(b"a")
    (folder / "n" / "z.mp4").write_bytes(b"zz")
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)  # pytest's own cannot remove all of it


def nest(folder: Path, name: str, depth: int, leaf: str) -> None:
    """Folders in folders, deeper than a path can be."""
    place = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=place)
        inner = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open(leaf, os.O_WRONLY | os.O_CREAT, dir_fd=place))
    os.close(place)


def names(listing: dict[str, Any], folder: Path) -> list[str]:
    return [str(path_of(uri).relative_to(folder)) for uri in listing]


def test_one_bad_entry_refuses_itself(raw: Path) -> None:
    (raw / "loop.mp4").symlink_to("loop.mp4")
    (raw / "ping.mp4").symlink_to("pong.mp4")
    (raw / "pong.mp4").symlink_to("ping.mp4")
    (raw / "circle").symlink_to("circle")
    (raw / "long.mp4").symlink_to("x" * 300)
    (raw / "zero.mp4").symlink_to("/dev/zero")
    os.mkfifo(raw / "pipe.mp4")
    os.mkfifo(raw / "no_video")
    (raw / "to_pipe.mp4").symlink_to("pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(raw)
        server.bind("socket.mp4")
        os.chdir(before)
    found = find_files([raw])
    assert names(found.files, raw) == ["a.mp4", "n/z.mp4"]
    why = {str(path_of(uri).relative_to(raw)): words for uri, words in found.refused.items()}
    circle = "a link that leads in a circle"
    assert why == {
        "long.mp4": "its path is longer than the system opens (names 255 bytes, paths 4,095)",
        "loop.mp4": circle,
        "ping.mp4": circle,
        "pipe.mp4": "a named pipe, not a file",
        "pong.mp4": circle,
        "socket.mp4": "a socket, not a file",
        "to_pipe.mp4": "a link to a named pipe, not to a file",
        "zero.mp4": "a link that leads out of its folder is not followed",
    }


def test_a_place_that_makes_no_sense_is_said(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe.mp4")
    for place, words in {
        "loop": "circle",
        "pipe.mp4": "a named pipe",
        "x" * 300: "longer",
        "none": "no file or folder",
    }.items():
        with pytest.raises(FileNotFoundError, match=words):
            find_files([tmp_path / place])
    with pytest.raises(FileNotFoundError, match="no file or folder ~nobody_of_that_name"):
        find_files(["~nobody_of_that_name/raw"])


def test_folders_may_be_nested_as_deep_as_a_path_goes(raw: Path) -> None:
    nest(raw, "d", 1100, "deep.mp4")
    nest(raw, "w" * 250, 20, "wide.mp4")
    found = find_files([raw])
    assert [Path(n).name for n in names(found.files, raw)] == ["a.mp4", "deep.mp4", "z.mp4"]
    ((uri, why),) = found.refused.items()
    assert "/wwww" in uri
    assert why.startswith("a folder that cannot be listed: its path is longer")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EIO, "it cannot be read (Input/output error)"),
        (errno.EACCES, "this user may not read it (permission denied)"),
        (errno.ESTALE, "it cannot be read (Stale file handle)"),
    ],
)
def test_a_folder_that_cannot_be_listed_is_named(
    raw: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("/n"):
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_files([raw])
    assert names(found.files, raw) == ["a.mp4"]
    assert found.refused == {str(raw / "n"): f"a folder that cannot be listed: {words}"}
    with pytest.raises(FileNotFoundError, match="cannot be listed"):
        find_files([raw / "n"])


def test_a_listing_goes_on_after_any_position(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_local, "LISTING_PAGE", 2)
    for folder in ("b", "b/c", "b/c/d", "empty", "empty/e1", "empty/e2", "o"):
        (raw / folder).mkdir()
        (raw / folder / "notes.txt").touch()
    for name in ("b/1.mp4", "b/c/2.mp4", "b/c/d/3.mp4", "b.mp4", "o/x.mp4", "b/c.mp4"):
        (raw / name).touch()
    (raw / "b" / "c" / "loop.mp4").symlink_to("loop.mp4")
    (raw / "m.mp4").symlink_to("m.mp4")
    nest(raw, "w" * 250, 20, "wide.mp4")
    everything = list(scan_raw(raw, VIDEO_SUFFIXES))
    assert sum(bool(e.refused) for e in everything) == 3
    assert sum(bool(e.uri) for e in everything) == 11
    assert any(not e.uri for e in everything), "a listing that finds nothing says where it is"
    for number, entry in enumerate(everything):
        rest = [e.uri for e in scan_raw(raw, VIDEO_SUFFIXES, entry.position) if e.uri]
        assert rest == [e.uri for e in everything[number + 1 :] if e.uri], entry.position


def replace_by_link(path: Path) -> None:
    outside = path.parent.parent / "outside.mp4"
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_parent(path: Path) -> None:
    moved = path.parent.rename(path.parent.with_name("moved"))
    path.parent.symlink_to(moved)


@pytest.mark.parametrize(
    ("replace", "words"),
    [
        (replace_by_link, "a link by now"),
        (replace_by_pipe, "a named pipe by now"),
        (replace_by_folder, "a folder by now"),
        (replace_parent, "a folder of its path is a link by now"),
    ],
)
def test_what_is_another_thing_by_now_is_not_read(raw: Path, replace: Any, words: str) -> None:
    (uri, *_) = find_files([raw / "n"]).files
    before = raw_version(uri)
    replace(raw / "n" / "z.mp4")
    assert before is not None
    assert raw_version(uri) is None
    error = RawMovedError if replace is replace_parent else RawRefusedError
    with pytest.raises(error, match=words), RawReader().hold(uri):
        pass


def test_a_calibration_that_is_refused_is_still_seen_to_change(raw: Path, tmp_path: Path) -> None:
    uri, secret = uri_of(raw / "a.mp4"), tmp_path / "secret"
    secret.write_text("1")
    versions = [sidecar_version(uri)]
    sidecar = raw / "a.camera.json"
    sidecar.symlink_to(secret)
    versions.append(sidecar_version(uri))
    secret.write_text("12")
    versions.append(sidecar_version(uri))
    sidecar.unlink()
    sidecar.write_text("123")
    versions.append(sidecar_version(uri))
    sidecar.unlink()
    os.mkfifo(sidecar)
    versions.append(sidecar_version(uri))
    assert len(set(versions)) == len(versions)
    assert sidecar_version(uri_of(raw / f"{'x' * 251}.mp4")) is None


ODD_KEYS = {
    "raw//empty.mp4": "",
    "raw/%2e%2e.mp4": "",
    "raw/a b+c&d?e#f.mp4": "",
    f"raw/{'k' * 1016}.mp4": "",
    "raw/ü カ\u3000.mp4": "",
    "raw/a\\b.mp4": "",
    "raw/../up.mp4": "lead to another object",
    "raw/./here.mp4": "lead to another object",
    "raw/bell\x07.mp4": "control characters",
    "raw/\x1b[31m.mp4": "control characters",
    "raw/slash.mp4/": "taken for a folder",
    "raw/.hidden/x.mp4": "-",
}


def test_odd_keys_are_read_or_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with s3_server(monkeypatch):
        bucket = new_bucket()
        for key in ODD_KEYS:
            s3_client().put_object(Bucket=bucket, Key=key, Body=key.encode())
        found = find_files([f"s3://{bucket}/raw"])
        wanted = {k: len(k.encode()) for k, why in ODD_KEYS.items() if not why}
        prefix = f"s3://{bucket}/"
        assert {u.removeprefix(prefix): n for u, n in found.files.items()} == wanted
        for uri in found.files:
            assert raw_version(uri) is not None
            assert sidecar_version(uri) is None  # also where its key would be too long
            with RawReader(Scratch(tmp_path, 10**6)).hold(uri) as path:
                assert path.read_bytes().decode() == uri.removeprefix(prefix)
        refused = {k: why for k, why in ODD_KEYS.items() if why not in ("", "-")}
        assert len(found.refused) == len(refused)
        assert all(uri.isprintable() for uri in found.refused)
        for why in refused.values():
            assert sum(why in words for words in found.refused.values()) == list(
                refused.values()
            ).count(why)
