"""Raw files that are moved: the same bytes at another place are the same video."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ego_assets.engine import runner
from ego_assets.intake.moves import Moves, enter_all, recognize, relabel
from ego_assets.intake.shards import find_files, register_files
from ego_assets.upkeep.recovery.rebuild import ready
from ego_assets.upkeep.trace import trace
from resources.ledger import Ledger, State
from resources.ledger.contents import Contents
from resources.ledger.sources import Sources
from resources.raw.places import FOLDER, FileLocation, files_of, record
from resources.raw.reader import look
from tests.engine.raw_bench import RawBench, write_video
from tests.resources.s3_server import new_bucket, s3_client, s3_server


@pytest.fixture
def done(tmp_path: Path) -> RawBench:
    """Three videos of one shard, everything done; the second one with a calibration."""
    bench = RawBench(tmp_path)
    (bench.raw / "b.camera.json").write_text('{"fx": 30, "fy": 31, "cx": 15, "cy": 16}')
    bench.run()
    assert bench.counts(State.DONE) == [3, 3, 3]
    return bench


def content(bench: RawBench) -> list[str]:
    """All rows of the lake, but for where raw files are."""
    rows = [r for table in bench.rows().values() for r in table]
    return sorted(json.dumps({k: v for k, v in r.items() if k != "uri"}, default=str) for r in rows)


def places(bench: RawBench) -> dict[str, str]:
    """{video: where the manifest says that it is, below the bench's folder}"""
    return {r["video_id"]: os.path.relpath(r["uri"], bench.root) for r in bench.manifest()}


class Before:
    """What there was; `is_kept` tells that nothing was computed, entered or rejected since."""

    def __init__(self, bench: RawBench) -> None:
        self.bench = bench
        self.work, self.content, self.places = bench.work(), content(bench), places(bench)
        self.attempts, self.shards = bench.attempts(), bench.lake.shards()

    def assert_kept(self, moved: dict[str, str]) -> None:
        """moved: {where it was: where it is}."""
        bench = self.bench
        assert bench.work() == self.work
        assert bench.attempts() == self.attempts
        assert bench.lake.shards() == self.shards
        assert content(bench) == self.content
        assert places(bench) == {v: moved.get(p, p) for v, p in self.places.items()}
        owners = Contents(bench.ledger).owners(self.places)
        assert {v: os.path.relpath(uri, bench.root) for v, (uri, _) in owners.items()} == places(
            bench
        )


def move(bench: RawBench, old: str, new: str) -> None:
    """A file, with its calibration."""
    for suffix in (".mp4", ".camera.json"):
        path, target = (bench.root / p for p in (f"{old}{suffix}", f"{new}{suffix}"))
        if path.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)


def test_a_renamed_file_keeps_all_that_was_made_of_it(done: RawBench) -> None:
    before = Before(done)
    move(done, "raw/b", "raw/z")
    done.run()
    before.assert_kept({"raw/b.mp4": "raw/z.mp4"})
    move(done, "raw/z", "raw/deep/er/y")
    done.run()
    before.assert_kept({"raw/b.mp4": "raw/deep/er/y.mp4"})
    move(done, "raw/deep/er/y", "raw/b")
    done.run()
    before.assert_kept({})
    assert done.lake.storage.list(FOLDER) == []


def test_without_its_calibration_it_is_another_camera(done: RawBench) -> None:
    (done.raw / "b.mp4").rename(done.raw / "z.mp4")
    done.run()
    assert done.video("z.mp4")["intrinsics_source"] == "assumed_fov"
    assert len(done.lake.shards()) == 1
    assert done.attempts() == 4


