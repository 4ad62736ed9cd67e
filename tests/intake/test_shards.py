"""Files become shards: balanced, fixed, each file once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ego_assets.intake.shards import (
    SHARD_DURATION_S,
    RawFile,
    balance,
    find_files,
    register_files,
    shards_of,
    write_shard,
)
from resources.lake import Lake
from resources.raw.limits import SHARD_FILES
from resources.raw.places import files_of
from tests.engine.stage_bench import write_video


def raw(durations: list[float]) -> list[RawFile]:
    return [RawFile(f"/raw/{i:05d}.mp4", 1, d) for i, d in enumerate(durations)]


@given(st.lists(st.floats(0.1, 3600), max_size=300), st.integers(1, 8))
def test_every_file_is_in_one_shard_and_limits_hold(durations: list[float], least: int) -> None:
    files = raw(durations)
    shards = balance(files, least)
    assert sorted(f.uri for s in shards for f in s) == [f.uri for f in files]
    assert all(0 < len(s) <= SHARD_FILES for s in shards)
    assert len(shards) >= min(least, len(files))


@given(st.lists(st.floats(10, 120), min_size=50, max_size=300))
def test_shards_are_balanced(durations: list[float]) -> None:
    loads = [sum(f.duration_s for f in s) for s in balance(raw(durations))]
    assert max(loads) - min(loads) <= 120
    assert max(loads) <= SHARD_DURATION_S + 120


def test_a_day_of_one_minute_videos_makes_shards_of_a_quarter_of_an_hour() -> None:
    shards = balance(raw([60.0] * 1440))
    assert len(shards) == 96
    assert {len(s) for s in shards} == {15}


def test_files_are_registered_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"{name}.mp4")
    files = find_files([tmp_path]).files
    first = dict(list(files.items())[:2])
    keys = register_files(lake, first, min_shards=2)
    assert len(keys) == 2
    assert register_files(lake, first) == []
    later = register_files(lake, files)
    assert len(later) == 1
    assert [f["uri"] for f in lake.read_shard(later[0])["files"]] == [str(tmp_path / "c.mp4")]
    assert shards_of(lake, [str(tmp_path / "c.mp4")]) == later


def test_the_header_tells_the_duration_and_rubbish_is_taken_too(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    write_video(tmp_path / "good.mp4", frames=30)
    (tmp_path / "noise.mp4").write_bytes(b"\x07" * 2_000_000)
    key = register_files(lake, find_files([tmp_path]).files)[0]
    good, noise = lake.read_shard(key)["files"]
    assert good["duration_s"] == pytest.approx(3.0, abs=0.2)
    assert noise["duration_s"] == pytest.approx(2.0)


def test_folders_give_videos_and_named_files_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    for name in ("deep/a.MP4", "b.mkv", "notes.txt", "deep/.hidden/c.mp4"):
        (tmp_path / name).write_bytes(b"x")
    found = [Path(uri).name for uri in find_files([tmp_path]).files]
    assert found == ["b.mkv", "a.MP4"]
    assert list(find_files([tmp_path / "notes.txt"]).files) == [str(tmp_path / "notes.txt")]
    with pytest.raises(FileNotFoundError, match="missing"):
        find_files([tmp_path / "missing"])


def test_a_name_of_its_own_is_stored_as_all_releases_read_it(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    shard = write_shard(lake, [RawFile("/raw/a.mp4", 1, 2.0, item="f" * 16)])
    (stored,) = lake.read_shard(shard)["files"]
    assert stored == {"uri": "/raw/a.mp4", "byte_size": 1, "duration_s": 2.0, "unit": "f" * 16}
    assert [f.item for f in files_of(lake, shard)] == ["f" * 16]
