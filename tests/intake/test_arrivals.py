"""Files join shards when they are complete, each once, whatever is killed in between."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from ego_assets.engine.runner import run_stage
from ego_assets.intake import arrivals as module
from ego_assets.intake import headers
from ego_assets.intake.arrivals import Arrivals, ScanReport
from ego_assets.intake.batches import Limits, close_batches
from ego_assets.intake.shards import find_files, register_files
from resources.lake import Lake, file_item_id
from resources.ledger import Ledger, State
from resources.ledger.contents import Contents, Duplicate
from resources.ledger.raw_files import GONE, MOVED, RawFiles, Seen, Waiting, mark_of
from resources.processes import fork_server
from resources.raw import local as raw_local
from resources.raw import reader as raw
from tests.engine.stage_bench import spec_for, write_video
from tests.resources.postgres import Postgres
from tests.resources.s3_server import new_bucket, s3_client, s3_server

LIMITS = Limits(settle_s=10, files=3, duration_s=1e9, wait_s=100)


class Place:
    """A folder of raw files, a lake, and a clock that the test moves."""

    def __init__(self, root: Path) -> None:
        self.raw = root / "raw"
        self.raw.mkdir()
        self.lake = Lake(root / "lake")
        self.ledger = Ledger.beside(root / "lake")
        self.now = 1000.0

    def put(self, name: str, data: bytes = b"x") -> Path:
        path = self.raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def look(self, after_s: float = 0.0, limits: Limits = LIMITS, **options: object) -> ScanReport:
        self.now += after_s
        made = Arrivals(self.lake, self.ledger, limits, clock=lambda: self.now)
        return made.look([str(self.raw)], **options)  # type: ignore[arg-type]

    def entered(self) -> Counter[str]:
        """How many shards hold each file."""
        return Counter(
            Path(f["uri"]).name
            for shard in self.lake.shards()
            for f in self.lake.read_shard(shard)["files"]
        )

    def requests(self) -> list[str]:
        return [r.run_key for r in RawFiles(self.ledger).open_requests(1000)]

    def asked_for(self) -> list[str]:
        return [r.shard for r in RawFiles(self.ledger).open_requests(1000)]

    def run(self, *stages: str) -> list[str]:
        """Do the runs that are asked for, or of these stages; the shards that had one."""
        files, had = RawFiles(self.ledger), []
        for request in files.open_requests(1000):
            self.make(request.shard, *(stages or ("video_manifest", "clips")))
            files.confirm([request.run_key])
            had.append(request.shard)
        return had

    def make(self, shard: str, *stages: str) -> None:
        for table in stages:
            run_stage(spec_for(table, self.lake, self.ledger, shard), isolate=False)

    def taken(self) -> dict[str, str]:
        """{video_id: name} of the accepted videos; each must have its clips, and only one file."""
        found: dict[str, str] = {}
        for shard in self.lake.shards():
            rows = self.lake.read("video_manifest", shard).to_pylist()
            accepted = {r["video_id"]: Path(r["uri"]).name for r in rows if r["accepted"]}
            assert not found.keys() & accepted.keys()
            assert {r["video_id"] for r in self.lake.read("clips", shard).to_pylist()} == set(
                accepted
            )
            found |= accepted
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_shard_closes_when_it_is_full_and_the_rest_on_time(place: Place) -> None:
    for number in range(4):
        place.put(f"{number}.mp4")
    assert place.look().new == 4
    assert place.look(5).shards == []
    full = place.look(6)
    assert len(full.shards) == 1
    assert full.waiting == 1
    assert place.look(80).shards == []
    assert len(place.look(10).shards) == 1
    assert place.entered() == Counter({f"{n}.mp4": 1 for n in range(4)})
    assert place.look(500).new == 0
    assert len(place.requests()) == 2


def test_a_file_that_grows_is_not_taken(place: Place) -> None:
    limits = replace(LIMITS, files=1)
    path = place.put("a.mp4", b"1")
    for size in range(2, 6):
        assert place.look(9, limits).shards == []
        path.write_bytes(b"1" * size)
    place.look(9, limits)
    (shard,) = place.look(10, limits).shards
    assert place.lake.read_shard(shard)["files"][0]["byte_size"] == 5


def test_a_file_that_vanished_is_forgotten(place: Place) -> None:
    path = place.put("a.mp4")
    place.look()
    path.unlink()
    assert place.look(200).shards == []
    assert RawFiles(place.ledger).waiting() == []


def test_a_file_written_over_is_a_new_video_of_its_shard(place: Place) -> None:
    limits = replace(LIMITS, files=1)
    path = place.put("a.mp4", b"one")
    place.look()
    (shard,) = place.look(10, limits).shards
    Contents(place.ledger).claim("0" * 16, str(path), shard, "f0")
    path.write_bytes(b"another")
    assert place.look(1, limits).superseded == []
    (old,) = place.look(10, limits).superseded
    assert (old.uri, old.shard, old.videos) == (str(path), shard, ("0" * 16,))
    assert place.look(50, limits).superseded == []
    assert place.asked_for() == [shard, shard]
    assert place.entered() == Counter({"a.mp4": 1})
    # The content that is gone may come again under another name.
    assert Contents(place.ledger).claim("0" * 16, "b.mp4", "s", "f1") == ("b.mp4", "s")


def test_a_content_that_comes_back_under_its_name_is_run_again(place: Place) -> None:
    """A-B-A-B, with equal versions, as S3's ETags are and `rsync -t` makes them."""
    limits = replace(LIMITS, files=1)
    place.put("a.mp4", b"B")
    place.look()
    place.look(20, limits)
    asked = set(place.requests())
    for number, data in enumerate((b"A", b"B", b"A", b"B"), start=2):
        os.utime(place.put("a.mp4", data * 4), (data[0], data[0]))
        place.look(1)
        assert len(place.look(20, limits).superseded) == 1
        asked.update(place.requests())
        assert len(asked) == number


