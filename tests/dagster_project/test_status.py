"""`ego status` says what is left: all tables, the share of the footage, and the names of files."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from ego_assets.catalog import TABLES, tables_of_items
from ego_assets.engine.choices import Choice, Choices
from ego_assets.graph.probe_checks import quality_results
from ego_assets.quality.failed import failed_checks, note_failed, reword_failed
from ego_assets.quality.settings import ProbeSettings
from ego_assets.upkeep.overview import READERS
from ego_assets.upkeep.profiles import Profiles, read_profiles
from resources.lake import Lake, file_item_id
from resources.ledger import Ledger
from resources.ledger.contents import Contents
from resources.words import names_alone
from tests.engine.stage_bench import blank_row, provenance

FIRST, SECOND = "20260101-0000", "20260101-0001"
CLIP_TABLES = [t for t in TABLES if t not in ("video_manifest", "clips")]


def ego(lake: Lake, *options: str) -> str:
    command = ["status", "--lake", lake.location, *options]
    done = CliRunner(env={"COLUMNS": "80"}).invoke(main, command)
    assert done.exit_code == 0, done.output
    return done.stdout


def found(lake: Lake, *options: str) -> dict[str, Any]:
    return json.loads(ego(lake, "--json", *options))


@pytest.fixture(autouse=True)
def _own_dagster_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")


class Bench:
    """Two shards: of an hour and a half with two videos, and of half an hour, not begun."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake(folder / "lake")
        self.ledger = Ledger.beside(self.lake.root)
        self.ledger.open()
        self.write_shard(FIRST, {"kitchen": 3600.0, "garage": 1800.0})
        self.write_shard(SECOND, {"garden": 1800.0})

    def write_shard(self, shard: str, files: dict[str, float]) -> None:
        entries = [
            {"uri": uri_of(name), "byte_size": 1, "duration_s": s} for name, s in files.items()
        ]
        self.lake.write_shard(shard, {"files": entries})

    def finish(self, table: str, items: Iterable[tuple[str, str]], fails: str = "") -> None:
        """Do items of the first shard, (item, video), but for one that fails."""
        items = list(items)
        self.ledger.expect(table, FIRST, items)
        for item, _ in items:
            attempt = self.ledger.start(table, item, fingerprint="f", worker="w", run_id="r")
            if item == fails:
                words = {"error_class": "Bad", "error": "the file ends early"}
                self.ledger.fail(table, item, attempt, **words, quarantine=True)
            else:
                self.ledger.finish(table, item, attempt)

    def enter_videos(self) -> None:
        """As far as the clips of the first shard: three of the kitchen, one of the garage."""
        videos = {video_of(name): uri_of(name) for name in ("kitchen", "garage")}
        self.finish("video_manifest", [(file_item_id(uri), v) for v, uri in videos.items()])
        for video, uri in videos.items():
            Contents(self.ledger).claim(video, uri, FIRST, file_item_id(uri))
        self.finish("clips", [(video, video) for video in videos])


def uri_of(name: str) -> str:
    return f"/raw/a_folder_with_a_long_name/and_another_one_in_it/{name}_recording.mp4"


def video_of(name: str) -> str:
    return f"{name:0<16}"


CLIPS = [(f"{video_of('kitchen')}-{n:04d}", video_of("kitchen")) for n in range(3)]
CLIPS += [(f"{video_of('garage')}-0000", video_of("garage"))]


