"""Raw files that are touched, replaced, deleted, and come back: what is done stays done, and what a
clip reads is what its manifest hashed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ego_assets.intake.sources import revive
from ego_assets.upkeep.recovery.rebuild import ready
from resources.ledger import State
from resources.ledger.states import RAW_GONE
from resources.raw import presence
from resources.raw import reader as raw
from resources.raw.reader import look
from tests.engine.raw_bench import RawBench, write_video

CALIBRATION = {"fx": 30.0, "fy": 31.0, "cx": 15.0, "cy": 16.0}


@pytest.fixture
def done(tmp_path: Path) -> RawBench:
    """Three videos of one shard, everything done."""
    bench = RawBench(tmp_path)
    bench.run()
    assert bench.counts(State.DONE) == [3, 3, 3]
    return bench


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were hashed to be compared; states of a moment ago are believed.

    To be asked for before `done`, whose files are probed a moment after they were written.
    """
    monkeypatch.setattr(presence, "RACY_NS", 0)
    found: list[str] = []
    real = raw.file_sha256

    def counted(path: Path) -> str:
        found.append(path.name)
        return real(path)

    monkeypatch.setattr(raw, "file_sha256", counted)
    return found


def test_what_is_as_it_was_costs_one_look(hashed: list[str], done: RawBench) -> None:
    hashed.clear()
    work = done.work()
    done.run()
    assert hashed == []
    assert done.work() == work


@pytest.mark.parametrize("how", ["touch", "chmod", "link", "copy"])
def test_what_only_looks_otherwise_is_hashed_once_and_kept(
    hashed: list[str], done: RawBench, how: str
) -> None:
    hashed.clear()
    work, file = done.work(), done.raw / "b.mp4"
    if how == "touch":
        os.utime(file)
    elif how == "chmod":
        file.chmod(0o600)
    elif how == "link":
        (done.root / "link").hardlink_to(file)
    else:  # as of a folder that was copied to another disk
        shutil.copytree(done.raw, done.root / "copy")
        shutil.rmtree(done.raw)
        (done.root / "copy").rename(done.raw)
    done.run()
    assert done.work() == work
    assert sorted(set(hashed)) == (["a.mp4", "b.mp4", "c.mp4"] if how == "copy" else ["b.mp4"])
    hashed.clear()
    done.run()
    assert hashed == []
    assert done.attempts() == 3


@pytest.mark.parametrize("is_recent", [False, True], ids=["of old", "of this moment"])
@pytest.mark.parametrize("is_alike", [False, True], ids=["longer", "same size and time"])
def test_a_replaced_file_is_a_video_of_its_own(
    done: RawBench, is_alike: bool, is_recent: bool
) -> None:
    """is_recent: the first one was probed so soon after it was written that its times tell
    nothing."""
    with sa.create_engine(done.ledger.url).begin() as connection:
        for source in done.sources.of_shard(done.lake.shards()[0]).values():
            state = "" if is_recent else look(source.uri).identity
            query = sa.text("UPDATE sources SET state = :state WHERE unit_id = :unit")
            connection.execute(query, {"state": state, "unit": source.item_id})
    file, old = done.raw / "b.mp4", done.video("b.mp4")
    before = file.stat()
    write_video(file, frames=13 if is_alike else 20, light=200)
    if is_alike:
        data = file.read_bytes()
        assert len(data) <= before.st_size
        file.write_bytes(data + b"\0" * (before.st_size - len(data)))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (
            before.st_size,
            before.st_mtime_ns,
        )
    done.run()
    new = done.video("b.mp4")
    assert new["accepted"]
    assert new["video_id"] != old["video_id"]
    kept = {r["video_id"] for table in done.rows().values() for r in table}
    assert len(kept) == 3
    assert old["video_id"] not in kept
    assert done.counts(State.DONE) == [3, 3, 3]


def test_a_content_that_was_replaced_may_come_again(done: RawBench) -> None:
    old = done.video("b.mp4")["video_id"]
    shutil.copy(done.raw / "b.mp4", done.root / "kept.mp4")
    write_video(done.raw / "b.mp4", frames=20, light=200)
    done.run()
    (done.root / "kept.mp4").rename(done.raw / "d.mp4")
    done.run()
    assert done.video("d.mp4")["video_id"] == old
    assert done.video("d.mp4")["accepted"]
    assert done.counts(State.DONE) == [4, 4, 4]


