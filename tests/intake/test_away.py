"""A raw folder that is away is waited for, and nobody is charged; a file that is missing where its
neighbours are is a missing file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ego_assets.engine.outage import Outage
from ego_assets.intake import absence, sources
from ego_assets.videos.clips import ClipSplitter
from resources.ledger import Ledger, State
from resources.raw import presence
from resources.raw.presence import RawAwayError, RawGoneError, RawUnreadError, look_at
from resources.raw.reader import RawChangedError, RawReader, look
from tests.engine.raw_bench import RawBench, is_missed, wait_until, write_video

BAD = [State.QUARANTINED, State.FAILED, State.DROPPED, State.PENDING]


@pytest.fixture
def bench(tmp_path: Path) -> RawBench:
    return RawBench(tmp_path)


class Place:
    """A raw folder that goes away, and comes back. empty: as a mount point stays that has lost its
    mount."""

    def __init__(self, folder: Path, empty: bool = False) -> None:
        self.folder = folder
        self.empty = empty
        self.kept = folder.with_name(f"{folder.name}.unmounted")

    def leave(self) -> None:
        self.folder.rename(self.kept)
        if self.empty:
            self.folder.mkdir()
            (self.folder / "NOT_MOUNTED.txt").touch()

    def come_back(self) -> None:
        if self.empty:
            (self.folder / "NOT_MOUNTED.txt").unlink()
            self.folder.rmdir()
        self.kept.rename(self.folder)


@contextmanager
def in_background(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """Results, and errors, of work that goes on beside the block, and is waited for."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        thread.join(300)
        assert not thread.is_alive()


def undisturbed(tmp_path: Path, videos: int = 3) -> list[Any]:
    """The rows of an undisturbed run over the same videos."""
    return comparable(run_through(RawBench(tmp_path / "undisturbed", videos)))


def run_through(bench: RawBench) -> RawBench:
    bench.run()
    return bench


def comparable(bench: RawBench) -> list[Any]:
    keep = {"video_id", "clip_id", "frame_count", "path_length", "displacement_px", "accepted"}
    return sorted(
        [
            (table, sorted((k, v) for k, v in row.items() if k in keep))
            for table, rows in bench.rows().items()
            for row in rows
        ],
        key=str,
    )


@pytest.mark.parametrize("is_empty", [False, True], ids=["renamed", "empty mount point"])
def test_a_folder_that_comes_and_goes_changes_nothing(
    bench: RawBench, tmp_path: Path, is_empty: bool
) -> None:
    expected = undisturbed(tmp_path)
    bench.register()
    place = Place(bench.raw, is_empty)
    over = threading.Event()

    def run() -> dict[str, Any]:
        try:
            return bench.make(workers=2)
        finally:
            over.set()

    with in_background(run) as results:
        for _ in range(4):
            place.leave()
            wait_until(lambda: over.is_set() or is_missed(bench.ledger))
            place.come_back()
            wait_until(lambda: over.is_set() or not is_missed(bench.ledger))
    (reports,) = results
    assert [r.failed + r.gone for r in reports.values()] == [0, 0, 0]
    assert bench.counts(State.DONE) == [3, 3, 3]
    assert not any(any(bench.counts(state)) for state in BAD)
    assert comparable(bench) == expected
    assert all(e.attempts == 1 for e in bench.ledger.entries())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_that_goes_while_a_clip_is_read_costs_no_attempt(
    bench: RawBench, tmp_path: Path, workers: int
) -> None:
    expected = undisturbed(tmp_path)
    bench.run(stages=("probe", "split"))
    place = Place(bench.raw)
    for clip in bench.rows()["clips"]:
        (bench.signals / f"{clip['clip_id']}.until").touch()
    with in_background(lambda: bench.make(stages=("clip",), workers=workers)) as results:
        wait_until(lambda: [*bench.signals.glob("*.opened")])
        place.leave()
        (bench.signals / "go").touch()
        wait_until(lambda: is_missed(bench.ledger))
        place.come_back()
    assert (results[0]["clip"].failed, results[0]["clip"].done) == (0, 3)
    assert comparable(bench) == expected
    assert all(e.attempts == 1 for e in bench.ledger.entries())


def test_a_folder_that_was_away_only_while_a_file_was_opened_is_no_fault_of_it(
    bench: RawBench,
) -> None:
    """There before, there after: the error itself tells."""
    path = bench.raw / "a.mp4"
    place = Place(bench.raw)
    with (
        pytest.raises(RawUnreadError, match="could not be read: No such"),
        RawReader().hold(str(path)),
    ):
        place.leave()
        try:
            path.read_bytes()
        finally:
            place.come_back()
    # Something else that is not found is something else.
    with pytest.raises(FileNotFoundError, match="other") as error, RawReader().hold(str(path)):
        Path("/no/such/other").read_bytes()
    assert not isinstance(error.value, RawAwayError | RawGoneError)