def test_a_renamed_folder_of_many_files_is_not_even_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resources.raw import presence

    monkeypatch.setattr(presence, "RACY_NS", 0)
    bench = RawBench(tmp_path, videos=0)
    for number in range(60):
        write_video(bench.raw / f"{number:02d}.mp4", frames=11 + number % 6, light=20 + 3 * number)
    bench.run(stages=("probe",))
    assert bench.counts(State.DONE)[0] == 60
    assert len({r["video_id"] for r in bench.manifest()}) == 60
    before = Before(bench)
    bench.raw.rename(tmp_path / "renamed")
    monkeypatch.setattr(Moves, "_sha256", lambda *_: pytest.fail("it was read"))
    bench.run(tmp_path / "renamed", stages=("probe",))
    before.assert_kept({p: p.replace("raw", "renamed") for p in before.places.values()})


def test_two_files_may_swap_their_names(done: RawBench) -> None:
    before = Before(done)
    move(done, "raw/a", "raw/tmp")
    move(done, "raw/b", "raw/a")
    move(done, "raw/tmp", "raw/b")
    done.run()
    before.assert_kept({"raw/a.mp4": "raw/b.mp4", "raw/b.mp4": "raw/a.mp4"})


@pytest.mark.parametrize("is_recent", [False, True])
def test_files_of_one_size_may_swap_their_names(tmp_path: Path, is_recent: bool) -> None:
    """is_recent: their states tell nothing, since they were probed as soon as they were written."""
    bench = RawBench(tmp_path, videos=2)
    size = max(p.stat().st_size for p in bench.raw.iterdir())
    for path in bench.raw.iterdir():
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    bench.run()
    with sa.create_engine(bench.ledger.url).begin() as connection:
        for source in bench.sources.of_shard(bench.lake.shards()[0]).values():
            state = "" if is_recent else look(source.uri).identity
            query = sa.text("UPDATE sources SET state = :state WHERE unit_id = :unit")
            connection.execute(query, {"state": state, "unit": source.item_id})
    for run in (bench.run, bench.make):
        before = Before(bench)
        move(bench, "raw/a", "raw/tmp")
        move(bench, "raw/b", "raw/a")
        move(bench, "raw/tmp", "raw/b")
        run()
        before.assert_kept({"raw/a.mp4": "raw/b.mp4", "raw/b.mp4": "raw/a.mp4"})


def test_a_run_that_was_launched_elsewhere_finds_swapped_names_itself(done: RawBench) -> None:
    """From the UI: nobody lists the places."""
    before = Before(done)
    move(done, "raw/a", "raw/tmp")
    move(done, "raw/c", "raw/a")
    move(done, "raw/tmp", "raw/c")
    report = done.make()["probe"]
    assert len(report.moved_files) == 2
    before.assert_kept({"raw/a.mp4": "raw/c.mp4", "raw/c.mp4": "raw/a.mp4"})


def test_a_file_may_move_to_another_place_than_was_given_before(done: RawBench) -> None:
    before = Before(done)
    move(done, "raw/b", "archive/2024/b")
    moved = done.register(done.root / "archive")
    assert [Path(m.uri).name for m in moved.moves] == ["b.mp4"]
    assert done.shards == done.lake.shards()
    # The row says so at once, before any run.
    before.assert_kept({"raw/b.mp4": "archive/2024/b.mp4"})
    done.make()
    before.assert_kept({"raw/b.mp4": "archive/2024/b.mp4"})


def test_a_name_that_another_content_takes_is_a_new_file(done: RawBench) -> None:
    before = Before(done)
    move(done, "raw/b", "raw/z")
    write_video(done.raw / "b.mp4", frames=25, light=130)
    done.run()
    found = places(done)
    assert {v: found[v] for v in before.places} == {
        v: p.replace("b.mp4", "z.mp4") for v, p in before.places.items()
    }
    assert sorted(found.values()) == ["raw/a.mp4", "raw/b.mp4", "raw/c.mp4", "raw/z.mp4"]
    assert all(r["accepted"] for r in done.manifest())
    assert done.counts(State.DONE) == [4, 4, 4]
    assert done.attempts() == before.attempts + 1
    items = [f.item for shard in done.lake.shards() for f in files_of(done.lake, shard)]
    assert len(set(items)) == 4
    # And so it goes on.
    again = Before(done)
    move(done, "raw/b", "raw/y")
    write_video(done.raw / "b.mp4", frames=27, light=190)
    done.run()
    assert {v: places(done)[v] for v in again.places} == {
        v: p.replace("b.mp4", "y.mp4") for v, p in again.places.items()
    }
    assert done.counts(State.DONE) == [5, 5, 5]


