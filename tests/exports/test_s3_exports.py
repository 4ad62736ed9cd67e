"""Exports to a bucket: what changed is uploaded, the index last, whatever is killed on the way."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dagster_project.cli.program import main
from ego_assets.exports.folder import damaged_files
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lerobot.settings import LeRobotSettings
from ego_assets.exports.lerobot.writer import write_dataset
from ego_assets.exports.s3.local_copy import damaged_objects, local_copy
from ego_assets.exports.webdataset.writer import write_shards
from resources.lake.s3.storage import S3Storage
from tests.exports.bars import number_in
from tests.exports.lerobot_reader import read, tree
from tests.exports.numbered import EGO, episode
from tests.exports.numbered_lake import MadeVideo, make, withdraw
from tests.exports.test_webdataset import CLIPS, made, samples, unreadable
from tests.resources.s3_server import new_bucket, s3_server

LEROBOT = LeRobotSettings(threads=1)


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(monkeypatch):
        yield f"s3://{new_bucket()}/sets/mine"


def content(out: str) -> dict[str, bytes]:
    storage = S3Storage(out)
    return {name: storage.read(name) for name in storage.everything()}


def write(out: str, numbers: tuple[int, ...], kept: tuple[int, ...] = ()) -> None:
    with local_copy(out) as folder:
        write_shards(folder, [*map(unreadable, made(*kept)), *made(*numbers)], CLIPS)


def uploads(monkeypatch: pytest.MonkeyPatch, fails_at: int = -1) -> list[str]:
    """Names that are uploaded from here on; at that one the process is as good as dead."""
    told: list[str] = []
    put, alone = S3Storage.put_file, threading.Lock()

    def spy(self: S3Storage, key: str, path: Path, condition: dict[str, str]) -> None:
        with alone:
            if len(told) == fails_at:
                raise KeyboardInterrupt
            told.append(key)
        put(self, key, path, condition)

    monkeypatch.setattr(S3Storage, "put_file", spy)
    return told


def test_a_bucket_has_what_a_folder_has_and_gets_what_changed(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path, made(0, 1, 2, 3), CLIPS)
    told = uploads(monkeypatch)
    write(out, (0, 1, 2, 3))
    assert content(out) == tree(tmp_path)
    assert told[-1] == "ego_export.json"
    told.clear()
    write(out, (), kept=(0, 1, 2, 3))
    assert told == []
    write(out, (4,), kept=(0, 1, 3))
    assert sorted(told[:2]) == ["train-000001.tar", "train-000002.tar"]
    assert told[2:] == ["sizes.json", "ego_export.json"]
    write_shards(tmp_path, made(0, 1, 3, 4), CLIPS)
    assert content(out) == tree(tmp_path)


@pytest.mark.parametrize(
    ("is_first", "fails_at"), [(False, 0), (False, 1), (False, 2), (False, 4), (True, 3)]
)
def test_an_upload_that_was_killed_leaves_no_half_changed_files(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_first: bool, fails_at: int
) -> None:
    """A video is joined again without its first episode, under the same name."""
    first = [episode(f"e{n}", 12, 100 * n) for n in range(3)]
    if not is_first:
        with local_copy(out) as folder:
            write_dataset(folder, first, LEROBOT)
    with monkeypatch.context() as patch:
        told = uploads(patch, fails_at)
        with pytest.raises(KeyboardInterrupt), local_copy(out) as folder:
            write_dataset(folder, first[1:], LEROBOT)
        assert len(told) == fails_at
    before = content(out)
    with pytest.raises(ExportError, match="away"), local_copy(out) as folder:
        raise ExportError(f"{folder} is away")
    assert content(out) == before, "a reader may still have use for it"
    with local_copy(out) as folder:
        assert all((folder / name).exists() for name in told), "what has arrived is kept"
        write_dataset(folder, first[1:], LEROBOT)
    storage = S3Storage(out)
    for name, data in content(out).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    found = read(tmp_path)
    assert [row["number"] for row in found.rows] == [*range(100, 112), *range(200, 212)]
    assert all(number_in(found.picture(row, EGO)) == row["number"] for row in found.rows)
    assert not [name for name in storage.everything() if name.startswith((".", "_"))]
    told = uploads(monkeypatch)
    with local_copy(out) as folder:
        assert write_dataset(folder, first[1:], LEROBOT).encoded == 0
    assert told == []


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3])
def test_a_first_upload_that_was_killed_goes_on(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    write_shards(tmp_path, made(0, 1, 2, 3), CLIPS)
    with monkeypatch.context() as patch:
        told = uploads(patch, fails_at)
        with pytest.raises(KeyboardInterrupt):
            write(out, (0, 1, 2, 3))
    assert told[2:] == ["sizes.json"][: fails_at - 2]
    arrived = {n for n in range(4) if f"train-00000{n // 2}.tar" in told}
    write(out, tuple({*range(4)} - arrived), kept=tuple(arrived))
    assert damaged_objects(out) == {}
    with local_copy(out) as folder:
        assert samples(folder) == samples(tmp_path)
    named = [
        name
        for part in json.loads(content(out)["ego_export.json"])["parts"]
        for name in part["files"]
    ]
    assert sorted(content(out)) == sorted([*named, "ego_export.json", "sizes.json"])


@pytest.mark.parametrize("fails_at", [0, 1, 3])
def test_a_deletion_that_was_killed_goes_on(
    out: str, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    write(out, (0, 1, 2, 3))
    delete, told = S3Storage.delete, []

    def spy(self: S3Storage, key: str) -> None:
        if not key.startswith("_locks/"):
            if len(told) == fails_at:
                raise KeyboardInterrupt
            told.append(key)
        delete(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(S3Storage, "delete", spy)
        with pytest.raises(KeyboardInterrupt):
            write(out, ())
    S3Storage(out).write("mine.txt", b"x")
    with pytest.raises(ExportError, match="holds other files"):
        write(out, ())
    assert content(out) == {"mine.txt": b"x"}


def test_a_mark_that_cannot_be_read_stops_the_export(out: str) -> None:
    for mark in (b"[]", b"{", b'{"files": {}, "indexes": {"x": ""}}'):
        S3Storage(out).write(".ego_export/uploading.json", mark)
        with pytest.raises(ExportError, match=r"uploading.json cannot be read"):
            write(out, (0,))


def test_an_export_below_another_one_is_left_alone(out: str) -> None:
    write(out, (0, 1))
    inner = {"in/ego_export.json": b"{}", "in/.ego_export/uploading.json": b"{}"}
    for name, data in inner.items():
        S3Storage(out).write(name, data)
    write(out, (2,), kept=(0, 1))
    assert inner.items() <= content(out).items()


def test_files_are_copied_side_by_side(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=20)
    put, read = S3Storage.put_file, S3Storage.open

    def put_with_another(self: S3Storage, key: str, *more: Any) -> None:
        if key.endswith(".tar"):
            both.wait()
        put(self, key, *more)

    def read_with_another(self: S3Storage, key: str) -> Any:
        if key.endswith(".tar"):
            both.wait()
        return read(self, key)

    monkeypatch.setattr(S3Storage, "put_file", put_with_another)
    monkeypatch.setattr(S3Storage, "open", read_with_another)
    write(out, (0, 1, 2, 3))
    write(out, (), kept=(0, 1, 2, 3))


def test_a_full_disk_is_told_with_its_path(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(out, (0,))

    def copy(*of: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", copy)
    with pytest.raises(OSError, match=r"No space left on device: '/.*/export/ego_export.json'"):
        write(out, (), kept=(0,))


def test_check_compares_each_object_with_the_index(out: str) -> None:
    def check(place: str = out) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["export", "check", place])
        return done.exit_code, done.output

    assert check() == (
        1,
        f"Error: {out} has no ego_export.json: it is no export that can be checked\n",
    )
    write(out, (0, 1, 2, 3))
    assert check() == (0, "all files are as they were written\n")
    storage = S3Storage(out)
    storage.delete("train-000000.tar")
    data = storage.read("train-000001.tar")
    storage.write("train-000001.tar", data[:-1] + b"x")
    status, told = check()
    assert status == 1 and told.startswith(
        "train-000000.tar is missing\ntrain-000001.tar has other bytes than were written\n"
    )
    storage.write("train-000001.tar", data[:-1])
    assert f"train-000001.tar has {len(data) - 1:,} bytes instead of {len(data):,}" in check()[1]
    assert check("s3://no-such-bucket/x")[0] == 1


def test_other_files_in_a_bucket_are_left_alone(out: str) -> None:
    S3Storage(out).write("mine.txt", b"x")
    with pytest.raises(ExportError, match=r"holds other files \(mine.txt\), and no export"):
        write(out, (0,))
    assert content(out) == {"mine.txt": b"x"}
    with pytest.raises(ExportError, match="s3://no-such-bucket/x"):
        write("s3://no-such-bucket/x", (0,))


def test_the_command_exports_to_a_bucket_and_takes_back_what_is_withdrawn(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out += " of all"
    lake = make(tmp_path, MadeVideo(count=90))
    command = ["export", "webdataset", "--lake", str(lake.lake.root), "--out", out]
    done = CliRunner().invoke(main, [*command, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["out"] == out
    with local_copy(out) as folder:
        assert len(samples(folder)) == 1 and damaged_files(folder) == {}
    assert f"aws s3 cp --recursive '{out}' FOLDER" in CliRunner().invoke(main, command).stdout
    rule = ["config", "lake", "--lake", str(lake.lake.root), "--faces"]
    with monkeypatch.context() as patch:
        patch.delattr(S3Storage, "everything")  # nor is anything downloaded before it is refused
        assert CliRunner().invoke(main, [*rule, "blur"]).exit_code == 0
        assert "the rule of this lake for faces" in CliRunner().invoke(main, command).output
        assert CliRunner().invoke(main, [*rule, "keep"]).exit_code == 0
    withdraw(lake)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert f"The episodes that were in {out} (1) are deleted" in done.output
    assert content(out) == {}