def test_a_run_that_was_quicker_than_the_look_keeps_its_video(place: Place) -> None:
    limits = replace(LIMITS, files=1)
    write_video(place.raw / "a.mp4")
    place.look(limits=limits)
    place.look(20, limits)
    (shard,) = place.run()
    (first,) = place.taken()
    write_video(place.raw / "a.mp4", frames=15)
    place.make(shard, "video_manifest", "clips")
    (second,) = place.taken()
    place.look(20, limits)
    (old,) = place.look(20, limits).superseded
    assert old.videos == (first,)
    assert Contents(place.ledger).owner(second) == (str(place.raw / "a.mp4"), shard)


def test_a_file_that_changes_once_more_is_not_entered_again_yet(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its listing and its entry, as where listing takes longer than one look."""
    limits = replace(LIMITS, files=1)
    place.put("a.mp4", b"one")
    place.look(limits=limits)
    place.look(20, limits)
    place.put("a.mp4", b"another")
    place.look(20, limits)
    place.put("a.mp4", b"yet another")
    with monkeypatch.context() as patch:
        patch.setattr(module, "scan_raw", lambda *_: iter(()))
        assert place.look(20, limits).superseded == []
    assert len(place.look(20, limits).superseded) == 1


def test_a_duplicate_inherits_what_its_first_file_no_longer_holds(place: Place) -> None:
    """As cameras do: a name is used again after the film was copied to an archive."""
    limits = replace(LIMITS, files=1)
    write_video(place.raw / "a.mp4")
    place.look(limits=limits)
    place.look(20, limits)
    assert len(place.run()) == 1
    first = place.taken()
    (place.raw / "b.mp4").write_bytes((place.raw / "a.mp4").read_bytes())
    place.look(20, limits)
    place.look(20, limits)
    assert len(place.run()) == 1
    assert place.taken() == first
    write_video(place.raw / "a.mp4", frames=15)
    place.look(20, limits)
    found = place.look(20, limits)
    assert found.superseded[0].videos == tuple(first)
    assert sorted(place.run()) == place.lake.shards()
    (video,) = first
    taken = place.taken()
    assert sorted(taken.values()) == ["a.mp4", "b.mp4"]
    assert taken[video] == "b.mp4"
    place.look(20, limits)
    assert place.run() == []


def test_a_file_that_is_moved_keeps_its_shard_and_its_name_may_be_used_again(place: Place) -> None:
    """As cameras do: a name is used again after the film was moved to an archive."""
    limits = replace(LIMITS, files=1)
    write_video(place.raw / "a.mp4")
    place.look(limits=limits)
    place.look(20, limits)
    (shard,) = place.run()
    (video,) = place.taken()
    work = place.ledger.entries()
    (place.raw / "a.mp4").rename(place.put("archive/b.mp4"))
    place.look(20, limits)
    found = place.look(20, limits)
    old, new = str(place.raw / "a.mp4"), str(place.raw / "archive" / "b.mp4")
    assert found.moved == {old: new}
    assert (found.shards, found.superseded, found.waiting) == ([], [], 0)
    assert place.run() == []
    assert place.taken() == {video: "b.mp4"}
    untouched = ("stage", "item_id", "state", "fingerprint", "run_id", "finished_at", "attempts")
    assert [[getattr(e, n) for n in untouched] for e in place.ledger.entries()] == [
        [getattr(e, n) for n in untouched] for e in work
    ]
    (news,) = RawFiles(place.ledger).news(9)
    assert (news.kind, news.uri, news.shard, news.detail) == (MOVED, old, shard, new)
    write_video(place.raw / "a.mp4", frames=15)
    place.look(20, limits)
    assert place.look(20, limits).superseded == []
    (other,) = place.run()
    assert other != shard
    assert place.taken()[video] == "b.mp4"
    assert sorted(place.taken().values()) == ["a.mp4", "b.mp4"]
    for _ in range(2):
        found = place.look(20, limits)
        assert (found.moved, found.gone, found.new, place.run()) == ({}, {}, 0, [])


@pytest.mark.parametrize("stages", [("video_manifest", "clips"), ("clips",)])
def test_a_file_that_is_moved_before_its_stages_are_done_is_not_lost(
    place: Place, stages: tuple[str, ...]
) -> None:
    """stages: of the next run, which finds it where it is."""
    limits = replace(LIMITS, files=1)
    write_video(place.raw / "a.mp4")
    place.look(limits=limits)
    place.look(20, limits)
    (shard,) = place.run("video_manifest")
    (place.raw / "a.mp4").rename(place.raw / "b.mp4")
    place.look(20, limits)
    assert len(place.look(20, limits).moved) == 1
    place.make(shard, *stages)
    assert list(place.taken().values()) == ["b.mp4"]
    assert place.lake.shards() == [shard]
    place.look(20, limits)
    assert place.run() == []


def gone_before_clips(place: Place, limits: Limits) -> tuple[str, Path]:
    """Let a file be probed and go away before its clips are made. Returns its shard, and where it
    is now."""
    write_video(place.raw / "a.mp4")
    place.put("other.mp4")
    place.look(limits=limits)
    place.look(20, limits)
    place.run("video_manifest")
    shard = next(s for s in place.lake.shards() if "a.mp4" in str(place.lake.read_shard(s)))
    away = (place.raw / "a.mp4").rename(place.raw.parent / "a.mp4")
    place.make(shard, "clips")
    return shard, away


def test_a_file_that_a_stage_did_not_find_is_run_again_when_it_is_found(place: Place) -> None:
    limits = replace(LIMITS, files=1)
    shard, away = gone_before_clips(place, limits)
    assert place.ledger.entries(stage="clips")[0].state is State.DROPPED
    assert [n.kind for n in RawFiles(place.ledger).news(9)] == [GONE]
    place.look(20, limits)
    assert place.run() == []
    away.rename(place.raw / "deep.mp4")
    place.look(20, limits)
    assert len(place.look(20, limits).moved) == 1
    assert place.run() == [shard]
    assert list(place.taken().values()) == ["deep.mp4"]


@pytest.mark.parametrize("is_touched", [False, True], ids=["same", "touched"])
def test_a_file_that_comes_back_under_its_name_is_what_it_was(
    place: Place, is_touched: bool
) -> None:
    limits = replace(LIMITS, files=1)
    shard, away = gone_before_clips(place, limits)
    if is_touched:
        os.utime(away)
    place.look(20, limits)
    away.rename(place.raw / "a.mp4")
    place.look(20, limits)
    found = place.look(20, limits)
    assert (found.superseded, found.shards, found.waiting) == ([], [], 0)
    assert place.run() == [shard]
    assert list(place.taken().values()) == ["a.mp4"]


def test_a_deleted_file_is_told_of_once(place: Place) -> None:
    limits = replace(LIMITS, files=1)
    for name in ("a.mp4", "b.mp4"):
        write_video(place.raw / name, frames=12 if name == "a.mp4" else 15)
    place.look(limits=limits)
    place.look(20, limits)
    place.run()
    before = place.taken()
    (place.raw / "a.mp4").unlink()
    uri = str(place.raw / "a.mp4")
    assert list(place.look(20, limits).gone) == [uri]
    for _ in range(2):
        assert place.look(20, limits).gone == {}
        assert place.run() == []
    (news,) = RawFiles(place.ledger).news(9)
    assert (news.kind, news.uri) == (GONE, uri)
    assert place.taken() == before


@pytest.mark.parametrize("how", ["touch", "chmod", "copy"])
def test_a_file_that_is_only_touched_is_no_news(place: Place, how: str) -> None:
    """As `chmod -R` does it, or a folder that is copied to another disk."""
    limits = replace(LIMITS, files=1)
    file = place.raw / "a.mp4"
    write_video(file)
    place.look(limits=limits)
    place.look(20, limits)
    place.run()
    (video,) = place.taken()
    if how == "touch":
        os.utime(file)
    elif how == "chmod":
        file.chmod(0o600)
    else:
        shutil.copy2(file, place.raw / "copy.part")
        (place.raw / "copy.part").replace(file)
    assert place.look(20, limits).new == 1
    found = place.look(20, limits)
    assert (found.superseded, found.waiting, place.run()) == ([], 0, [])
    assert Contents(place.ledger).owner(video) == (str(file), place.lake.shards()[0])
    assert place.look(20, limits).new == 0


def test_a_file_that_is_replaced_with_size_and_time_kept_is_found(place: Place) -> None:
    limits = replace(LIMITS, files=1)
    file = place.raw / "a.mp4"
    write_video(file)
    place.look(limits=limits)
    place.look(20, limits)
    place.run()
    (old,) = place.taken()
    before, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    place.look(20, limits)
    assert place.look(20, limits).superseded[0].videos == (old,)
    place.run()
    (new,) = place.taken()
    assert new != old


def test_a_release_that_knew_sizes_and_times_only_does_not_enter_all_again(place: Place) -> None:
    for number in range(3):
        place.put(f"{number}.mp4", bytes([number]))
    place.look()
    place.look(20)
    with sa.create_engine(place.ledger.url).begin() as connection:
        for file_id, uri, size, version in connection.execute(
            sa.text("SELECT file_id, uri, byte_size, version FROM raw_files")
        ).all():
            old = version.partition(":")[0]
            values = {"id": file_id, "version": old, "mark": mark_of(uri, size, old)}
            update = "UPDATE raw_files SET version = :version, mark = :mark WHERE file_id = :id"
            connection.execute(sa.text(update), values)
    found = place.look(20)
    assert (found.new, found.waiting, found.superseded) == (0, 0, [])
    os.utime(place.raw / "1.mp4", (5, 5))
    assert place.look(20).new == 1


def test_files_of_a_mount_point_without_its_mount_are_not_taken_for_gone(place: Place) -> None:
    limits = replace(LIMITS, files=1)
    for name in ("a.mp4", "b.mp4"):
        write_video(place.raw / name, frames=12 if name == "a.mp4" else 15)
    place.look(limits=limits)
    place.look(20, limits)
    place.run()
    before, shards = place.taken(), place.lake.shards()
    os.utime(place.raw / "a.mp4")
    place.look(20, limits)
    away = place.raw.rename(place.raw.parent / "unmounted")
    place.raw.mkdir()
    for _ in range(2):
        found = place.look(20, limits)
        assert (found.gone, found.superseded, found.waiting) == ({}, [], 1)
    place.raw.rmdir()
    away.rename(place.raw)
    found = place.look(20, limits)
    assert (found.gone, found.superseded, found.waiting, place.run()) == ({}, [], 0, [])
    assert (place.taken(), place.lake.shards()) == (before, shards)


def test_a_shard_of_somebody_else_is_known_and_not_run_again(place: Place) -> None:
    place.put("a.mp4")
    (shard,) = register_files(place.lake, find_files([place.raw]).files)
    place.look()
    place.look(500)
    place.look(500)
    assert place.entered() == Counter({"a.mp4": 1})
    (request,) = RawFiles(place.ledger).open_requests(10)
    assert (request.shard, request.wants_run) == (shard, False)
    place.put("a.mp4", b"other")
    place.look()
    assert len(place.look(500).superseded) == 1


def test_a_link_out_of_the_folder_is_refused_once(place: Place) -> None:
    (place.raw.parent / "secret.mp4").write_bytes(b"s")
    (place.raw / "out.mp4").symlink_to("../secret.mp4")
    assert list(place.look().refused) == [str(place.raw / "out.mp4")]
    later = place.look(500)
    assert later.refused == {}
    assert later.waiting == 0


def test_whatever_an_entry_does_the_others_come_in_and_it_is_named_once(place: Place) -> None:
    for name in ("a.mp4", "n/b.mp4", "z.mp4"):
        place.put(name)
    (place.raw / "loop.mp4").symlink_to("loop.mp4")
    (place.raw / "n" / "loop").symlink_to("loop")
    os.mkfifo(place.raw / "n" / "pipe.mp4")
    subprocess.run(["mkdir", "-p", place.raw / ("d/" * 1100)], check=True)
    found = place.look()
    assert {Path(uri).name for uri in found.refused} == {"loop.mp4", "pipe.mp4"}
    assert (found.new, found.missing) == (3, [])
    later = place.look(500)
    assert (later.refused, later.waiting, len(later.shards)) == ({}, 0, 1)
    assert place.entered() == Counter({"a.mp4": 1, "b.mp4": 1, "z.mp4": 1})
    assert [n.kind for n in RawFiles(place.ledger).news(10)] == ["refused"] * 2
    subprocess.run(["rm", "-rf", place.raw / "d"], check=True)  # deeper than pytest removes


def become_loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def become_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def become_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def lose_folder_to_loop(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.symlink_to(file.parent.name)


@pytest.mark.parametrize("is_entered", [False, True], ids=["waiting", "in a shard"])
@pytest.mark.parametrize("become", [become_loop, become_pipe, become_folder, lose_folder_to_loop])
def test_what_becomes_no_file_while_it_waits_stops_no_other(
    place: Place, become: Callable[[Path], None], is_entered: bool
) -> None:
    file = place.put("n/a.mp4")
    place.put("b.mp4")
    place.look()
    if is_entered:
        place.look(150)
        file.write_bytes(b"another")
        place.look()
    become(file)
    place.put("c.mp4")
    for _ in range(3):
        place.look(150)
    wanted = {"b.mp4": 1, "c.mp4": 1} | ({"a.mp4": 1} if is_entered else {})
    assert place.entered() == Counter(wanted)
    assert place.look(150).waiting == 0


def test_a_deleted_file_is_told_of_though_another_place_is_not_there(
    place: Place, tmp_path: Path
) -> None:
    deleted = place.put("a.mp4")
    place.put("b.mp4")
    place.look()
    place.look(150)
    place.run()
    deleted.unlink()
    made = Arrivals(place.lake, place.ledger, LIMITS, clock=lambda: place.now)
    found = made.look([str(tmp_path / "not there"), str(place.raw)])
    assert len(found.missing) == 1
    assert list(found.gone) == [str(deleted)]


def test_a_file_that_cannot_be_seen_for_a_while_is_no_other_file(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in a shard; its disk has an error once. That is told, and nothing is made again."""
    place.put("a.mp4")
    place.look()
    place.look(500)
    real = raw_local._look_at

    def broken(child: Any, *rest: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error", child.path)

    monkeypatch.setattr(raw_local, "_look_at", broken)
    assert list(place.look().refused) == [str(place.raw / "a.mp4")]
    assert place.look(500).refused == {}
    monkeypatch.setattr(raw_local, "_look_at", real)
    found = place.look(500)
    assert (found.new, found.superseded, found.refused) == (0, [], {})
    assert [n.kind for n in RawFiles(place.ledger).news(10)] == ["refused"]
    assert len(place.requests()) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ELOOP])
