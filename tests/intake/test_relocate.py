"""A raw root that is elsewhere now: places are mended, and nothing is computed again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ego_assets.intake import relocation
from ego_assets.intake.arrivals import Arrivals
from ego_assets.intake.batches import Limits
from ego_assets.intake.relocation import RelocationError, relocate
from ego_assets.upkeep import audit
from resources.lake import Lake
from resources.lake.storage import LocalStorage
from resources.ledger import Ledger, State
from resources.ledger.contents import Contents
from resources.raw.places import files_of
from resources.raw.reader import RawReader
from tests.engine.raw_bench import RawBench
from tests.resources.s3_server import new_bucket, s3_client, s3_server
from tests.support.killed import kill_before


@pytest.fixture
def done(tmp_path: Path) -> RawBench:
    """Three videos, one of them with a calibration and one in a folder below, everything done."""
    bench = RawBench(tmp_path)
    (bench.raw / "b.camera.json").write_text('{"fx": 30, "fy": 31, "cx": 15, "cy": 16}')
    (bench.raw / "deep er").mkdir()
    (bench.raw / "c.mp4").rename(bench.raw / "deep er" / "c ä.mp4")
    bench.run()
    assert bench.counts(State.DONE) == [3, 3, 3]
    return bench


class Before:
    """What there was; `is_kept` tells that nothing was computed, entered or rejected since."""

    def __init__(self, bench: RawBench) -> None:
        self.bench = bench
        self.attempts, self.work, self.content = bench.attempts(), bench.work(), self._content()

    def _content(self) -> list[str]:
        rows = [r for table in self.bench.rows().values() for r in table]
        return sorted(str({k: v for k, v in r.items() if k != "uri"}) for r in rows)

    def assert_kept_at(self, place: str) -> None:
        bench = self.bench
        uris = [f"{place}/{name}" for name in ("a.mp4", "b.mp4", "deep er/c ä.mp4")]
        (shard,) = bench.lake.shards()
        assert [r["uri"] for r in bench.manifest()] == uris
        assert sorted(f.uri for f in files_of(bench.lake, shard)) == uris
        assert sorted(s.uri for s in bench.sources.of_shard(shard).values()) == uris
        owners = Contents(bench.ledger).owners(r["video_id"] for r in bench.manifest())
        assert sorted(uri for uri, _ in owners.values()) == uris
        assert (bench.attempts(), bench.work()) == (self.attempts, self.work)
        assert self._content() == self.content
        assert audit.verify(bench.lake, bench.ledger) == []


def names(found: dict[str, str]) -> list[str]:
    return sorted(uri.rpartition("/")[2] for uri in found)


@pytest.mark.parametrize("leaves_a_link", [False, True])
def test_a_renamed_folder_is_mended_in_one_step(done: RawBench, leaves_a_link: bool) -> None:
    before, new = Before(done), done.root / "disk 2" / "raw"
    new.parent.mkdir()
    done.raw.rename(new)
    if leaves_a_link:
        done.raw.symlink_to(new)
    found = relocate(done.lake, done.ledger, str(done.raw), str(new))
    assert (len(found.found), found.missing, found.other, found.is_done) == (3, {}, {}, True)
    before.assert_kept_at(str(new))
    # Neither a sensor nor a run takes them for new files, and nothing is done again.
    look = Arrivals(done.lake, done.ledger, Limits(settle_s=0, wait_s=0)).look([str(new)])
    assert (look.new, look.shards, look.moved, look.gone) == (0, [], {}, {})
    done.run(new)
    before.assert_kept_at(str(new))
    again = relocate(done.lake, done.ledger, str(done.raw), str(new))
    assert (len(again.found), again.already) == (0, 3)


def test_nobody_waits_while_files_are_looked_at(
    done: RawBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be hundreds of thousands of them, each a request."""
    new = done.root / "new"
    done.raw.rename(new)
    held: list[str] = []
    real_lock, real_look = LocalStorage.lock, relocation.look

    @contextmanager
    def lock(storage: LocalStorage, name: str) -> Iterator[None]:
        with real_lock(storage, name):
            held.append(name)
            try:
                yield
            finally:
                held.remove(name)

    def look(uri: str) -> Any:
        assert "shards" not in held
        return real_look(uri)

    monkeypatch.setattr(LocalStorage, "lock", lock)
    monkeypatch.setattr(relocation, "look", look)
    for found, already in ((3, 0), (0, 3)):
        made = relocate(done.lake, done.ledger, str(done.raw), str(new))
        assert (len(made.found), made.already) == (found, already)