def test_a_copy_takes_over_when_its_first_file_is_replaced(done: RawBench) -> None:
    old = done.video("b.mp4")["video_id"]
    shutil.copy(done.raw / "b.mp4", done.raw / "d.mp4")
    done.run()
    assert done.video("d.mp4")["reject_reason"] == "duplicate"
    write_video(done.raw / "b.mp4", frames=20, light=200)
    done.run()
    done.run()
    assert (done.video("d.mp4")["video_id"], done.video("d.mp4")["accepted"]) == (old, True)
    assert done.video("b.mp4")["accepted"]


def test_a_calibration_decides_by_its_content(done: RawBench) -> None:
    sidecar = done.raw / "b.camera.json"
    sidecar.write_text(json.dumps(CALIBRATION))
    done.run()
    assert done.video("b.mp4")["fx_px"] == 30.0
    assert done.attempts() == 4
    work = done.work()
    sidecar.write_text(json.dumps({"note": "the same", **CALIBRATION}, indent=2))
    done.run()
    assert done.work() == work
    sidecar.write_text(json.dumps(CALIBRATION | {"fx": 40.0}))
    done.run()
    assert done.video("b.mp4")["fx_px"] == 40.0
    sidecar.unlink()
    done.run()
    assert done.video("b.mp4")["intrinsics_source"] == "assumed_fov"
    assert done.attempts() == 6


def test_a_deleted_file_is_told_once_and_keeps_what_is_done(done: RawBench) -> None:
    work, rows = done.work(), done.rows()
    (done.raw / "b.mp4").unlink()
    report = done.run()["probe"]
    assert list(report.gone_files) == [str(done.raw / "b.mp4")]
    assert "deleted" in report.gone_files[str(done.raw / "b.mp4")]
    for _ in range(2):
        assert done.work() == work
        assert done.rows() == rows
        reports = done.run()
        assert [r.gone_files for r in reports.values()] == [{}, {}, {}]
        assert [r.failed for r in reports.values()] == [0, 0, 0]
    assert done.ledger.unfinished_shards() == []


@pytest.mark.parametrize("change", ["force", "operator_version"])
def test_what_is_done_of_a_deleted_file_outlives_a_run_that_does_all_again(
    done: RawBench, change: str
) -> None:
    rows = done.rows()["object_movements"]
    (done.raw / "b.mp4").unlink()
    changes: dict[str, Any] = {"force": True} if change == "force" else {"operator_version": "9"}
    reports = done.run(**changes)
    assert [r.failed for r in reports.values()] == [0, 0, 0]
    assert done.counts(State.DONE) == [3, 3, 3]
    assert done.attempts() == 5
    assert done.rows()["object_movements"] == rows


@pytest.mark.parametrize("where", ["b.mp4", "elsewhere/z.mp4"])
def test_work_on_a_deleted_file_waits_for_its_bytes(tmp_path: Path, where: str) -> None:
    bench = RawBench(tmp_path)
    bench.run(stages=("probe", "split"))
    kept = (bench.raw / "b.mp4").rename(tmp_path / "kept.mp4")
    reports = bench.run()
    assert reports["clip"].gone == 1
    assert bench.counts(State.DONE) == [3, 3, 2]
    (entry,) = bench.ledger.entries(states=[State.DROPPED])
    assert (entry.stage, entry.error_class) == ("object_movements", RAW_GONE)
    assert "b.mp4" in (entry.error or "")
    for _ in range(2):
        reports = bench.run()
        assert [r.failed + r.gone for r in reports.values()] == [0, 0, 0]
    assert bench.ledger.unfinished_shards() == []
    assert bench.ledger.release() == 0
    (bench.raw / where).parent.mkdir(exist_ok=True)
    kept.rename(bench.raw / where)
    bench.run()
    assert bench.counts(State.DONE) == [3, 3, 3]
    assert bench.attempts() == 3
    assert Path(bench.video(Path(where).name)["uri"]) == bench.raw / where


def test_what_is_back_is_found_without_a_listing(tmp_path: Path) -> None:
    """As by the nightly retry, and by a stage that is run alone."""
    bench = RawBench(tmp_path)
    bench.run(stages=("probe", "split"))
    kept = (bench.raw / "b.mp4").rename(tmp_path / "kept.mp4")
    bench.run()
    assert revive(bench.lake, bench.ledger) == 0
    kept.rename(bench.raw / "b.mp4")
    assert revive(bench.lake, bench.ledger) == 1
    assert bench.ledger.unfinished_shards() == bench.lake.shards()
    bench.make(stages=("clip",))
    assert bench.counts(State.DONE) == [3, 3, 3]


