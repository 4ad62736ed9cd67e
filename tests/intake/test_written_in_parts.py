"""A raw file that is written in parts is taken once, whole, whoever looks in between."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ego_assets.intake.shards import find_files
from resources.ledger import State
from tests.engine.raw_bench import RawBench, wait_until
from tests.intake.test_arrivals import LIMITS, Place
from tests.resources.s3_server import new_bucket, s3_client, s3_server
from tests.support.numbered_video import write_numbered

APPENDING = """
import os, pathlib, sys, time
source, target, stop = map(pathlib.Path, sys.argv[1:])
data = source.read_bytes()
with target.open("wb", buffering=0) as file:
    file.write(data[:-4000])
    for byte in data[-4000:-1]:
        if stop.exists():
            break
        file.write(bytes([byte]))
        time.sleep(0.005)
    rest = file.tell()
    while not stop.exists():  # whoever is slow to read it still sees it change
        os.utime(target)
        time.sleep(0.005)
    file.write(data[rest:])
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def video(tmp_path: Path) -> bytes:
    path = write_numbered(tmp_path / "whole.mp4", 45, mux={"movflags": "faststart"})
    return path.read_bytes()


def test_pauses_that_are_longer_than_the_settle_time_leave_no_rejection(
    place: Place, video: bytes
) -> None:
    limits = replace(LIMITS, files=1)
    path = place.put("a.mp4", video[:200])
    seen = []
    for share in (0.02, 0.4, 0.7, 1.0, 1.0):
        place.look(0, limits)
        place.look(11, limits)
        place.run()
        (row,) = (
            r for s in place.lake.shards() for r in place.lake.read("video_manifest", s).to_pylist()
        )
        seen.append((row["accepted"], row["byte_size"], row["missing_s"]))
        with path.open("r+b") as file:
            file.write(video[: int(len(video) * share)])
    assert place.entered() == Counter({"a.mp4": 1})
    assert seen[0][:2] == (False, 200)
    assert seen[-1] == (True, len(video), None)
    assert list(place.taken().values()) == ["a.mp4"]
    counts = place.ledger.counts()
    for table in ("video_manifest", "clips"):
        assert counts[table] == {State.DONE: 1}


def test_a_file_that_changes_while_it_is_read_is_taken_when_it_is_whole(
    tmp_path: Path, video: bytes
) -> None:
    bench = RawBench(tmp_path / "bench", videos=1)
    path, stop = bench.raw / "growing.mp4", tmp_path / "stop"
    command = [sys.executable, "-c", APPENDING, tmp_path / "whole.mp4", path, stop]
    with subprocess.Popen([*map(str, command)]) as writer:
        try:
            wait_until(lambda: path.exists() and path.stat().st_size > len(video) - 4000)
            bench.run(stages=("probe", "split"))
            rows = {Path(r["uri"]).name: r for r in bench.manifest()}
        finally:
            stop.touch()
        writer.wait(30)
    assert rows["a.mp4"]["accepted"]
    assert "growing.mp4" not in rows
    bench.run(stages=("probe", "split"))
    row = bench.video("growing.mp4")
    assert (row["accepted"], row["byte_size"]) == (True, len(video))
    assert row["missing_s"] is None
    assert bench.counts(State.QUARANTINED)[:2] == [0, 0]
    before = bench.work()
    bench.run(stages=("probe", "split"))
    assert bench.work() == before


TEMPORARY = [
    ".GX010012.MP4.aB3xYz",
    ".~tmp~/GX010012.MP4",
    ".rsync-partial/GX010012.MP4",
    "GX010012.MP4.part",
    "GX010012.MP4.crdownload",
    "GX010012.MP4.filepart",
    "GX010012.MP4.tmp",
    "GX010012.MP4.aria2",
]
"""Names of rsync (also with --delay-updates and --partial-dir), browsers, WinSCP, curl, aria2."""


def test_names_of_what_is_still_copied_are_not_listed(tmp_path: Path) -> None:
    for name in [*TEMPORARY, "GX010013.MP4"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = find_files([tmp_path])
    assert [Path(uri).name for uri in found.files] == ["GX010013.MP4"]
    assert found.refused == {}


def test_on_s3_nothing_is_listed_before_it_is_whole(
    monkeypatch: pytest.MonkeyPatch, video: bytes
) -> None:
    with s3_server(monkeypatch):
        bucket, client = new_bucket(), s3_client()
        for name in [*TEMPORARY, "other.mp4"]:
            client.put_object(Bucket=bucket, Key=f"raw/{name}", Body=b"x")
        where = {"Bucket": bucket, "Key": "raw/GX010012.MP4"}
        upload = client.create_multipart_upload(**where)["UploadId"]
        parts = []
        body = video.ljust(5 * 2**20, b"\0")
        for number, data in enumerate((body, video), 1):
            etag = client.upload_part(**where, UploadId=upload, PartNumber=number, Body=data)[
                "ETag"
            ]
            parts.append({"ETag": etag, "PartNumber": number})
            listed = find_files([f"s3://{bucket}/raw"]).files
            assert [uri.rpartition("/")[2] for uri in listed] == ["other.mp4"]
        client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
        listed = find_files([f"s3://{bucket}/raw"]).files
        assert listed[f"s3://{bucket}/raw/GX010012.MP4"] == len(body) + len(video)