def test_a_place_that_cannot_be_listed_does_not_stop_the_others(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    place.put("a.mp4")
    place.look()
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.mp4").write_bytes(b"b")
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path) == str(place.raw):
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    place.now += 500
    made = Arrivals(place.lake, place.ledger, LIMITS, clock=lambda: place.now)
    found = made.look([str(place.raw), str(loop), str(other)])
    assert (found.new, len(found.missing)) == (1, 2)
    assert place.entered() == Counter(), "what cannot be seen is left as it is"


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, fork_server.ForkServer]]:
    """Those that are kept by this process, from now on: none at first."""
    found: dict[str, fork_server.ForkServer] = {}
    monkeypatch.setattr(fork_server, "_shared", found)
    yield found
    for server in found.values():
        server.close()


def test_one_server_forks_what_reads_headers(
    place: Place, servers: dict[str, fork_server.ForkServer]
) -> None:
    path = place.raw / "a.mp4"
    write_video(path)
    started = []
    for _ in range(2):
        with headers.HeaderReader() as reader:
            assert reader.duration_s(path) == pytest.approx(1.2)
        started.append({server.process.pid for server in servers.values()})
    assert started[0] == started[1]
    assert len(started[0]) == 1


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize(
    "serves",
    [
        "def serve(*_): time.sleep(1e6)",
        "def serve(*_): os.abort()",
        "time.sleep(1e6)",  # the child does not even start
    ],
)
def test_a_file_that_takes_libav_along_takes_no_other_file_along(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serves: str
) -> None:
    """Headers are read in a child: one that hangs or dies costs an estimate."""
    (tmp_path / "ends_there.py").write_text(f"import os, time\n{serves}\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        place.put(name, b"x" * 1_000_000)
    monkeypatch.setattr(headers, "MAIN", "ends_there:serve")
    monkeypatch.setattr(headers, "LIMIT_S", 0.5)
    place.look()
    place.look(150)
    assert place.entered() == Counter({"a.mp4": 1, "b.mp4": 1, "c.mp4": 1})
    (shard,) = place.lake.shards()
    assert {f["duration_s"] for f in place.lake.read_shard(shard)["files"]} == {1.0}


def test_a_place_that_is_not_there_does_not_stop_the_others(place: Place) -> None:
    place.put("a.mp4")
    made = Arrivals(place.lake, place.ledger, LIMITS)
    found = made.look(["/no/such/folder", str(place.raw)])
    assert (found.new, len(found.missing)) == (1, 1)


def test_files_of_a_disk_that_is_not_mounted_are_not_taken_for_gone(place: Place) -> None:
    place.put("a.mp4")
    place.look()
    place.look(after_s=150)
    place.put("a.mp4", b"another")
    place.put("b.mp4")
    place.look()
    away = place.raw.rename(place.raw.parent / "unmounted")
    found = place.look(after_s=200)
    assert (len(found.missing), found.waiting, found.superseded) == (1, 2, [])
    away.rename(place.raw)
    found = place.look(after_s=1)
    assert [Path(s.uri).name for s in found.superseded] == ["a.mp4"]
    assert found.waiting == 0


def test_whether_a_file_is_gone_may_not_be_known(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that is closed to us: neither is its content handed on, nor does the look end."""
    place.put("a.mp4")
    lost = Duplicate("f", "s1", 0.0, ("s3://closed/a.mp4", "s2"))
    refused = ClientError({"Error": {"Code": "403"}}, "HeadObject")
    monkeypatch.setattr(Contents, "duplicates_of_missing", lambda *_: [lost])
    monkeypatch.setattr(module, "raw_version", Mock(side_effect=refused))
    found = place.look()
    assert (found.new, len(found.missing)) == (1, 1)
    assert "s3://closed/a.mp4" in found.missing[0]
    assert place.asked_for() == []


def test_many_files_written_over_at_once_come_in_pieces(place: Place) -> None:
    for n in range(9):
        place.put(f"{n}.mp4", bytes([n]))
    place.look()
    assert len(place.look(after_s=20).shards) == 3
    for n in range(9):
        place.put(f"{n}.mp4", bytes([n, n]))
    place.look()
    looks = [place.look(after_s=20, budget_s=0.0).superseded for _ in range(3)]
    assert [len(superseded) for superseded in looks] == [3, 3, 3]
    assert place.look().superseded == []


def test_a_bucket_that_is_not_there_does_not_stop_the_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("a.mp4")
    with s3_server(monkeypatch):
        bucket = f"s3://{new_bucket()}"
        s3_client().put_object(Bucket=bucket[5:], Key="raw/b.mp4", Body=b"b")
        limits = replace(LIMITS, files=1)

        def look() -> ScanReport:
            place.now += 20
            made = Arrivals(place.lake, place.ledger, limits, clock=lambda: place.now)
            return made.look(["s3://no-such-bucket/raw", f"{bucket}/raw", str(place.raw)])

        assert look().new == 2
        s3_client().delete_object(Bucket=bucket[5:], Key="raw/b.mp4")
        s3_client().delete_bucket(Bucket=bucket[5:])
        found = look()
    assert [m.partition(": ")[0] for m in found.missing] == [
        "s3://no-such-bucket/raw",
        f"{bucket}/raw",
    ]
    assert "NoSuchBucket" in found.missing[0]
    assert len(found.shards) == 1
    assert found.waiting == 1  # what is in a place that is away is not taken for gone
    assert place.entered() == Counter({"a.mp4": 1})


@pytest.mark.parametrize("where", ["bucket", "folder"])
def test_a_place_full_of_other_files_is_listed_to_its_end(
    place: Place, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures beside the videos: the time is asked between them, too."""
    names = [f"{n:04d}.jpg" for n in range(2500)] + ["z.mp4"]
    pages = 0
    if where == "folder":
        for name in names:
            (place.raw / name).touch()
        at = str(place.raw)
    else:

        class Client:
            def get_paginator(self, _: str) -> Client:
                return self

            def paginate(self, StartAfter: str = "", **_: str) -> Iterator[dict[str, Any]]:
                nonlocal pages
                rest = [f"raw/{n}" for n in names if f"raw/{n}" > StartAfter]
                for start in range(0, len(rest), 1000):
                    pages += 1
                    page = rest[start : start + 1000]
                    yield {"Contents": [{"Key": k, "Size": 1, "ETag": "x"} for k in page]}

        monkeypatch.setattr(raw, "make_client", Client)
        at = "s3://b/raw/"
    made = Arrivals(place.lake, place.ledger, LIMITS)
    resume, looks = None, 0
    while looks == 0 or resume:
        found = made.look([at], resume, 0.0)
        resume, looks = found.resume, looks + 1
    assert looks == (3 if where == "folder" else 4)
    assert len(RawFiles(place.ledger).waiting()) == 1
    assert pages <= looks


def test_a_first_import_comes_in_pieces(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES_AT_ONCE", 5)
    for number in range(14):
        place.put(f"{number:02d}.mp4")
    place.look()
    sizes = []
    for _ in range(4):
        shards = place.look(20).shards
        sizes.append([len(place.lake.read_shard(s)["files"]) for s in shards])
        known = RawFiles(place.ledger).waiting(measured=True)
        assert len(known) <= 5
    assert sizes == [[3], [3], [3], [3]]
    assert place.look(100).waiting == 0
    assert place.entered() == Counter({f"{n:02d}.mp4": 1 for n in range(14)})


def test_a_look_asks_the_database_for_new_files_only(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while many wait: else a first import costs the square of its files."""
    for number in range(9):
        place.put(f"{number}.mp4")
    assert place.look().waiting == 9
    asked: list[str] = []
    note = RawFiles.note

    def watched(files: RawFiles, seen: Sequence[Seen], now: float) -> int:
        asked.extend(Path(s.uri).name for s in seen)
        return note(files, seen, now)

    monkeypatch.setattr(RawFiles, "note", watched)
    place.put("new.mp4")
    place.put("3.mp4", b"it grew")
    assert place.look(after_s=5).listed == 10
    assert sorted(asked) == ["3.mp4", "new.mp4"]


def test_a_clock_that_is_put_back_keeps_no_file_waiting(place: Place) -> None:
    place.put("a.mp4")
    place.look(3600)
    place.now -= 3600
    place.look()
    assert len(place.look(120).shards) == 1


@pytest.mark.parametrize("line", range(5))
def test_a_look_that_is_killed_loses_and_doubles_nothing(
    place: Place, line: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before and after each write of a look; the next look ends with every file once."""

    class KilledError(Exception):
        pass

    for number in range(7):
        place.put(f"{number}.mp4")
    place.look()
    calls = 0

    def breaking(function):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls > line:
                raise KilledError
            found = function(*args, **kwargs)
            calls += 1
            if calls > line:
                raise KilledError
            return found

        return call

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shard", breaking(module.write_shard))
        patch.setattr(RawFiles, "enter", breaking(RawFiles.enter))
        with pytest.raises(KilledError):
            place.look(10)
    place.look(200)
    assert place.entered() == Counter({f"{n}.mp4": 1 for n in range(7)})
    assert sorted(place.asked_for()) == place.lake.shards()
    assert all(r.wants_run for r in RawFiles(place.ledger).open_requests(10))


def test_a_lost_database_is_made_again_from_the_lake(place: Place, tmp_path: Path) -> None:
    for number in range(6):
        place.put(f"{number}.mp4")
    place.look()
    place.look(10)
    place.ledger = Ledger(f"sqlite:///{tmp_path}/new/ledger.sqlite")
    place.look(500)
    place.look(500)
    assert place.entered() == Counter({f"{n}.mp4": 1 for n in range(6)})
    assert sorted(place.asked_for()) == place.lake.shards()


def test_a_look_out_of_time_goes_on_where_it_was(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    for name in ("a/1.mp4", "a/b/2.mp4", "a.mp4", "b.mp4", "c/3.mp4", "c/4.mp4", "d.mp4"):
        place.put(name)
    resume, looks = None, 0
    while looks == 0 or resume:
        found = place.look(resume=resume, budget_s=0.0)
        resume, looks = found.resume, looks + 1
    assert looks == 4
    assert len(RawFiles(place.ledger).waiting()) == 7


def test_a_ledger_on_postgres_does_the_same(place: Place) -> None:
    with Postgres.started() as server:
        place.ledger = Ledger(server.new_database())
        for number in range(4):
            place.put(f"{number}.mp4")
        place.look()
        (shard,) = place.look(10).shards
        path = place.put(Path(place.lake.read_shard(shard)["files"][0]["uri"]).name, b"other")
        place.look()
        (old,) = place.look(200).superseded
        assert old.uri == str(path)
        assert place.entered() == Counter({f"{n}.mp4": 1 for n in range(4)})
        files = RawFiles(place.ledger)
        assert len(files.open_requests(10)) == 3
        files.confirm(place.requests()[:2])
        assert len(files.open_requests(10)) == 1


def _waiting(number: int, duration_s: float, byte_size: int, first_seen: float) -> Waiting:
    uri = f"/raw/{number}.mp4"
    return Waiting(
        file_item_id(uri), uri, byte_size, "v", number, duration_s, first_seen, 0.0, None
    )


@given(
    st.lists(st.tuples(st.floats(0, 50), st.integers(0, 50), st.floats(0, 100)), max_size=40),
    st.floats(100, 300),
)
def test_batches_hold_the_limits_and_leave_only_what_may_wait(
    described: list[tuple[float, int, float]], now: float
) -> None:
    limits = Limits(files=5, byte_size=100, duration_s=100, wait_s=150)
    described.sort(key=lambda d: d[2])
    files = [_waiting(n, *values) for n, values in enumerate(described)]
    batches = close_batches(files, limits, now)
    taken = [w for batch in batches for w in batch]
    assert taken == files[: len(taken)]
    for batch in batches:
        assert len(batch) <= 5
        if len(batch) > 1:
            assert sum(w.byte_size for w in batch) <= 100
            assert sum(w.duration_s or 0 for w in batch) <= 100 + 1e-9
    rest = files[len(taken) :]
    assert len(rest) < 5
    assert all(now - w.first_seen < 150 for w in rest)


def test_scanning_goes_on_after_any_entry(place: Place) -> None:
    from resources.raw.reader import scan_raw

    for name in ("a/1.mp4", "a/b/2.mp4", "a.mp4", "b.mp4", "b!/x.mp4", "z/é.mp4", "z/f.mp4"):
        place.put(name)
    (place.raw / os.fsdecode(b"\xff.mp4")).write_bytes(b"x")
    entries = list(scan_raw(place.raw, frozenset([".mp4"])))
    assert len(entries) == 8
    for number, entry in enumerate(entries):
        rest = list(scan_raw(place.raw, frozenset([".mp4"]), entry.position))
        assert rest == entries[number + 1 :]
