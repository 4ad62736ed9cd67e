"""Chapters of one recording join it whenever they arrive, in whatever order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from ego_assets.engine.plan import WorkItem, plan
from ego_assets.intake.chapters import wearers_elsewhere
from ego_assets.intake.sources import settle
from ego_assets.reading import open_lake
from ego_assets.videos.recordings import chapters
from resources.lake import Lake
from resources.ledger import State
from resources.ledger.sources import STAGE
from tests.engine.raw_bench import RawBench
from tests.engine.stage_bench import spec_for
from tests.intake.test_arrivals import LIMITS, Place
from tests.support.numbered_video import number_of, write_numbered


@pytest.fixture
def bench(tmp_path: Path) -> RawBench:
    made = RawBench(tmp_path, videos=0)
    (made.raw / "100GOPRO").mkdir()
    return made


def put(bench: RawBench, number: int, folder: str = "100GOPRO") -> Path:
    """A chapter of one second whose pictures go on from the one before."""
    first = 30 * (number - 1)
    path = bench.raw / folder / f"GX0{number}0012.MP4"
    return write_numbered(path, 30, numbers=range(first, first + 30))


def run(bench: RawBench) -> dict[str, dict[str, Any]]:
    """{name: its row of the manifest}"""
    bench.run(stages=("probe", "split"))
    return {Path(r["uri"]).name: r for r in bench.manifest()}


def starts(rows: dict[str, dict[str, Any]]) -> list[float | None]:
    return [rows[name]["recording_start_s"] for name in sorted(rows)]


def test_a_later_shard_joins_the_recording(bench: RawBench) -> None:
    put(bench, 1)
    first = run(bench)["GX010012.MP4"]
    before = bench.work()
    put(bench, 2)
    rows = run(bench)
    assert rows["GX010012.MP4"] == first
    assert rows["GX010012.MP4"]["shard"] != rows["GX020012.MP4"]["shard"]
    assert rows["GX020012.MP4"]["recording_id"] == first["recording_id"] is not None
    assert starts(rows) == pytest.approx([0.0, 1.0])
    assert before.items() <= bench.work().items()
    clips = {c["video_id"]: c for c in bench.rows()["clips"]}
    second = clips[rows["GX020012.MP4"]["video_id"]]
    assert clips[first["video_id"]]["split_reason"] == "start"
    assert second["split_reason"] == "chapter"
    assert second["recording_id"] == first["recording_id"]
    assert second["recording_start_s"] == pytest.approx(1.0)
    recording = open_lake(bench.lake.location).recording(first["recording_id"])
    shown = [number_of(f.image) for clip in recording.clips() for f in clip.frames()]
    assert (len(recording), shown) == (2, list(range(60)))
    assert [len(take) for take in recording.takes()] == [2], "it runs across files and shards"


def test_a_chapter_before_the_others_gives_them_their_time(bench: RawBench) -> None:
    put(bench, 2)
    put(bench, 3)
    rows = run(bench)
    assert starts(rows) == [None, None]
    recording = rows["GX020012.MP4"]["recording_id"]
    takes = open_lake(bench.lake.location).recording(recording).takes()
    assert [len(take) for take in takes] == [1, 1], "where they lie in it is not known"
    put(bench, 1)
    rows = run(bench)
    assert {row["recording_id"] for row in rows.values()} == {recording}
    assert starts(rows) == pytest.approx([0.0, 1.0, 2.0])
    found = {c["video_id"]: c["recording_start_s"] for c in bench.rows()["clips"]}
    assert [found[rows[n]["video_id"]] for n in sorted(rows)] == pytest.approx([0.0, 1.0, 2.0])
    done = bench.work()
    bench.make(*bench.lake.shards(), stages=("probe", "split"))
    assert bench.work() == done
    assert bench.counts(State.DONE)[:2] == [3, 3]


def test_a_listing_asks_for_the_shard_that_waits_for_a_chapter(tmp_path: Path) -> None:
    place, limits = Place(tmp_path), replace(LIMITS, files=1)

    def arrive(number: int) -> list[str]:
        write_numbered(place.raw / f"GX0{number}0012.MP4", 30)
        place.look(0, limits)
        place.look(11, limits)
        return sorted(place.asked_for())

    arrive(2)
    place.run("video_manifest")
    (waiting,) = place.lake.shards()
    assert arrive(4) == [(own := place.lake.shards()[-1])] != [waiting]
    place.run("video_manifest")
    assert arrive(1) == sorted([waiting, own, place.lake.shards()[-1]])
    place.run("video_manifest")
    rows = [r for s in place.lake.shards() for r in place.lake.read(STAGE, s).to_pylist()]
    found = {r["chapter_index"]: r["recording_start_s"] for r in rows}
    assert found == {0: 0.0, 1: pytest.approx(1.0), 3: None}
    assert place.look(500, limits).shards == []
    assert place.asked_for() == []


def test_whose_footage_a_chapter_is_does_not_have_it_made_again(
    bench: RawBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bench, 2)
    run(bench)
    # The chapter before has come, and does not say how long it is.
    monkeypatch.setattr(chapters, "newly_there", lambda uri, row: ["a version"])
    run(bench)
    work = bench.work()
    (bench.raw / "100GOPRO" / "footage.json").write_text('{"consent": "granted"}')
    assert run(bench)["GX020012.MP4"]["consent"] == "granted"
    assert {k: v[1] for k, v in bench.work().items()} == {k: v[1] for k, v in work.items()}


def test_chapters_that_cannot_be_asked_for_now_keep_no_shard(
    bench: RawBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(uri: str, row: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="http://storage")

    put(bench, 2)
    rows = run(bench)
    monkeypatch.setattr(chapters, "newly_there", away)
    settle(bench.lake, bench.ledger, bench.lake.shards()[0])
    assert run(bench) == rows


def test_what_was_known_stays_when_a_chapter_is_gone(bench: RawBench) -> None:
    first = put(bench, 1)
    put(bench, 2)
    rows = run(bench)
    done = bench.work()
    first.unlink()
    bench.make(*bench.lake.shards(), stages=("probe", "split"))
    assert bench.video("GX020012.MP4") == rows["GX020012.MP4"]
    work = bench.work()
    assert all(
        work[key] == value for key, value in done.items() if rows["GX020012.MP4"]["video_id"] in key
    )


def test_a_recording_that_was_moved_keeps_its_id(bench: RawBench) -> None:
    put(bench, 1)
    recording = run(bench)["GX010012.MP4"]["recording_id"]
    (bench.raw / "100GOPRO").rename(bench.raw / "monday")
    put(bench, 2, "monday")
    rows = run(bench)
    assert {Path(row["uri"]).parent.name for row in rows.values()} == {"monday"}
    assert [rows[n]["recording_id"] for n in sorted(rows)] == [recording] * 2
    assert starts(rows) == pytest.approx([0.0, 1.0])


def test_a_chapter_has_the_wearer_whom_only_another_shard_names(bench: RawBench) -> None:
    """So all chapters are in one split, and in that of the wearer's other footage."""
    put(bench, 1)
    rows = run(bench)
    shard, recording = rows["GX010012.MP4"]["shard"], rows["GX010012.MP4"]["recording_id"]

    def planned() -> WorkItem:
        spec = spec_for("episodes", bench.lake, bench.ledger, shard, inputs=("video_manifest",))
        ((item,),) = (group.items for group in plan(spec, bench.lake, bench.ledger))
        return item

    alone = planned()
    assert alone.payload["wearers"] == {}
    put(bench, 2)
    rows = run(bench)
    assert rows["GX020012.MP4"]["shard"] != shard
    assert planned() == alone, "nobody says anything: nothing is made again"
    (bench.raw / "100GOPRO" / "GX020012.footage.json").write_text('{"person": "p7"}')
    rows = run(bench)
    assert planned().payload["wearers"] == {recording: "p7"}
    assert planned().base_fingerprint != alone.base_fingerprint
    other = rows["GX020012.MP4"]["shard"]
    spec = spec_for("episodes", bench.lake, bench.ledger, other, inputs=("video_manifest",))
    (group,) = plan(spec, bench.lake, bench.ledger)
    assert group.items[0].payload["wearers"] == {}, "its own file says it"


def test_the_manifest_of_another_shard_is_read_once_for_all_of_its_chapters(
    bench: RawBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bench, 1)
    shard = run(bench)["GX010012.MP4"]["shard"]
    for number in (2, 3, 4):
        put(bench, number)
    rows = run(bench)
    (other,) = {row["shard"] for row in rows.values()} - {shard}
    read = []

    def counted(lake: Lake, table: str, shard: str, **more: Any) -> Any:
        read.append(shard)
        return whole(lake, table, shard, **more)

    whole = Lake.read
    monkeypatch.setattr(Lake, "read", counted)
    found = wearers_elsewhere(bench.lake, bench.ledger, shard, [rows["GX010012.MP4"]])
    assert (found, read) == ({}, [other])
