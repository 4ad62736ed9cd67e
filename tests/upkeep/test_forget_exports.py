"""Data sets in the lake of which a video was forgotten: made by the exporter itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ego_assets.exports.files import IN_LAKE, alone_in
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lerobot.writer import write_dataset
from ego_assets.exports.publishing import STAGING
from ego_assets.upkeep.erasure.data_sets import erase_data_sets
from resources.lake import Lake
from tests.exports.numbered import episode

VIDEO, OTHER = "0" * 16, "f" * 16


def export(lake: Lake, name: str, *videos: str) -> Path:
    folder: Path = lake.root / IN_LAKE / name
    made = (
        episode(f"of {video}", 4, 9 * number, provenance={"video_id": video})
        for number, video in enumerate(videos)
    )
    write_dataset(folder, made)
    return folder


def erase(lake: Lake) -> list[str]:
    keys = [key for key in lake.storage.everything() if key.startswith(f"{IN_LAKE}/")]
    return erase_data_sets(lake, VIDEO, keys)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_only_data_sets_that_have_it_go_and_they_can_be_made_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    mine, theirs = export(lake, "a/mine", VIDEO, OTHER), export(lake, "a/theirs", OTHER)
    before = files(theirs)
    # An export that was killed while it encoded: pictures, and nothing that says whose.
    for folder in (theirs, lake.root / IN_LAKE / "never finished"):
        part = folder / STAGING / "parts" / "77.unfinished"
        part.mkdir(parents=True)
        (part / "ego.mp4").write_bytes(b"pictures")
    (lake.root / IN_LAKE / "list.txt").write_text(f"we have {VIDEO}-0000")
    (lake.root / IN_LAKE / "other list.txt").write_text(f"we have {OTHER}-0000")
    assert sorted(erase(lake)) == [f"{IN_LAKE}/a/mine", f"{IN_LAKE}/list.txt"]
    assert files(theirs) == before
    left = {p.name for p in (lake.root / IN_LAKE).rglob("*.*") if "theirs" not in p.parts}
    assert left == {"other list.txt"}
    assert list(mine.iterdir()) == []
    export(lake, "a/mine", OTHER)
    assert erase(lake) == []
    assert files(mine).keys() == before.keys()


def test_what_an_export_had_decided_is_ended_first(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    folder = export(lake, "theirs", OTHER)
    before = files(folder)
    staging = folder / STAGING
    staging.mkdir()
    (folder / "meta" / "info.json").rename(staging / "info.json")
    journal = {"moves": {"meta/info.json": "info.json"}, "deletes": []}
    (staging / "journal.json").write_text(json.dumps(journal))
    assert erase(lake) == []
    assert files(folder) == before


def test_a_data_set_that_is_being_written_is_not_touched(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    folder = export(lake, "mine", VIDEO)
    before = files(folder)
    with alone_in(folder), pytest.raises(ExportError, match="another export"):
        erase(lake)
    assert files(folder) == before