def test_what_is_missing_or_other_is_listed_and_nothing_is_changed(done: RawBench) -> None:
    before, new = Before(done), done.root / "new"
    shutil.copytree(done.raw, new)
    (new / "a.mp4").unlink()
    (new / "b.camera.json").unlink()
    path = new / "deep er" / "c ä.mp4"
    path.write_bytes(bytes(len(path.read_bytes())))
    found = relocate(done.lake, done.ledger, str(done.raw), str(new))
    assert not found.is_done
    assert names(found.missing) == ["a.mp4", "b.mp4"]
    assert "calibration" in found.missing[str(new / "b.mp4")]
    assert names(found.other) == ["c ä.mp4"]
    before.assert_kept_at(str(done.raw))
    shutil.copy(done.raw / "a.mp4", new)
    found = relocate(done.lake, done.ledger, str(done.raw), str(new), partial=True)
    assert found.is_done
    assert [Path(r["uri"]).parent.name for r in done.manifest()] == ["new", "raw", "deep er"]
    assert done.attempts() == before.attempts
    with pytest.raises(RelocationError, match="no raw file"):
        relocate(done.lake, done.ledger, str(done.root / "nowhere"), str(done.root / "lake"))
    with pytest.raises(RelocationError, match="one place"):
        relocate(done.lake, done.ledger, str(new), f"{new}/")


def test_large_files_are_known_by_their_size_and_read_by_the_next_run(
    done: RawBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relocation, "CHEAP_BYTES", 0)
    before, new = Before(done), done.root / "new"
    shutil.copytree(done.raw, new)
    (new / "a.mp4").write_bytes(bytes((new / "a.mp4").stat().st_size))
    checked = relocate(done.lake, done.ledger, str(done.raw), str(new), check_bytes=True)
    assert (checked.is_done, names(checked.other)) == (False, ["a.mp4"])
    before.assert_kept_at(str(done.raw))
    assert relocate(done.lake, done.ledger, str(done.raw), str(new)).is_done
    done.run(new)
    assert done.video("a.mp4")["accepted"] is False  # it is another file, and that is noticed
    assert done.attempts() == before.attempts


def test_names_of_any_bytes_and_a_root_inside_of_the_old_one(done: RawBench) -> None:
    (done.raw / "a.mp4").rename(os.fsdecode(os.fsencode(done.raw) + b"/\xff.mp4"))
    done.run()
    attempts, new = done.attempts(), done.raw / "2026"
    new.mkdir()
    for path in [p for p in done.raw.iterdir() if p != new]:
        path.rename(new / path.name)
    for _ in range(2):
        found = relocate(done.lake, done.ledger, str(done.raw), str(new))
        assert (found.missing, found.other, found.is_done) == ({}, {}, True)
    done.run(new)
    assert len(done.manifest()) == 3
    assert all("/raw/2026/" in r["uri"] and r["accepted"] for r in done.manifest())
    assert done.attempts() == attempts


def test_copies_that_were_taken_in_as_duplicates_make_room(done: RawBench) -> None:
    new = done.root / "new"
    shutil.copytree(done.raw, new)
    done.run(new)
    assert [r["reject_reason"] for r in done.manifest()].count("duplicate") == 3
    attempts = done.attempts()
    assert len(relocate(done.lake, done.ledger, str(done.raw), str(new)).found) == 3
    shutil.rmtree(done.raw)
    done.run(new)
    assert [(r["accepted"], Path(r["uri"]).parts[-2]) for r in done.manifest()] == [
        (True, "new"),
        (True, "new"),
        (True, "deep er"),
    ]
    assert done.attempts() == attempts
    assert audit.verify(done.lake, done.ledger) == []


