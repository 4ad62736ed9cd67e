"""`ego export rerun`, read back with Rerun's own reader."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dagster_project.cli.program import main
from ego_assets.exports.grid import ExportError
from ego_assets.exports.recordings.writer import write_rerun
from tests.exports.bars import number_in
from tests.exports.lerobot_reader import tree
from tests.exports.numbered_lake import MadeVideo, NumberedLake, make, provenance
from tests.exports.placed_objects import poses_of_cup
from tests.exports.test_lake_export import of
from tests.viewing.test_recording_of_clips import Recorded

LENS = "/world/camera/lens"


def lake_of(folder: Path, *videos: MadeVideo) -> NumberedLake:
    more: dict[str, list[dict[str, Any]]] = {}
    for video in videos:
        for table, rows in poses_of_cup(video).items():
            more.setdefault(table, []).extend(rows)
    return make(folder, *videos, more=more)


def only(folder: Path) -> Path:
    (found,) = folder.rglob("*.rrd")
    return found


def test_each_frame_has_its_picture_and_its_numbers(tmp_path: Path) -> None:
    video = MadeVideo(count=90, cuts=(50,))
    video.overlap, video.is_valid[60:64] = 10, False
    lake = lake_of(tmp_path, video)
    report = lake.export(to="rerun")
    assert (report["episodes"], report["frames"], report["skipped"]) == (1, 90, {})
    found = Recorded(only(tmp_path / "out"))
    pictures = found.column(f"{LENS}/picture", "EncodedImage:blob")
    assert {
        frame: number_in(np.asarray(Image.open(io.BytesIO(np.asarray(blob, np.uint8).tobytes()))))
        for frame, (blob,) in pictures.items()
    } == {n: n for n in range(90)}
    states = found.column("/episode/observation.state", "Scalars:scalars")
    (names,) = (v for k, v in found.static["/episode/observation.state"].items() if "names" in k)
    at = names.index("right_wrist_x")
    rows = of(lake.tables["episode_hands"], "right")
    assert sorted(states) == list(range(90))
    for frame, state in states.items():
        assert state[at : at + 3] == pytest.approx(rows[frame]["camera_from_hand_m"], abs=1e-6)
    for frame, second in enumerate(video.pts_s[:90]):
        assert found.times[frame] == pytest.approx(second, abs=1e-6)
    (said,) = found.static["/provenance"]["TextDocument:text"]
    assert json.loads(said)["video_id"] == video.video_id
    (task,) = found.static["/instruction"]["TextDocument:text"]
    assert task == lake.tables["episodes"][0]["instruction"]


def test_what_is_unchanged_stays_and_what_is_shown_otherwise_is_made_again(
    tmp_path: Path,
) -> None:
    videos = [MadeVideo(count=60, video_id=f"00000000000000{n}") for n in ("a1", "b2")]
    lake = lake_of(tmp_path, *videos)
    lake.export(to="rerun")
    before = tree(tmp_path / "out")
    assert lake.export(to="rerun")["encoded"] == 0
    assert tree(tmp_path / "out") == before
    checked = CliRunner().invoke(main, ["export", "check", str(tmp_path / "out")])
    assert checked.exit_code == 0
    # Rows of a clip are made again: what is drawn of it may be another.
    clip = videos[1].clips[0]["clip_id"]
    rows = lake.lake.read("object_masks", lake.lake.shards()[0])
    lake.lake.publish(
        "object_masks", lake.lake.shards()[0], clip, rows.slice(0, 0), provenance(clip)
    )
    assert (done := lake.export(to="rerun"))["encoded"] == 1 and done["kept"] == 1
    after = tree(tmp_path / "out")
    assert {n for n in before if n.endswith("rrd") and after[n] != before[n]} == {
        name for name in before if name.startswith("00000000000000b2")
    }


def test_a_video_that_is_gone_leaves_its_episode_out(tmp_path: Path) -> None:
    videos = [MadeVideo(count=60, video_id=f"00000000000000{n}") for n in ("a1", "b2")]
    lake = lake_of(tmp_path, *videos)
    (tmp_path / "00000000000000b2.mp4").unlink()
    report = lake.export(to="rerun")
    ((name, why),) = report["skipped"].items()
    assert report["episodes"] == 1 and name[14:16] == "b2" and "b2.mp4" in why


def test_clips_that_are_gone_leave_their_episode_out(tmp_path: Path) -> None:
    lake = make(tmp_path, MadeVideo(count=60))
    assert "the clips that it is made of are gone" in lake.export(ok=False, to="rerun")


def test_without_rerun_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ExportError, match=r"pip install 'ego-assets\[view\]'"):
        write_rerun(tmp_path, [])