def test_a_file_that_is_moved_over_another_one_replaces_it(done: RawBench) -> None:
    before = Before(done)
    video = {p: v for v, p in before.places.items()}
    (done.raw / "c.mp4").replace(done.raw / "a.mp4")
    done.run()
    assert places(done) == {video["raw/b.mp4"]: "raw/b.mp4", video["raw/c.mp4"]: "raw/a.mp4"}
    assert done.counts(State.DONE) == [2, 2, 2]
    assert done.attempts() == before.attempts
    assert {r["video_id"] for r in done.rows()["object_movements"]} == set(places(done))
    done.run()
    assert done.counts(State.DONE) == [2, 2, 2]


def test_a_copy_is_a_duplicate_and_one_that_is_moved_stays_one(done: RawBench) -> None:
    shutil.copy(done.raw / "b.mp4", done.raw / "copy.mp4")
    done.run()
    assert done.video("copy.mp4")["reject_reason"] == "duplicate"
    shards, work = done.lake.shards(), done.work()
    assert len(shards) == 2
    (done.raw / "copy.mp4").rename(done.raw / "other.mp4")
    done.run()
    assert done.video("other.mp4")["reject_reason"] == "duplicate"
    assert (done.lake.shards(), done.work()) == (shards, work)


def test_a_copy_of_what_is_on_a_disk_that_is_away_is_read_instead(done: RawBench) -> None:
    before = Before(done)
    shutil.copytree(done.raw, done.root / "backup")
    away = done.raw.rename(done.root / "unmounted")
    done.run(done.root / "backup")
    before.assert_kept({p: p.replace("raw", "backup") for p in before.places.values()})
    away.rename(done.raw)
    done.run()
    rejected = [r for r in done.manifest() if not r["accepted"]]
    assert [r["reject_reason"] for r in rejected] == ["duplicate"] * 3
    assert done.attempts() == before.attempts


def test_where_videos_are_outlives_the_ledger(done: RawBench) -> None:
    move(done, "raw/b", "raw/z")
    done.run()
    before = places(done)
    shutil.rmtree(done.root / "lake" / "_ledger")
    done.ledger = Ledger.beside(done.root / "lake")
    assert done.register().moves == []
    assert (len(done.lake.shards()), places(done)) == (1, before)
    done.make()
    assert (len(done.lake.shards()), places(done)) == (1, before)
    assert all(r["accepted"] for r in done.manifest())
    assert {Path(s.uri).name for s in Sources(done.ledger).of_shard(done.shards[0]).values()} == {
        "a.mp4",
        "c.mp4",
        "z.mp4",
    }


@pytest.fixture
def backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RawBench, dict[str, Path]]:
    """A done bench, and copies of its ledger: from before the run, and from its first look."""
    bench, copies = RawBench(tmp_path, videos=2), {}
    ready(bench.lake, bench.ledger)
    folder = bench.root / "lake" / "_ledger"
    real = runner.settle

    def keep(name: str) -> None:
        if name not in copies:
            copies[name] = shutil.copytree(folder, tmp_path / name)

    def settle_and_keep(*given: Any) -> Any:
        found = real(*given)
        keep("during")
        return found

    keep("before")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "settle", settle_and_keep)
        bench.run()
    return bench, copies


def restore(bench: RawBench, copy: Path) -> None:
    shutil.rmtree(bench.root / "lake" / "_ledger")
    shutil.copytree(copy, bench.root / "lake" / "_ledger")