def test_what_is_there_goes_on_while_another_folder_is_away(bench: RawBench) -> None:
    other = bench.root / "other"
    other.mkdir()
    write_video(other / "x.mp4", frames=30, light=150)
    bench.register(bench.raw, other)
    bench.make(stages=("probe", "split"))
    place = Place(other)
    place.leave()
    done = lambda: bench.counts(State.DONE)[2]  # noqa: E731
    with in_background(lambda: bench.make(stages=("clip",), workers=1)) as results:
        wait_until(lambda: done() == 3)
        place.come_back()
    assert results[0]["clip"].failed == 0
    assert bench.counts(State.DONE) == [4, 4, 4]


@pytest.mark.parametrize("is_empty", [False, True], ids=["renamed", "empty mount point"])
def test_what_is_done_stays_done_while_its_folder_is_away(bench: RawBench, is_empty: bool) -> None:
    """As `ego stale --run` found healthy rows in quarantine."""
    bench.run()
    work, rows = bench.work(), bench.rows()
    place = Place(bench.raw, is_empty)
    place.leave()
    reports = bench.make()
    assert [r.failed + r.gone for r in reports.values()] == [0, 0, 0]
    assert reports["probe"].gone_files == {}
    assert (bench.work(), bench.rows()) == (work, rows)
    place.come_back()
    bench.run()
    assert (bench.work(), bench.rows()) == (work, rows)


