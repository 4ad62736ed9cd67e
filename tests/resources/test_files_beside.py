"""Files beside a video: found by name, known by version, read only if they are plain and small."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from resources.raw import sidecars
from resources.raw.reader import RawReader
from resources.raw.scratch import Scratch
from resources.raw.sidecars import beside_state, find_beside, hold_beside
from tests.resources.s3_server import new_bucket, s3_client, s3_server

OF_VIDEO = "ab" * 32
SUFFIXES = (".telemetry.csv", ".telemetry.mcap")


def held(uri: str, reader: RawReader | None = None) -> list[bytes | None]:
    """What is in the files beside a video; None for those that must not be read."""
    found = []
    for each, version in find_beside(uri, SUFFIXES).items():
        with hold_beside(reader or RawReader(), each, version, OF_VIDEO) as path:
            found.append(None if path is None else path.read_bytes())
    return found


def test_they_are_named_like_the_video(tmp_path: Path) -> None:
    video = tmp_path / "a.b.mp4"
    for name in ("a.telemetry.csv", "telemetry.csv", "a.b.mp4.telemetry.csv", "x.telemetry.mcap"):
        (tmp_path / name).write_text("another's")
    assert find_beside(str(video), SUFFIXES) == {} == find_beside(str(video), ())
    (tmp_path / "a.b.telemetry.csv").write_text("mine")
    assert held(str(video)) == [b"mine"]


def test_another_content_is_another_version(tmp_path: Path) -> None:
    video, file = str(tmp_path / "v.mp4"), tmp_path / "v.telemetry.csv"
    file.write_text("1")
    first = find_beside(video, SUFFIXES)
    assert first == find_beside(video, SUFFIXES)
    file.write_text("22")
    assert find_beside(video, SUFFIXES) != first


def test_another_name_of_the_video_is_no_other_state(tmp_path: Path) -> None:
    before, after = tmp_path / "v.mp4", tmp_path / "day" / "w.mp4"
    after.parent.mkdir()
    for name in ("v.mp4", "v.telemetry.csv"):
        (tmp_path / name).write_text("1")
    state = beside_state(str(before), SUFFIXES)
    assert state is not None and [part[0] for part in state] == [".telemetry.csv"]
    before.rename(after)
    assert beside_state(str(before), SUFFIXES) is None
    assert beside_state(str(after), SUFFIXES) == []
    (tmp_path / "v.telemetry.csv").rename(after.with_name("w.telemetry.csv"))
    assert beside_state(str(after), SUFFIXES) == state


def test_a_permission_that_changes_is_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v.telemetry.csv").write_text("1")
    first = find_beside(str(tmp_path / "v.mp4"), SUFFIXES)
    monkeypatch.setattr(os, "access", lambda *given, **more: False)
    assert find_beside(str(tmp_path / "v.mp4"), SUFFIXES) != first


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "large", "gone"])
def test_what_must_not_be_read_is_not(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other = tmp_path / "v.telemetry.csv", tmp_path / "secret"
    other.write_text("secret")
    if kind == "link":
        file.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_text("12345")
    (tmp_path / "v.mp4").write_text("video")
    ((place, version),) = find_beside(str(tmp_path / "v.mp4"), SUFFIXES).items()
    if kind == "large":
        monkeypatch.setattr(sidecars, "MAX_BESIDE_BYTES", 4)
    if kind == "gone":
        file.unlink()
    with hold_beside(RawReader(), place, version, OF_VIDEO) as path:
        assert path is None


def test_of_a_bucket_they_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_SCRATCH", str(tmp_path))
    with s3_server(monkeypatch):
        bucket = new_bucket()
        video = f"s3://{bucket}/day/v.mp4"
        client = s3_client()
        for name in ("v.mp4", "v.telemetry.csv", "v.telemetry.csv.bak", "w.telemetry.mcap"):
            client.put_object(Bucket=bucket, Key=f"day/{name}", Body=name.encode())
        first = find_beside(video, SUFFIXES)
        assert list(first) == [f"s3://{bucket}/day/v.telemetry.csv"]
        assert held(video) == [b"v.telemetry.csv"]
        client.put_object(Bucket=bucket, Key="day/v.telemetry.csv", Body=b"other")
        assert find_beside(video, SUFFIXES) != first and held(video) == [b"other"]
        monkeypatch.setattr(sidecars, "MAX_BESIDE_BYTES", 4)
        assert held(video) == [None]


def test_who_erases_a_video_erases_the_copies_of_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_SCRATCH", str(tmp_path))
    with s3_server(monkeypatch):
        bucket, client = new_bucket(), s3_client()
        for name in ("v.telemetry.csv", "w.telemetry.csv"):
            client.put_object(Bucket=bucket, Key=name, Body=b"latitude of " + name.encode())
        assert held(f"s3://{bucket}/v.mp4") == [b"latitude of v.telemetry.csv"]
        ((place, version),) = find_beside(f"s3://{bucket}/w.mp4", SUFFIXES).items()
        scratch = Scratch.of_machine()
        with hold_beside(RawReader(), place, version, "cd" * 32) as path:
            assert path is not None and scratch.erase(OF_VIDEO) == 0
            assert scratch.erase("cd" * 32) == 1 and path.exists()
        left = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
        assert not any(b"latitude of v" in data for data in left)
        assert any(b"latitude of w" in data for data in left)


def test_of_a_bucket_that_is_away_nothing_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch):
        assert beside_state(f"s3://{new_bucket()}/v.mp4", SUFFIXES) == []
        assert beside_state("s3://was-deleted/v.mp4", SUFFIXES) is None
        assert beside_state("s3://was-deleted/v.mp4", ()) == []