@pytest.mark.parametrize("which", ["before", "during"])
def test_a_copy_of_a_video_is_a_duplicate_also_for_an_older_ledger(
    backups: tuple[RawBench, dict[str, Path]], which: str
) -> None:
    bench, copies = backups
    restore(bench, copies[which])
    ready(bench.lake, bench.ledger)
    shutil.copytree(bench.raw, bench.root / "copy")
    bench.run(bench.root / "copy")
    accepted = [r["uri"] for r in bench.manifest() if r["accepted"]]
    assert accepted == [str(bench.raw / f"{n}.mp4") for n in "ab"]
    assert len(bench.manifest()) == 4
    assert bench.attempts() == 2


@pytest.mark.parametrize("which", ["before", "during"])
def test_a_moved_video_is_known_also_to_an_older_ledger(
    backups: tuple[RawBench, dict[str, Path]], which: str
) -> None:
    bench, copies = backups
    restore(bench, copies[which])
    ready(bench.lake, bench.ledger)
    bench.raw.rename(bench.root / "renamed")
    moved = bench.register(bench.root / "renamed")
    assert len(moved.moves) == 2
    assert sorted(places(bench).values()) == ["renamed/a.mp4", "renamed/b.mp4"]
    bench.run(bench.root / "renamed")
    assert len(bench.lake.shards()) == 1
    assert bench.attempts() == 2
    assert {e.run_id for e in bench.ledger.entries(stage="video_manifest")} == {"run1"}