def test_what_stays_away_is_given_up_with_both_reasons_and_comes_back_by_itself(
    bench: RawBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(stages=("probe", "split"))
    place = Place(bench.raw)
    place.leave()
    for module in (absence, sources):
        monkeypatch.setattr(module, "AWAY_S", 0.5)
        monkeypatch.setattr(module, "UNSEEN_S", 0.5)
    reports = bench.make(workers=1)
    assert (reports["clip"].gone, reports["clip"].failed) == (3, 0)
    assert bench.counts(State.DROPPED) == [0, 0, 3]
    (why, *_) = {e.error or "" for e in bench.ledger.entries(states=[State.DROPPED])}
    assert "deleted or moved away, or its disk is not mounted" in why
    assert len(bench.sources.untold(bench.lake.shards())) == 3
    # Who runs it again does not wait again.
    monkeypatch.setattr(absence, "AWAY_S", 1e9)
    monkeypatch.setattr(sources, "AWAY_S", 1e9)
    assert [r.failed + r.gone for r in bench.make().values()] == [0, 0, 0]
    place.come_back()
    bench.run()
    assert bench.counts(State.DONE) == [3, 3, 3]
    assert bench.sources.gone() == []


def test_a_new_file_whose_folder_goes_is_neither_rejected_nor_lost(bench: RawBench) -> None:
    bench.register()
    place = Place(bench.raw)
    place.leave()
    with in_background(lambda: bench.make(stages=("probe",), workers=1)) as results:
        wait_until(lambda: is_missed(bench.ledger))
        place.come_back()
    assert results[0]["probe"].failed == 0
    assert [r["accepted"] for r in bench.manifest()] == [True] * 3


def test_a_file_that_is_deleted_while_a_clip_is_read_is_gone_and_nothing_else(
    bench: RawBench,
) -> None:
    bench.run(stages=("probe", "split"))
    victim = bench.video("b.mp4")["video_id"]
    for clip in bench.rows()["clips"]:
        (bench.signals / f"{clip['clip_id']}.until").touch()
    with in_background(lambda: bench.make(stages=("clip",), workers=3)) as results:
        wait_until(lambda: [*bench.signals.glob(f"{victim}*.opened")])
        (bench.raw / "b.mp4").unlink()
        (bench.signals / "go").touch()
    report = results[0]["clip"]
    assert (report.done, report.gone, report.failed) == (2, 1, 0)
    assert bench.counts(State.DROPPED) == [0, 0, 1]
    assert [r["video_id"] == victim for r in bench.rows()["object_movements"]] == [False, False]


def test_a_file_that_is_renamed_while_a_clip_is_read_is_followed(bench: RawBench) -> None:
    bench.run(stages=("probe", "split"))
    victim = bench.video("b.mp4")["video_id"]
    with sa.create_engine(bench.ledger.url).begin() as connection:  # it was there for a while
        inode = (bench.raw / "b.mp4").stat()
        state = f"{inode.st_ino}:{inode.st_size}:{inode.st_mtime_ns}:{inode.st_ctime_ns}"
        query = sa.text("UPDATE sources SET state = :state WHERE sha256 LIKE :video")
        connection.execute(query, {"state": state, "video": f"{victim}%"})
    (bench.signals / f"{victim}-0000.until").touch()
    with in_background(lambda: bench.make(stages=("clip",), workers=1)) as results:
        wait_until(lambda: [*bench.signals.glob(f"{victim}*.opened")])
        (bench.raw / "b.mp4").rename(bench.raw / "z.mp4")
        (bench.signals / "go").touch()
    report = results[0]["clip"]
    assert (report.done, report.gone, report.failed) == (3, 0, 0)
    assert bench.video("z.mp4")["video_id"] == victim
    assert len(bench.lake.shards()) == 1


@pytest.mark.parametrize("is_alike", [False, True], ids=["another", "same size and time"])
def test_what_was_read_of_a_file_that_is_replaced_meanwhile_counts_for_nothing(
    bench: RawBench, is_alike: bool
) -> None:
    bench.run(stages=("probe", "split"))
    old = bench.video("b.mp4")
    (bench.signals / f"{old['video_id']}-0000.until").touch()
    with in_background(lambda: bench.make(stages=("clip",), workers=1)) as results:
        wait_until(lambda: [*bench.signals.glob(f"{old['video_id']}*.opened")])
        replace(bench.raw / "b.mp4", is_alike)
        (bench.signals / "go").touch()
    assert results[0]["clip"].quarantined == 1
    (entry,) = bench.ledger.entries(states=[State.QUARANTINED])
    assert entry.error_class == RawChangedError.__name__
    assert "run video_manifest again" in (entry.error or "")
    assert old["video_id"] not in {r["video_id"] for r in bench.rows()["object_movements"]}
    bench.run()
    assert bench.counts(State.DONE) == [3, 3, 3]
    assert bench.counts(State.QUARANTINED) == [0, 0, 0]
    assert bench.video("b.mp4")["video_id"] != old["video_id"]


@pytest.mark.parametrize("is_alike", [False, True], ids=["another", "same size and time"])
def test_a_file_that_is_replaced_between_its_stages_is_not_read_as_the_old_one(
    bench: RawBench, is_alike: bool
) -> None:
    bench.run(stages=("probe",))
    old = bench.video("b.mp4")["video_id"]
    replace(bench.raw / "b.mp4", is_alike)
    report = bench.make(stages=("split",))["split"]
    assert (report.done, report.quarantined) == (2, 1)
    assert old not in {r["video_id"] for r in bench.rows()["clips"]}


def replace(file: Path, is_alike: bool) -> None:
    before = file.stat()
    other = file.with_name("other.part")
    write_video(other, frames=10 if is_alike else 25, light=210)
    if is_alike:
        data = other.read_bytes()
        assert len(data) <= before.st_size
        other.write_bytes(data + b"\0" * (before.st_size - len(data)))
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


# -- what is away, and what is gone ----------------------------------------------------------------


def test_surroundings_tell_what_is_away(tmp_path: Path) -> None:
    folder = tmp_path / "mnt" / "day"
    folder.mkdir(parents=True)
    file = folder / "a.mp4"
    with pytest.raises(RawAwayError):  # alone in its folder: it may be either
        look_at(file)
    for name in ("NOT_MOUNTED.txt", "a.camera.json", ".hidden.mp4"):
        (folder / name).touch()
    (folder / "folder.mp4").mkdir()
    with pytest.raises(RawAwayError, match=r"a\.mp4: not there, nor is any other video"):
        look_at(file)
    (folder / "b.MOV").touch()
    with pytest.raises(RawGoneError, match=r"a\.mp4: not there, though"):
        look_at(file)
    with pytest.raises(RawAwayError, match="nor is its folder"):
        look_at(tmp_path / "mnt" / "other" / "a.mp4")
    (tmp_path / "mnt" / "file").touch()
    with pytest.raises(RawAwayError):
        look_at(tmp_path / "mnt" / "file" / "a.mp4")
    file.touch()
    assert look_at(file).byte_size == 0


def test_a_link_in_a_circle_says_nothing_of_its_neighbours(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"loop{number}.mp4").symlink_to(f"loop{number}.mp4")
    with pytest.raises(RawAwayError):
        look_at(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").touch()
    with pytest.raises(RawGoneError):
        look_at(tmp_path / "a.mp4")


def test_what_was_changed_just_now_may_change_again_unseen(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.touch()
    os.utime(file, (4e9, 4e9))  # the clock of a camera was wrong
    assert look_at(file).text == ""


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES])
def test_a_place_that_does_not_answer_is_away(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    (tmp_path / "a.mp4").touch()
    monkeypatch.setattr(presence.Path, "stat", refuse)
    with pytest.raises(RawAwayError, match=os.strerror(number)):
        look(str(tmp_path / "a.mp4"))


def test_a_file_that_cannot_be_read_is_waited_for_and_then_fails(
    bench: RawBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is broken there looks like a server that does not answer."""
    bench.run(stages=("probe",))
    bad = bench.video("b.mp4")["video_id"]
    tries = []

    def split(self: Any, video: dict[str, Any], path: Path, *more: Any) -> Any:
        if video["video_id"] == bad:
            tries.append(path)
            if len(tries) == 4:
                monkeypatch.setattr(absence, "AWAY_S", 0.0)
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(self, video, path, *more)

    real = ClipSplitter.split
    monkeypatch.setattr(ClipSplitter, "split", split)
    report = bench.make(stages=("split",))["split"]
    assert (report.done, report.quarantined) == (2, 1)
    (entry,) = bench.ledger.entries(states=[State.QUARANTINED])
    assert entry.attempts == 3
    assert "could not be read: Input/output error" in (entry.error or "")
    assert len(tries) == 6


MOUNTED = """
import os, subprocess, sys
from pathlib import Path
from resources.raw.presence import RawAwayError, look_at
from resources.raw.reader import RawReader
mount = Path(sys.argv[1])
file = mount / "a.mp4"
def sh(*words): subprocess.run(words, check=True)
"""


def in_mount_namespace(tmp_path: Path, script: str) -> list[str]:
    """What a script says that may mount things."""
    (tmp_path / "mount").mkdir()
    command = ["unshare", "-m", sys.executable, "-c", MOUNTED + script, str(tmp_path / "mount")]
    done = subprocess.run(command, capture_output=True, text=True)
    if any(words in done.stderr for words in ("unshare", "permission denied", "loop device")):
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_mount_that_is_taken_away_while_a_file_is_held_is_away(tmp_path: Path) -> None:
    script = """
sh("mount", "-t", "tmpfs", "none", mount)
file.write_bytes(b"bytes")
try:
    with RawReader().hold(str(file)):
        sh("umount", mount)
        file.read_bytes()
except RawAwayError as error:
    print(error)
sh("mount", "-t", "tmpfs", "none", mount)
file.write_bytes(b"bytes")
print(look_at(file).byte_size)
"""
    assert in_mount_namespace(tmp_path, script) == [
        f"{tmp_path}/mount/a.mp4: not there, nor is any other video of its folder",
        "5",
    ]


def test_a_disk_that_breaks_off_is_no_damage_of_the_video(tmp_path: Path) -> None:
    """A real EIO: the file is there, a part of it can no longer be read. A decoder takes that for a
    video that ends too early."""
    write_video(tmp_path / "long.mp4", frames=400)
    script = """
image = mount.with_name("image")
image.write_bytes(b"")
os.truncate(image, 16 * 2**20)
sh("mkfs.ext4", "-q", "-F", "-b", "1024", image)
sh("mount", "-o", "loop", image, mount)
file.write_bytes(mount.with_name("long.mp4").read_bytes() + bytes(4 * 2**20))
sh("umount", mount)
words = subprocess.run(["debugfs", "-R", "blocks a.mp4", image], capture_output=True, text=True)
blocks = [int(word) for word in words.stdout.split()]
sh("mount", "-o", "loop", image, mount)
os.truncate(image, blocks[4] * 1024)
from ego_assets.videos.settings import ManifestSettings
from ego_assets.videos.inspection import probe_file
try:
    with RawReader().hold(str(file)) as path:
        print(probe_file(path, ManifestSettings()))
except RawAwayError as error:
    print(error)
finally:
    sh("umount", mount)
"""
    assert in_mount_namespace(tmp_path, script) == [
        f"{tmp_path}/mount/a.mp4: it is there, and could not be read: Input/output error"
    ]


def test_a_lake_that_is_away_is_waited_for_like_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tables would look empty, and its rows would lie under the mount when it is back."""
    noticed = threading.Event()
    real = Outage.goes_on

    def goes_on(self: Outage, error: Exception) -> bool:
        noticed.set()
        return real(self, error)

    monkeypatch.setattr(Outage, "goes_on", goes_on)
    expected = undisturbed(tmp_path)
    bench = RawBench(tmp_path)
    bench.ledger = Ledger(f"sqlite:///{tmp_path}/elsewhere/ledger.sqlite")
    bench.run(stages=("probe", "split"))
    for clip in bench.rows()["clips"]:
        (bench.signals / f"{clip['clip_id']}.until").touch()
    lake = Place(tmp_path / "lake", empty=True)
    with in_background(lambda: bench.make(stages=("clip",))) as results:
        wait_until(lambda: [*bench.signals.glob("*.opened")])
        lake.leave()
        (bench.signals / "go").touch()
        wait_until(noticed.is_set)
        lake.come_back()
    assert (results[0]["clip"].failed, results[0]["clip"].done) == (0, 3)
    assert comparable(bench) == expected
