"""Chapters of one recording are known by their names, and by what their headers say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ego_assets.media.containers import open_media
from ego_assets.operator import BadInputError
from ego_assets.videos.recordings.chapters import newly_there, recording_columns
from ego_assets.videos.recordings.evidence import HeaderFacts, Timecode, follows, header_facts
from ego_assets.videos.recordings.names import chapter_of
from resources.raw.presence import RawGoneError
from resources.raw.s3.remote_file import BLOCK_BYTES, RemoteFile
from tests.resources.s3_server import new_bucket, s3_client, s3_server
from tests.support.numbered_video import write_numbered

NOTHING = {"recording_id": None, "chapter_index": None, "recording_start_s": None}
FIRST = HeaderFacts("h264", (320, 240), 30.0, 60.0, {"firmware": "HD9.01"}, None, None)


@pytest.mark.parametrize(
    ("name", "recording", "index", "before"),
    [
        ("GX010012.MP4", "GX0012", 0, None),
        ("GX020012.MP4", "GX0012", 1, "GX010012.MP4"),
        ("gh110012.mp4", "GH0012", 10, "gh100012.mp4"),
        ("GL020012.MP4", "GL0012", 1, "GL010012.MP4"),
        ("GOPR0012.MP4", "GOPR0012", 0, None),
        ("GP010012.MP4", "GOPR0012", 1, "GOPR0012.MP4"),
        ("gp020012.mp4", "GOPR0012", 2, "gp010012.mp4"),
    ],
)
@pytest.mark.parametrize("folder", ["/raw/100GOPRO", "s3://bucket/day 1"])
def test_names(folder: str, name: str, recording: str, index: int, before: str | None) -> None:
    found = chapter_of(f"{folder}/{name}")
    assert found is not None
    assert (found.recording, found.index) == (recording, index)
    nearest = found.before()[0] if index else None
    assert (nearest and nearest.uri) == (before and f"{folder}/{before}")
    for each in found.before():
        assert chapter_of(each.uri) == each
    assert len(found.before()) == index


@pytest.mark.parametrize(
    "name",
    [
        *("GX000012.MP4", "GP000012.MP4", "GHAA0012.MP4", "GX01001.MP4", "GX0100123.MP4"),
        *("C0012.MP4", "DJI_0012.MP4", "VID_20240101_120000_00_001.mp4"),
        *("GX020012 (1).MP4", "XGX010012.MP4"),
    ],
)
def test_names_that_say_nothing(name: str) -> None:
    assert chapter_of(f"/raw/{name}") is None


def test_a_name_of_any_bytes_has_neighbours() -> None:
    found = chapter_of("file:///raw/%FF/GX020012.MP4")
    assert found is not None
    assert [each.uri for each in found.before()] == ["file:///raw/%FF/GX010012.MP4"]


def code(frame: int, rate: float = 30.0) -> Timecode:
    return Timecode(frame, 24 * 3600 * 30, rate)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, True),
        ({}, {"codec": "hevc"}, False),
        ({}, {"size": (640, 480)}, False),
        ({}, {"rate": 60.0}, False),
        ({}, {"rate": 29.97}, True),
        ({}, {"camera": {"firmware": "HD8.01"}}, False),
        ({}, {"camera": {}}, True),
        ({"created_s": 1e9}, {"created_s": 1e9 + 61}, True),
        ({"created_s": 1e9}, {"created_s": 1e9}, True),
        ({"created_s": 1e9}, {"created_s": 1e9 + 3600}, False),
        ({"created_s": 1e9}, {"created_s": 1e9 - 60}, False),
        ({"created_s": 1e9}, {}, True),
        ({"created_s": 1e9, "duration_s": None}, {"created_s": 1e9 + 3600}, True),
        ({"timecode": code(300)}, {"timecode": code(2100)}, True),
        ({"timecode": code(300)}, {"timecode": code(2400)}, False),
        ({"timecode": code(300)}, {"timecode": code(300)}, True),
        ({"timecode": code(0)}, {"timecode": code(0)}, True),
        ({"timecode": code(24 * 3600 * 30 - 900)}, {"timecode": code(900)}, True),
        # One clock that agrees is enough: tools that copy files put the other one back.
        (
            {"timecode": code(300), "created_s": 1e9},
            {"timecode": code(2100), "created_s": 1e9 + 7200},
            True,
        ),
        (
            {"timecode": code(300), "created_s": 1e9},
            {"timecode": code(9999), "created_s": 1e9 + 7200},
            False,
        ),
    ],
)
def test_what_follows(before: dict[str, Any], after: dict[str, Any], expected: bool) -> None:
    assert follows(replace(FIRST, **before), replace(FIRST, **after)) is expected


def chapter(path: Path, count: int = 30, first: int = 0, **tags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_numbered(path, count, numbers=range(first, first + count), tags=tags)


def test_headers_say_when_and_by_what_a_file_was_made(tmp_path: Path) -> None:
    tags = {"creation_time": "2026-05-01T10:00:00.000000Z", "timecode": "11:07:15:07"}
    path = chapter(tmp_path / "a.mov", 45, **tags)
    with open_media(path) as container:
        facts = header_facts(container)
    assert (facts.codec, facts.size, facts.rate) == ("h264", (320, 240), 30.0)
    assert facts.duration_s == pytest.approx(1.5)
    assert facts.created_s == 1777629600.0
    assert facts.timecode == Timecode((11 * 3600 + 7 * 60 + 15) * 30 + 7, 24 * 3600 * 30, 30.0)


def columns(path: Path) -> dict[str, Any]:
    return recording_columns(str(path), path)


def test_chapters_are_one_recording_in_order(tmp_path: Path) -> None:
    paths = [
        chapter(tmp_path / f"GX0{n}0012.MP4", 30 * n, creation_time="2026-05-01T10:00:00Z")
        for n in (1, 2, 3)
    ]
    found = [columns(path) for path in paths]
    assert len({row["recording_id"] for row in found}) == 1
    assert [row["chapter_index"] for row in found] == [0, 1, 2]
    assert [row["recording_start_s"] for row in found] == pytest.approx([0.0, 1.0, 3.0])
    alone = columns(chapter(tmp_path / "GX010013.MP4"))
    assert alone["recording_id"] not in {None, found[0]["recording_id"]}
    other = columns(chapter(tmp_path / "other card" / "GX010012.MP4"))
    assert other["recording_id"] not in {None, found[0]["recording_id"]}
    assert columns(chapter(tmp_path / "plain.mp4")) == NOTHING


def test_what_does_not_follow_is_no_chapter(tmp_path: Path) -> None:
    chapter(tmp_path / "GX010012.MP4", creation_time="2026-05-01T10:00:00Z")
    later = chapter(tmp_path / "GX020012.MP4", creation_time="2026-05-01T13:00:00Z")
    third = chapter(tmp_path / "GX030012.MP4", creation_time="2026-05-01T13:00:01Z")
    assert columns(later) == NOTHING
    assert columns(third) == NOTHING


def test_a_chapter_that_is_missing_leaves_the_time_open(tmp_path: Path) -> None:
    first, third = (chapter(tmp_path / f"GX0{n}0012.MP4") for n in (1, 3))
    row = columns(third)
    assert row["recording_id"] == columns(first)["recording_id"]
    assert (row["chapter_index"], row["recording_start_s"]) == (2, None)
    assert newly_there(str(third), row) == []
    second = tmp_path / "GX020012.MP4"
    second.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))  # it is still being written
    assert columns(third)["recording_start_s"] is None
    assert len(newly_there(str(third), row)) == 2
    chapter(second)
    assert columns(third)["recording_start_s"] == pytest.approx(2.0)
    assert newly_there(str(third), columns(third)) == []


def test_a_link_is_no_chapter_before(tmp_path: Path) -> None:
    elsewhere = chapter(tmp_path / "secret" / "a.mp4")
    (tmp_path / "GX010012.MP4").symlink_to(elsewhere)
    row = columns(chapter(tmp_path / "GX020012.MP4"))
    assert row["recording_start_s"] is None


def test_what_the_manifest_knows_of_a_chapter_stays(tmp_path: Path) -> None:
    path = chapter(tmp_path / "GX020012.MP4")
    asked: list[str] = []

    def known(uris: Any) -> str:
        asked.extend(Path(uri).name for uri in uris)
        return "0123456789abcdef"

    assert recording_columns(str(path), path, known)["recording_id"] == "0123456789abcdef"
    assert asked == ["GX020012.MP4", "GX010012.MP4", "GX030012.MP4"]


def test_headers_on_s3_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = chapter(tmp_path / "GX010012.MP4", 45)
    second = chapter(tmp_path / "GX020012.MP4")
    # As a long recording is stored: pictures first, and what they are at the end.
    data = first.read_bytes()
    at = data.find(b"mdat") - 4
    filler = (len(data) + 12 * BLOCK_BYTES).to_bytes(4, "big") + b"free"
    grown = data[:at] + filler + bytes(len(data) + 12 * BLOCK_BYTES - 8) + data[at:]
    with s3_server(monkeypatch):
        bucket = new_bucket()
        s3_client().put_object(Bucket=bucket, Key="day/GX010012.MP4", Body=grown)
        uri = f"s3://{bucket}/day/GX020012.MP4"
        row = recording_columns(uri, second)
        assert (row["chapter_index"], row["recording_start_s"]) == (1, pytest.approx(1.5))
        with RemoteFile(f"s3://{bucket}/day/GX010012.MP4") as file:
            with open_media(file) as container:
                assert container.duration == 1_500_000
            fetched = len(file._blocks)
            assert fetched * BLOCK_BYTES < len(grown) / 2
            file.seek(0)
            assert file.read() == grown
        with pytest.raises(RawGoneError):
            RemoteFile(f"s3://{bucket}/day/none.mp4")


def test_an_open_file_must_be_of_a_known_format(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n" * 9)
    with path.open("rb", buffering=0) as file, pytest.raises(BadInputError, match="known format"):
        open_media(file)