def test_what_was_in_quarantine_before_is_no_failure_any_more(tmp_path: Path) -> None:
    """As older releases left it: dead paths in quarantine, for ever."""
    bench = RawBench(tmp_path)
    bench.run(stages=("probe", "split"))
    item = bench.ledger.entries(stage="clips")[0].item_id
    bench.ledger.expect("object_movements", bench.lake.shards()[0], [(f"{item}-0000", item)])
    attempt = bench.ledger.start(
        "object_movements", f"{item}-0000", fingerprint="f", worker="w", run_id="r"
    )
    bench.ledger.fail(
        "object_movements",
        f"{item}-0000",
        attempt,
        error_class="FileNotFoundError",
        error="gone",
        quarantine=True,
    )
    uri = next(r["uri"] for r in bench.manifest() if r["video_id"] == item)
    Path(uri).unlink()
    bench.run()
    assert bench.counts(State.QUARANTINED) == [0, 0, 0]
    assert bench.counts(State.DROPPED) == [0, 0, 1]


def test_a_lake_of_an_older_release_is_read_once_and_kept(
    hashed: list[str], done: RawBench
) -> None:
    """It remembers sizes and times only, which other bytes may have, too."""
    hashed.clear()
    work = done.work()
    with sa.create_engine(done.ledger.url).begin() as connection:
        connection.execute(sa.text("DELETE FROM sources"))
    done.run()
    assert sorted(hashed) == ["a.mp4", "b.mp4", "c.mp4"]
    assert done.work() == work
    done.run()
    assert len(hashed) == 3
    with sa.create_engine(done.ledger.url).begin() as connection:
        connection.execute(sa.text("DELETE FROM sources"))
    (done.raw / "b.mp4").rename(done.raw / "z.mp4")
    done.run()
    assert done.work() == work
    assert done.video("z.mp4")["accepted"]


def replace_alike(file: Path) -> None:
    """Other bytes of the same size and time."""
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def lose_ledger(bench: RawBench) -> None:
    shutil.rmtree(bench.root / "lake" / "_ledger")
    ready(bench.lake, bench.ledger)


def test_after_a_loss_bytes_are_compared_before_a_clip_is_read(tmp_path: Path) -> None:
    bench = RawBench(tmp_path, videos=2)
    bench.run()
    attempts = bench.attempts()
    lose_ledger(bench)
    replace_alike(bench.raw / "a.mp4")
    report = bench.make(stages=("clip",), operator_version="2")["clip"]
    assert (report.done, report.failed) == (1, 1)
    assert "other bytes" in report.failures[0].reason
    assert bench.attempts() == attempts + 1


def test_after_a_loss_a_file_that_was_replaced_alike_is_found(tmp_path: Path) -> None:
    bench = RawBench(tmp_path, videos=2)
    bench.run()
    old = bench.video("a.mp4")
    lose_ledger(bench)
    replace_alike(bench.raw / "a.mp4")
    bench.run()
    new = bench.video("a.mp4")
    assert new["sha256"] == hashlib.sha256((bench.raw / "a.mp4").read_bytes()).hexdigest()
    assert new["video_id"] != old["video_id"]


def test_a_file_that_was_never_probed_and_is_deleted_is_dropped(tmp_path: Path) -> None:
    bench = RawBench(tmp_path)
    bench.register()
    (bench.raw / "b.mp4").unlink()
    report = bench.run()["probe"]
    assert (report.failed, len(report.gone_files)) == (0, 1)
    assert bench.counts(State.DONE) == [2, 2, 2]
    assert bench.run()["probe"].gone_files == {}


def test_a_file_that_is_touched_while_it_is_probed_is_probed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ego_assets.videos import inspection as probe

    bench = RawBench(tmp_path)
    real, touched = probe.probe_file, []

    def touching(path: Path, settings: Any) -> Any:
        found = real(path, settings)
        if path.name == "b.mp4" and not touched:
            touched.append(path)
            path.chmod(0o600)
        return found

    monkeypatch.setattr(probe, "probe_file", touching)
    bench.run()
    assert touched
    assert bench.counts(State.DONE) == [3, 3, 3]
