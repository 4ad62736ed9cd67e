"""A shard of raw files that mean harm: each is rejected or given up alone, after one try."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ego_assets.engine.outcome import StageReport, Tally, merged
from ego_assets.engine.plan import StageSpec, WorkItem
from ego_assets.engine.runner import run_stage
from ego_assets.engine.workers import pulse
from ego_assets.engine.workers.messages import Ended, Progress, Started
from ego_assets.engine.workers.supervisor import Slot, Supervisor, limit_s
from ego_assets.graph.metadata import READ_SLOWLY, report_metadata
from ego_assets.intake.shards import RawFile, balance, describe_file, find_files, write_shard
from ego_assets.videos import inspection as probe
from ego_assets.videos.settings import ManifestSettings
from resources.lake import Lake, file_item_id
from resources.ledger import Ledger, State
from tests.engine.stage_bench import spec_for, write_video
from tests.resources.s3_server import new_bucket, s3_client, s3_server

TABLE = "video_manifest"
CAMERA = {"fx": 30.0, "fy": 31.0, "cx": 15.5, "cy": 16.0}
TOKEN = "TOKEN-77ab01"
PATIENCE_S = 120.0


class Place:
    """A raw folder, a lake, and the stage that looks at the files."""

    def __init__(self, folder: Path) -> None:
        self.raw = folder / "raw"
        self.raw.mkdir()
        self.lake = Lake(folder / "lake")
        self.ledger = Ledger.beside(folder / "lake")
        write_video(self.raw / "good.mp4", frames=2)

    def spec(self, *places: str | Path, **settings: Any) -> StageSpec:
        files = find_files(places or [self.raw]).files
        shard = write_shard(self.lake, [describe_file(uri, size) for uri, size in files.items()])
        chosen = ManifestSettings(**settings).model_dump()
        return spec_for(TABLE, self.lake, self.ledger, shard, settings=chosen)

    def rows(self, spec: StageSpec) -> dict[str, dict[str, Any]]:
        rows = self.lake.read(TABLE, spec.shard).to_pylist()
        return {row["uri"].rpartition("/")[2]: row for row in rows}

    def text(self) -> str:
        """All that a person or a program could read of the lake."""
        files = [p for p in self.lake.root.rglob("*") if p.is_file()]
        return "".join(p.read_bytes().decode("latin-1") for p in files)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_hostile_calibrations_cost_one_try_and_no_other_video(place: Place, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"token": TOKEN, "fx": TOKEN}))
    made: dict[str, Callable[[Path], object]] = {
        "link": lambda p: p.symlink_to(secret),
        "nested": lambda p: p.write_text("[" * 200_000),
        "nan": lambda p: p.write_text('{"fx": NaN, "fy": 1, "cx": 1, "cy": 1}'),
        "huge": lambda p: p.write_text(json.dumps(CAMERA | {"fx": 1e39, "fy": 1e39})),
        "tiny": lambda p: p.write_text(json.dumps(CAMERA | {"fx": 1e-60})),
        "three": lambda p: p.write_text(json.dumps(CAMERA | {"distortion": [0.1, 0.2, 0.3]})),
        "pipe": os.mkfifo,
        "large": lambda p: os.truncate(os.open(p, os.O_CREAT | os.O_WRONLY), 200_000_000),
    }
    for number, (name, make) in enumerate(made.items()):
        write_video(place.raw / f"{name}.mp4", frames=3 + number)
        make(place.raw / f"{name}.camera.json")
    spec = place.spec()
    report = run_stage(spec, workers=1)
    assert (report.done, report.retried, report.failed) == (1 + len(made), 0, 0)
    rows = place.rows(spec)
    assert rows.pop("good.mp4")["accepted"]
    assert {r["reject_reason"] for r in rows.values()} == {"bad_calibration"}
    assert {e.attempts for e in place.ledger.entries(stage=TABLE)} == {1}
    assert TOKEN not in place.text()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_became_another_thing_after_its_listing_is_refused(
    place: Place, tmp_path: Path, kind: str
) -> None:
    secret = tmp_path / "secrets" / "bad.mp4"
    secret.parent.mkdir()
    write_video(secret, frames=5)
    folder = place.raw / "sub"
    folder.mkdir()
    (folder / "bad.mp4").write_bytes(secret.read_bytes())
    spec = place.spec()
    (folder / "bad.mp4").unlink()
    if kind == "link":
        (folder / "bad.mp4").symlink_to(secret)
    else:
        os.mkfifo(folder / "bad.mp4")
    report = run_stage(spec, workers=1)
    assert (report.done, report.retried, report.failed) == (2, 0, 0)
    row = place.rows(spec)["bad.mp4"]
    assert (row["reject_reason"], row["sha256"], row["fx_px"]) == ("refused", "", None)
    assert row["video_id"] == file_item_id(row["uri"])
    assert "by now" in row["reject_detail"]
    assert place.rows(spec)["good.mp4"]["accepted"]


def test_a_folder_that_became_a_link_is_not_followed_and_costs_no_rows(place: Place) -> None:
    """It may lead to secrets, or to where a person has moved the videos: what was made stays."""
    folder = place.raw / "sub"
    folder.mkdir()
    write_video(folder / "moved.mp4", frames=5)
    spec = place.spec()
    run_stage(spec, workers=1)
    before = place.rows(spec)
    folder.rename(place.raw.with_name("elsewhere"))
    folder.symlink_to(place.raw.with_name("elsewhere"))
    report = run_stage(replace(spec, run_id="again"), workers=1)
    assert (report.done, report.failed, report.retried) == (0, 0, 0)
    (why,) = report.gone_files.values()
    assert "a folder of its path is a link by now, which is not followed" in why
    assert place.rows(spec) == before


def test_a_file_that_is_too_large_is_rejected_unread(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hash_file(path: Path) -> tuple[str, int]:
        assert path.stat().st_size < 10**6, "it would take hours"
        return "0" * 64, path.stat().st_size

    monkeypatch.setattr(probe, "hash_file", hash_file)
    with (place.raw / "sparse.mp4").open("wb") as file:
        file.truncate(8 * 10**12)
    spec = place.spec()
    report = run_stage(spec, isolate=False)
    assert (report.done, report.failed) == (2, 0)
    row = place.rows(spec)["sparse.mp4"]
    assert (row["reject_reason"], row["byte_size"], row["sha256"]) == ("too_large", 8 * 10**12, "")
    assert row["reject_detail"].startswith("8,000 GB is over the limit of 64 GB: the file was not")
    assert "sparse: 0 GB of it is on the disk" in row["reject_detail"]
    (size,) = {p.stat().st_size for p in place.raw.iterdir() if p.name == "good.mp4"}
    smaller = replace(spec, settings=ManifestSettings(max_file_gigabytes=size / 2e9).model_dump())
    run_stage(replace(smaller, run_id="again"), isolate=False)
    assert place.rows(spec)["good.mp4"]["reject_reason"] == "too_large"


def test_what_is_too_large_on_s3_is_not_fetched(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_SCRATCH", str(tmp_path / "scratch"))
    with s3_server(monkeypatch):
        bucket = new_bucket()
        good = (place.raw / "good.mp4").read_bytes()
        write_video(tmp_path / "other.mp4", frames=9)
        s3_client().put_object(Bucket=bucket, Key="raw/good.mp4", Body=good)
        s3_client().put_object(Bucket=bucket, Key="raw/large.mp4", Body=bytes(300_000))
        other = (tmp_path / "other.mp4").read_bytes()
        s3_client().put_object(Bucket=bucket, Key="raw/other.mp4", Body=other)
        s3_client().put_object(Bucket=bucket, Key="raw/other.camera.json", Body=bytes(2**20 + 1))
        spec = place.spec(f"s3://{bucket}/raw", max_file_gigabytes=200_000 / 1e9)
        report = run_stage(spec, isolate=False)
    assert (report.done, report.failed) == (3, 0)
    rows = place.rows(spec)
    reasons = {name: row["reject_reason"] for name, row in rows.items()}
    assert reasons == {"good.mp4": None, "large.mp4": "too_large", "other.mp4": "bad_calibration"}
    assert "larger than 1 MiB: it was not fetched" in rows["other.mp4"]["reject_detail"]
    fetched = {p.name for p in (tmp_path / "scratch").rglob("*") if p.is_file()}
    assert {"good.mp4", "other.mp4"} <= fetched
    assert not {"large.mp4", "other.camera.json"} & fetched


def test_a_limit_on_time_is_no_part_of_a_result(place: Place) -> None:
    spec = place.spec()
    changed = ManifestSettings(max_stall_s=1, min_read_megabytes_per_s=0).model_dump()
    limited = ManifestSettings(max_file_gigabytes=1).model_dump()
    assert replace(spec, settings=changed).digest_of("x") == spec.digest_of("x")
    assert replace(spec, settings=limited).digest_of("x") != spec.digest_of("x")


def item(**values: Any) -> WorkItem:
    blank = {"video_id": None, "base_fingerprint": "f", "input_hash": "i", "cost": 1.0}
    return WorkItem(
        **{"item_id": "u", "video_s": 1.0, "payload": {"uri": "/r/a.mp4"}} | blank | values
    )


def test_no_time_limit_follows_from_what_a_header_claims() -> None:
    assert limit_s(Started(item(video_s=1e12), {})) == limit_s(Started(item(video_s=3600.0), {}))


def test_no_shard_is_split_for_what_a_header_or_a_size_claims(place: Place) -> None:
    monster = describe_file(str(place.raw / "none.mp4"), 8 * 10**12)
    assert monster.duration_s == 86_400
    others = [RawFile(f"/r/{n}.mp4", 1, 60.0) for n in range(10)]
    assert sorted(len(shard) for shard in balance([monster, *others])) == [1, 10]


@pytest.fixture
def watched(place: Place, monkeypatch: pytest.MonkeyPatch) -> tuple[Supervisor, Slot, list[float]]:
    """A supervisor whose clock is a list of one number, and a worker that has begun an item."""
    clock = [1000.0]
    supervisor = Supervisor(place.spec(max_stall_s=50), place.ledger, Tally(StageReport("s", "s")))
    monkeypatch.setattr(supervisor, "clock", lambda: clock[0])
    slot = Slot(None, "")  # type: ignore[arg-type]
    supervisor.take(slot, Started(item(video_s=1e9), {}))
    return supervisor, slot, clock


def is_over(supervisor: Supervisor, slot: Slot) -> bool:
    ((started, since),) = slot.current.values()
    return supervisor._is_over(slot, started, since)


def test_a_worker_that_comes_further_lives_and_one_that_does_not_is_killed(
    watched: tuple[Supervisor, Slot, list[float]],
) -> None:
    supervisor, slot, clock = watched
    for _ in range(1000):
        clock[0] += 40
        supervisor.take(slot, Progress("u", 1, 1.0))
        assert not is_over(supervisor, slot)
    clock[0] += 51
    assert is_over(supervisor, slot)
    ((started, _),) = slot.current.values()
    assert supervisor._how_hung(slot, started).startswith("came no further for 50 s, after")


def test_not_even_one_that_comes_further_lives_for_ever(
    watched: tuple[Supervisor, Slot, list[float]],
) -> None:
    supervisor, slot, clock = watched
    supervisor.take(slot, Progress("u"))
    clock[0] += 86_401
    supervisor.take(slot, Progress("u"))
    assert is_over(supervisor, slot)
    supervisor.take(slot, Ended("u", "skipped"))
    assert not slot.current


def test_a_worker_that_stands_still_is_killed_and_the_file_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped in the middle of a file, as storage that answers no more would stop it."""
    with (place.raw / "sparse.mp4").open("wb") as file:
        file.truncate(40 * 10**9)
    spec = place.spec(max_stall_s=5)
    stopped: list[int] = []
    real = Supervisor.take

    def take(self: Supervisor, slot: Slot, message: Any) -> None:
        real(self, slot, message)
        if isinstance(message, Progress) and slot.process.pid not in stopped:
            os.kill(slot.process.pid or 0, signal.SIGSTOP)
            stopped.append(slot.process.pid or 0)

    monkeypatch.setattr(Supervisor, "take", take)
    report = run_stage(replace(spec, max_deaths=1, items=(file_item_id(find(place)),)), workers=1)
    assert (report.done, report.quarantined, report.worker_deaths) == (0, 1, 1)
    (entry,) = place.ledger.entries(stage=TABLE, states=[State.QUARANTINED])
    assert "came no further for 5 s, after" in (entry.error or "")
    assert "MB of the file" in (entry.error or "")