def test_a_lake_that_is_not_begun(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    told = found(bench.lake)
    assert list(told["stages"]) == list(TABLES)
    assert set(told["percent"].values()) == {0.0}
    assert (told["files"], told["footage_s"]) == (3, 7200.0)
    assert told["stages"]["video_manifest"]["pending"] == 3
    assert told["waiting"] == {
        "files": 3,
        "first": [uri_of("kitchen"), uri_of("garage"), uri_of("garden")],
    }
    shown = ego(bench.lake)
    assert f"{bench.lake.location}: 2 shards, 3 files, 2.0 hours of footage\n" in shown
    assert "not begun: 2 of 2 shards" in shown
    assert f"waits: {uri_of('garden')}\n" in shown
    for table in TABLES:
        assert table in shown


def test_galleries_are_told_with_a_link(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert "galleries:" not in ego(bench.lake)
    bench.enter_videos()
    assert found(bench.lake)["galleries"] == {"looked_at": [FIRST], "made": {}}
    assert "galleries: 0 of 1 shard: they are made by materializing `galleries`" in ego(bench.lake)
    bench.lake.storage.write(f"_galleries/{FIRST}/index.html", b"page")
    page = f"{bench.lake.location}/_galleries/{FIRST}/index.html"
    assert found(bench.lake)["galleries"]["made"] == {FIRST: page}
    assert f"galleries: 1 of 1 shard; /galleries/{FIRST}/ of `ego up`, or {page}" in ego(bench.lake)


def test_percent_is_of_the_footage_and_names_are_of_files(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.enter_videos()
    bench.finish("detections", CLIPS)
    bench.finish("hand_poses", CLIPS, fails=CLIPS[3][0])
    told = found(bench.lake)
    assert told["shards_not_begun"] == [SECOND]
    percent = told["percent"]
    assert percent["video_manifest"] == percent["clips"] == percent["detections"] == 75.0
    assert percent["hand_poses"] == 56.2, "three of four clips of 75 %"
    assert percent["robot_mappings"] == 0.0
    assert told["stages"]["robot_mappings"]["pending"] == 4, "it will have what others have"
    (failure,) = told["failures"]
    assert (failure["unit"], failure["file"]) == (CLIPS[3][0], uri_of("garage"))
    shown = ego(bench.lake)
    assert f"quarantined hand_poses {CLIPS[3][0]} of {uri_of('garage')}: the file" in shown
    assert "not begun: 1 of 2 shards" in shown


def test_a_hundred_percent_is_all_of_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.lake.storage.delete(f"shards/{SECOND}.json")
    bench.enter_videos()
    for table in CLIP_TABLES:
        bench.finish(table, CLIPS)
    told = found(bench.lake)
    assert set(told["percent"].values()) == {100.0}
    assert told["waiting"] == {"files": 0, "first": []}
    shown = ego(bench.lake)
    assert "1 shard, 2 files, 1.5 hours of footage" in shown
    assert "waits" not in shown
    bench.ledger.requeue("robot_mappings", [CLIPS[0][0]], "test")
    again = found(bench.lake)
    assert again["percent"]["robot_mappings"] == 75.0
    assert again["waiting"]["first"] == [uri_of("kitchen")]


def test_nothing_is_left_of_a_shard_whose_videos_are_all_rejected(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.lake.storage.delete(f"shards/{SECOND}.json")
    names = ("kitchen", "garage")
    bench.finish("video_manifest", [(file_item_id(uri_of(n)), video_of(n)) for n in names])
    assert found(bench.lake)["percent"]["clips"] == 0.0, "nobody has said so yet"
    for name in names:
        row = blank_row("video_manifest", video_id=video_of(name), shard=FIRST, uri=uri_of(name))
        row |= {"byte_size": 1, "sha256": "0" * 64, "accepted": False, "reject_reason": "damaged"}
        batch = TABLES["video_manifest"].from_rows([row])
        bench.lake.publish("video_manifest", FIRST, name, batch, provenance("m"))
    percent = found(bench.lake)["percent"]
    of_shards = set(tables_of_items("shard"))  # they say of the shard what became of its files
    assert {percent[table] for table in set(percent) - of_shards} == {100.0}
    assert {percent[table] for table in of_shards} == {0.0}


def test_failed_checks_are_shown_until_the_shard_is_well(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    failed = {"check": "hands_do_not_jitter", "severity": "warn", "reason": "1 of 3 jitters"}
    broken = {"check": "hands_are_not_mirrored", "severity": "error", "reason": "2 of 3 do"}
    note_failed(bench.lake, "hand_poses", FIRST, [failed])
    note_failed(bench.lake, "hand_poses", SECOND, [broken])
    told = found(bench.lake)["checks"]
    assert told["failed"] == 2
    assert told["first"][0] == broken | {"asset": "hand_poses", "shard": SECOND}
    shown = ego(bench.lake)
    assert f"check failed: hands_are_not_mirrored of hand_poses, shard {SECOND}: 2 of" in shown
    assert f"check warning: hands_do_not_jitter of hand_poses, shard {FIRST}: 1 of 3" in shown
    note_failed(bench.lake, "hand_poses", SECOND, [])
    assert found(bench.lake)["checks"]["failed"] == 1


def test_names_of_forgotten_files_leave_the_notes_of_their_shard(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for shard in (FIRST, SECOND):
        told = {"check": "frames_are_even", "severity": "warn", "reason": '1 of 3; look at "ä.mp4"'}
        note_failed(bench.lake, "hand_poses", shard, [told])
    words = names_alone(["/raw/ä.mp4"])
    assert reword_failed(bench.lake, "hand_poses", FIRST, words) == 1
    assert reword_failed(bench.lake, "hand_poses", FIRST, words) == 0
    reasons = {c["shard"]: c["reason"] for c in failed_checks(bench.lake, ["hand_poses"])}
    assert reasons == {FIRST: '1 of 3; look at "(forgotten)"', SECOND: '1 of 3; look at "ä.mp4"'}


def test_probes_note_what_they_find(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.lake.storage.write(f"hand_poses/{FIRST}.parquet", b"damaged")
    for _ in range(2):  # the same file, not one more line
        list(quality_results(bench.lake, "hand_poses", [FIRST], ProbeSettings()))
        names = [check["check"] for check in found(bench.lake)["checks"]["first"]]
        assert "hands_are_not_mirrored" in names
        assert len(names) == len(set(names))


def test_what_was_chosen_for_shards_is_listed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    wide = Choice({"threshold": 25.0}, {}, (), "1a2b3c4d-5e6f", profile="wide-cuts")
    for shard in (FIRST, SECOND):
        Choices(bench.lake).keep("split", shard, wide)
    Choices(bench.lake).keep("segmenter", FIRST, Choice({}, {"segmenter": "sam2"}, ("c",), "9f8e"))
    bench.lake.storage.write(f"_choices/hand_estimator/{FIRST}.json", b"[")
    profiles = {(p["stage"], p["shard"]): p for p in found(bench.lake)["profiles"]}
    assert profiles["split", SECOND]["name"] == "wide-cuts"
    assert profiles["split", SECOND]["settings"] == {"threshold": 25.0}
    assert profiles["segmenter", FIRST]["only"] == ["c"]
    assert "cannot be read" in profiles["hand_estimator", FIRST]["settings"]
    assert len(found(bench.lake, "--failures", "1")["profiles"]) == 1
    words = ego(bench.lake)
    assert 'profile wide-cuts of split: {"threshold": 25.0} for 2 shards' in words
    assert "profile run-9f8e of segmenter" in words


def test_what_was_chosen_is_read_at_the_same_time_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Bench(tmp_path).lake
    shards = [f"20260102-{n:04d}" for n in range(2 * READERS)]
    for shard in shards:
        Choices(lake).keep("split", shard, Choice({"threshold": 25.0}, run_id="1a2b"))
    real, read = lake.storage.read, []
    meeting = threading.Barrier(READERS, timeout=60)

    def meets_others(key: str) -> bytes:
        meeting.wait()
        read.append(key)
        return real(key)

    monkeypatch.setattr(lake.storage, "read", meets_others)
    profiles = read_profiles(lake, Profiles())
    assert (len(profiles.rows), profiles.not_read, len(read)) == (len(shards), 0, len(shards))
    monkeypatch.setattr(lake.storage, "read", real)
    lake.storage.delete(f"_choices/split/{shards[0]}.json")
    Choices(lake).keep("split", FIRST, Choice({"threshold": 30.0}))
    monkeypatch.setattr(lake.storage, "read", lambda key: read.append(key) or real(key))
    again = read_profiles(lake, profiles)
    assert sorted(row["shard"] for row in again.rows) == [FIRST, *shards[1:]]
    assert read[len(shards) :] == [f"_choices/split/{FIRST}.json"]
    hurried = read_profiles(lake, Profiles(), budget_s=-1.0)
    assert (hurried.rows, hurried.not_read) == ([], len(shards))
