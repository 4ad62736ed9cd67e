"""From odd files to episodes, through `ego run`: each row's frame is the picture that a player
shows there, and its time is when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ego_assets.catalog import TABLES, feature_of
from ego_assets.reading import open_lake
from resources.lake import Lake
from tests.support.numbered_video import RATE, number_of, write_numbered
from tests.support.timed_video import Shown, write_cases

ROOT = Path(__file__).resolve().parents[2]
EGO = [sys.executable, "-c", "from dagster_project.entry import main; main()"]
BACKENDS = """
segmenter: tests.dagster_project.numbered_graph:NumberedSegmenter
hand_estimator: tests.dagster_project.numbered_graph:NumberedHands
reconstructor: tests.dagster_project.numbered_graph:NumberedCameras
settings:
  split: {max_clip_s: 1.3, overlap_s: 0.4}
"""
NUMBERED = ("detections", "object_masks", "hand_masks", "hand_poses")
TIMED = [
    table
    for table, rows in TABLES.items()
    if "pts_s" in rows.model_fields and feature_of(table).name != "telemetry"
]
"""Tables with a time in each row; these videos have no telemetry."""
TICK_S = 1e-4
pytestmark = pytest.mark.slow


@dataclass
class Made:
    """shown: by the name of a file; rows: by table; name_of: of a video."""

    shown: dict[str, Shown]
    rows: dict[str, list[dict[str, Any]]]
    name_of: dict[str, str]
    lake: Lake

    def of(self, row: dict[str, Any]) -> Shown:
        return self.shown[self.name_of[row["video_id"]]]

    def video(self, name: str) -> dict[str, Any]:
        return next(r for r in self.rows["video_manifest"] if self.name_of[r["video_id"]] == name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One run over all files."""
    folder = tmp_path_factory.mktemp("numbered")
    shown = write_cases(folder / "raw")
    for chapter, (first, count) in enumerate([(0, 75), (75, 90)], 1):
        name = f"GX0{chapter}0012.MP4"
        numbers = range(first, first + count)
        write_numbered(folder / "raw" / name, count, numbers=numbers)
        shown[name] = Shown(list(numbers), np.arange(count) / RATE)
    (folder / "backends.yaml").write_text(BACKENDS)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "EGO_BACKENDS": str(folder / "backends.yaml"),
        "DAGSTER_HOME": str(folder / "home"),
    }
    command = [*EGO, "run", str(folder / "raw"), "--lake", str(folder / "lake"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert json.loads(done.stdout)["videos"] == {"total": 9, "accepted": 9, "rejected": 0}
    lake = Lake(folder / "lake")
    rows = {
        table: [r for s in lake.shards() for r in lake.read(table, s).to_pylist()]
        for table in TABLES
    }
    name_of = {r["video_id"]: Path(r["uri"]).name for r in rows["video_manifest"]}
    return Made(shown, rows, name_of, lake)


def test_the_manifest_counts_what_is_shown(made: Made) -> None:
    for name, shown in made.shown.items():
        row = made.video(name)
        assert row["frame_count"] == len(shown.numbers), name
        assert row["audio_start_s"] == pytest.approx(shown.audio_s, abs=1e-3), name
        step = shown.times[-1] - shown.times[-2]
        assert row["duration_s"] == pytest.approx(shown.times[-1] + step, abs=0.1), name
    assert made.video("late_video.mp4")["start_pts_s"] == pytest.approx(2.0)
    assert made.video("variable.mp4")["is_variable_rate"]
    assert not made.video("two_edits.mp4")["is_variable_rate"]


@pytest.mark.parametrize("table", NUMBERED)
def test_a_row_is_of_the_picture_that_has_its_number(made: Made, table: str) -> None:
    found: dict[str, set[int]] = {}
    for row in made.rows[table]:
        assert made.of(row).numbers[row["frame_index"]] == row["box"][0], made.name_of
        if not row["is_context"]:
            found.setdefault(made.name_of[row["video_id"]], set()).add(row["frame_index"])
    assert found == {name: set(range(len(s.numbers))) for name, s in made.shown.items()}


def test_a_camera_is_of_the_picture_that_has_its_number(made: Made) -> None:
    for row in made.rows["scene_reconstruction"]:
        assert made.of(row).numbers[row["frame_index"]] == row["inliers"]


@pytest.mark.parametrize("table", TIMED)
def test_a_row_has_the_time_at_which_a_player_shows_its_picture(made: Made, table: str) -> None:
    rows = made.rows[table]
    assert {made.name_of[r["video_id"]] for r in rows} == set(made.shown)
    for row in rows:
        expected = made.of(row).times[row["frame_index"]]
        assert row["pts_s"] == pytest.approx(expected, abs=TICK_S)


@pytest.mark.parametrize("table", ["clips", "footage", "episodes", "object_movements"])
def test_a_stretch_begins_and_ends_when_its_pictures_do(made: Made, table: str) -> None:
    assert {made.name_of[r["video_id"]] for r in made.rows[table]} == set(made.shown)
    for row in made.rows[table]:
        times = [*made.of(row).times, made.video(made.name_of[row["video_id"]])["duration_s"]]
        assert row["start_pts_s"] == pytest.approx(times[row["start_frame"]], abs=TICK_S)
        assert row["end_pts_s"] == pytest.approx(times[row["end_frame"]], abs=TICK_S)


def test_a_recording_is_read_across_its_files(made: Made) -> None:
    """Each picture of it once, in order, with the time since its beginning."""
    reader = open_lake(made.lake.location)
    recording = reader.recording(made.video("GX020012.MP4")["recording_id"])
    assert [made.name_of[v.video_id] for v in recording.videos()] == [
        "GX010012.MP4",
        "GX020012.MP4",
    ]
    shown = [(number_of(f.image), f.pts_s) for clip in recording.clips() for f in clip.frames()]
    assert [number for number, _ in shown] == list(range(165))
    (take,) = recording.takes()
    assert [c.id for c in take] == [c.id for c in recording.clips()]
    starts = [c.row["recording_start_s"] for c in take]
    assert starts == sorted(starts)
    episodes = [e.row["recording_start_s"] for e in recording.episodes()]
    assert episodes == sorted(episodes) and episodes[-1] >= 75 / RATE
    assert len(reader.recordings()) == len(made.shown) - 1
    alone = reader.recording(made.video("b_frames.mp4")["video_id"])
    assert [v.video_id for v in alone.videos()] == [alone.id]
    with pytest.raises(ValueError, match="no recording 'x'"):
        reader.recording("x")


def test_episodes_of_two_chapters_are_of_one_recording(made: Made) -> None:
    chapters = [made.video(f"GX0{n}0012.MP4") for n in (1, 2)]
    recording = chapters[0]["recording_id"]
    assert recording is not None
    assert chapters[0]["shard"]
    for table in ("clips", "episodes"):
        mine = [r for r in made.rows[table] if r["recording_id"] == recording]
        assert {r["video_id"] for r in mine} == {c["video_id"] for c in chapters}
        for row in mine:
            # The pictures of the recording count on from file to file.
            number = made.of(row).numbers[row["start_frame"]]
            assert row["recording_start_s"] == pytest.approx(number / RATE, abs=TICK_S)
        others = [r for r in made.rows[table] if r not in mine]
        assert {r["recording_id"] for r in others} == {None}