def test_what_was_gone_with_its_folder_is_done_when_it_is_found(done: RawBench) -> None:
    (source,) = done.sources.at([str(done.raw / "a.mp4")])
    video = source.video_id
    done.ledger.requeue("object_movements", [f"{video}-0000"], "lost")
    assert done.sources.mark_gone(source, "deleted", "gone")
    assert done.counts(State.DROPPED) == [0, 0, 1]
    done.raw.rename(done.root / "new")
    found = relocate(done.lake, done.ledger, str(done.raw), str(done.root / "new"))
    assert sum(found.waiting.values()) == 1
    done.run(done.root / "new")
    assert done.counts(State.DONE) == [3, 3, 3]


def test_from_a_folder_to_s3_and_back(done: RawBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_SCRATCH", str(done.root / "scratch"))
    before = Before(done)
    with s3_server(monkeypatch):
        bucket, client = new_bucket(), s3_client()
        place = f"s3://{bucket}/footage/2026"
        for path in sorted(p for p in done.raw.rglob("*") if p.is_file()):
            key = f"footage/2026/{path.relative_to(done.raw)}"
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
        done.raw.rename(done.root / "kept")
        found = relocate(done.lake, done.ledger, str(done.raw), place, check_bytes=True)
        assert (len(found.found), found.missing, found.other) == (3, {}, {})
        before.assert_kept_at(place)
        done.run(place)  # type: ignore[arg-type]
        before.assert_kept_at(place)
        relocate(done.lake, done.ledger, place, str(done.root / "kept"))
        before.assert_kept_at(str(done.root / "kept"))
        done.run(done.root / "kept")
        before.assert_kept_at(str(done.root / "kept"))


def test_objects_that_were_not_compared_are_read_once_by_the_next_run(
    done: RawBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_SCRATCH", str(done.root / "scratch"))
    before = Before(done)
    with s3_server(monkeypatch):
        bucket, client = new_bucket(), s3_client()
        place = f"s3://{bucket}/footage"
        for path in sorted(p for p in done.raw.rglob("*") if p.is_file()):
            data = path.read_bytes()
            body = bytes(len(data)) if path.name == "a.mp4" else data
            key = f"footage/{path.relative_to(done.raw)}"
            client.put_object(Bucket=bucket, Key=key, Body=body)
        assert relocate(done.lake, done.ledger, str(done.raw), place).is_done
        done.run(place)  # type: ignore[arg-type]
        assert done.video("a.mp4")["accepted"] is False  # it is another one, and that is noticed
        assert done.video("b.mp4")["accepted"]
        assert done.attempts() == before.attempts
        with monkeypatch.context() as patch:
            patch.setattr(RawReader, "sha256", lambda *_: pytest.fail("it was read again"))
            done.run(place)  # type: ignore[arg-type]


def test_a_relocation_that_is_killed_at_any_point_is_gone_on_with(done: RawBench) -> None:
    lake, new = done.root / "lake", done.root / "new"
    before = Before(done)
    lake.rename(done.root / "kept")
    shutil.copytree(done.raw, new)
    number, is_killed = 0, True
    while is_killed:
        shutil.rmtree(lake, ignore_errors=True)
        shutil.copytree(done.root / "kept", lake)
        done.lake, done.ledger = Lake(lake), Ledger.beside(lake)
        if (child := os.fork()) == 0:
            kill_before(number)
            relocate(done.lake, done.ledger, str(done.raw), str(new))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        is_killed = os.WIFSIGNALED(status)
        assert is_killed or status == 0
        relocate(done.lake, done.ledger, str(done.raw), str(new))
        look = Arrivals(done.lake, done.ledger, Limits(settle_s=0, wait_s=0)).look([str(new)])
        assert (look.new, look.shards, look.moved) == (0, [], {}), number
        before.assert_kept_at(str(new))
        number += 1
    assert number > 8
    assert json.loads((lake / "_places" / f"{done.lake.shards()[0]}.json").read_text())