def test_what_the_ledger_has_learned_of_a_manifest_is_not_read_again(
    backups: tuple[RawBench, dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, copies = backups
    restore(bench, copies["before"])
    enter_all(bench.lake, bench.ledger)
    for name in ("open", "read"):
        monkeypatch.setattr(bench.lake.storage, name, lambda key: pytest.fail(f"{key} was read"))
    assert enter_all(bench.lake, bench.ledger)


@pytest.mark.parametrize(
    "older",
    [
        "DELETE FROM work WHERE stage = 'video_manifest'",
        "UPDATE work SET token = 1",
        "UPDATE work SET token = 1, state = 'pending', fingerprint = ''",
    ],
    ids=["unknown", "done", "pending"],
)
def test_the_new_place_counts_though_clock_and_ledger_are_behind_the_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_wall_ms", lambda _: int(time.time() * 1000) + 30 * 86_400_000)
        bench = RawBench(tmp_path)
        bench.run()
    with sa.create_engine(bench.ledger.url).begin() as connection:
        connection.execute(sa.text(older))
    move(bench, "raw/b", "raw/z")
    (source,) = bench.sources.at([str(bench.raw / "b.mp4")])
    place = FileLocation(str(bench.raw / "z.mp4"), source.sha256 or "")
    record(bench.lake, source.shard, {source.item_id: place})
    assert relabel(bench.lake, bench.ledger, source.shard) == 1
    assert sorted(places(bench).values()) == ["raw/a.mp4", "raw/c.mp4", "raw/z.mp4"]
    report = bench.make()["probe"]
    assert (report.done, report.skipped) == (0, 3)


def test_the_owner_of_a_video_is_where_it_is_though_the_move_was_killed_and_the_ledger_lost(
    done: RawBench,
) -> None:
    move(done, "raw/b", "raw/z")
    (source,) = done.sources.at([str(done.raw / "b.mp4")])
    place = FileLocation(str(done.raw / "z.mp4"), source.sha256 or "")
    record(done.lake, source.shard, {source.item_id: place})  # and killed before it goes on
    shutil.rmtree(done.root / "lake" / "_ledger")
    ready(done.lake, done.ledger)
    owner = Contents(done.ledger).owner(source.video_id or "")
    assert owner == (str(done.raw / "z.mp4"), source.shard)
    done.run(force=True)
    assert all(r["accepted"] for r in done.manifest())


@pytest.mark.parametrize("line", range(6))
def test_a_move_that_is_killed_while_it_is_put_down_is_put_down_by_the_next_run(
    done: RawBench, line: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ego_assets.intake import moves
    from resources.ledger.raw_files import RawFiles

    before, calls = Before(done), 0

    class KilledError(Exception):
        pass

    def breaking(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > line:
                raise KilledError
            return function(*args, **kwargs)

        return call

    move(done, "raw/a", "raw/tmp")
    move(done, "raw/b", "raw/a")
    move(done, "raw/tmp", "raw/b")
    move(done, "raw/c", "raw/y")
    with monkeypatch.context() as patch:
        patch.setattr(moves, "record", breaking(moves.record))
        patch.setattr(Sources, "move", breaking(Sources.move))
        patch.setattr(Sources, "published", breaking(Sources.published))
        patch.setattr(RawFiles, "moved", breaking(RawFiles.moved))
        with pytest.raises(KilledError):
            done.register()
    done.run()
    moved = {"raw/a.mp4": "raw/b.mp4", "raw/b.mp4": "raw/a.mp4", "raw/c.mp4": "raw/y.mp4"}
    before.assert_kept(moved)


def test_files_move_to_s3_and_back(done: RawBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_SCRATCH", str(done.root / "scratch"))
    before = Before(done)
    with s3_server(monkeypatch):
        bucket, client = new_bucket(), s3_client()
        for path in sorted(done.raw.iterdir()):
            client.put_object(Bucket=bucket, Key=f"raw/{path.name}", Body=path.read_bytes())
        done.raw.rename(done.root / "kept")
        place: Any = f"s3://{bucket}/raw"
        done.run(place)
        assert done.work() == before.work
        assert sorted(r["uri"] for r in done.manifest()) == [
            f"{place}/{n}.mp4" for n in ("a", "b", "c")
        ]
        for entry in client.list_objects_v2(Bucket=bucket)["Contents"]:
            client.delete_object(Bucket=bucket, Key=entry["Key"])
        done.run(done.root / "kept")
        before.assert_kept({p: p.replace("raw", "kept") for p in before.places.values()})


def test_a_moved_video_is_traced_to_where_it_is(done: RawBench) -> None:
    video = done.video("b.mp4")["video_id"]
    move(done, "raw/b", "raw/z")
    done.run()
    found = trace(done.lake, done.ledger, video)
    assert found["video"]["uri"] == str(done.raw / "z.mp4")
    assert found["tables"]["video_manifest"]["rows"] == 1
    assert found["tables"]["video_manifest"]["ledger"]["state"] == State.DONE


def test_a_rollback_does_not_bring_the_old_place_back(done: RawBench) -> None:
    from ego_assets.upkeep.rollback import rollback

    before = Before(done)
    move(done, "raw/b", "raw/z")
    done.run()
    rollback(done.lake, done.ledger, "run1", tables=["video_manifest"])
    done.run()
    before.assert_kept({"raw/b.mp4": "raw/z.mp4"})


def test_what_has_the_size_of_a_known_file_and_other_bytes_is_new(done: RawBench) -> None:
    size = (done.raw / "b.mp4").stat().st_size
    (done.raw / "b.mp4").unlink()
    (done.raw / "noise.mp4").write_bytes(os.urandom(size))
    found = find_files([done.raw]).files
    assert recognize(done.lake, done.ledger, found).moves == []
    assert len(register_files(done.lake, found)) == 1


def test_a_ledger_of_an_older_release_learns_where_files_are(done: RawBench) -> None:
    before = Before(done)
    with sa.create_engine(done.ledger.url).begin() as connection:
        connection.execute(sa.text("DELETE FROM sources"))
    done.raw.rename(done.root / "renamed")
    done.run(done.root / "renamed")
    before.assert_kept({p: p.replace("raw", "renamed") for p in before.places.values()})