def find(place: Place) -> str:
    return str(place.raw / "sparse.mp4")


def test_somebody_is_told_of_slow_storage(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "SLOW_AFTER_S", 0.0)
    warnings: list[str] = []
    spec = place.spec(min_read_megabytes_per_s=100_000)
    report = run_stage(spec, isolate=False, warn=warnings.append)
    (words,) = report.slow.values()
    assert warnings == [words]
    assert words.startswith(f"{place.raw}/good.mp4 is read at ")
    assert "under 100000: look at the disk or the network" in words
    again = replace(spec, run_id="again", force=True, settings=ManifestSettings().model_dump())
    monkeypatch.setattr(pulse, "SLOW_AFTER_S", 20.0)
    assert run_stage(again, isolate=False, warn=warnings.append).slow == {}
    assert len(warnings) == 1


def test_a_rate_is_told_of_once_and_brought_up_to_date() -> None:
    said: list[str] = []
    tally = Tally(StageReport("s", "s"), [item()], min_bytes_per_s=1e6, warn=said.append)
    tally.note(Progress("u", 1_000_000, 10.0))
    assert said == []
    tally.note(Progress("u", 10_000_000, 40.0))
    tally.note(Progress("u", 10_000_000, 80.0))
    assert len(said) == 1
    assert "/r/a.mp4 is read at 0.25 MB/s (10 MB in 40 s), under 1:" in said[0]
    assert "0.12 MB/s" in tally.report.slow["u"]


def test_a_person_finds_it_at_the_asset() -> None:
    reports = [StageReport("s", "s", slow={n: f"{n} is read at 0.1 MB/s"}) for n in ("a", "b")]
    assert report_metadata(merged(reports))[READ_SLOWLY] == (
        "a is read at 0.1 MB/s\nb is read at 0.1 MB/s"
    )
    assert READ_SLOWLY not in report_metadata(StageReport("s", "s"))
