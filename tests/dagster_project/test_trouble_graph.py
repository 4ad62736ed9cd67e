"""From every file that people report trouble with to episodes, through `ego run`: what is made of
it is right, or says that it is not whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ego_assets.catalog import TABLES
from resources.lake import Lake
from tests.media.test_colour import CASES as TRUE_COLOURS
from tests.support.trouble_video import Right, write_trouble

ROOT = Path(__file__).resolve().parents[2]
EGO = [sys.executable, "-c", "from dagster_project.entry import main; main()"]
BACKENDS = """
segmenter: tests.dagster_project.numbered_graph:NumberedSegmenter
hand_estimator: tests.dagster_project.numbered_graph:NumberedHands
reconstructor: tests.dagster_project.numbered_graph:NumberedCameras
"""
NUMBERED = ("detections", "object_masks", "hand_masks", "hand_poses")
PATCHES = {"true_pq.mp4": 15, "true_hlg.mp4": 15, "untagged_hd709.mp4": 3}
"""Files that show nothing but RGB 200, 60, 30, and how far off a channel may be."""
COPIED, CUT_OFF = "fps_59_94_long_gop.mp4", "truncated_no_moov.mp4"
HOLE = range(35, 45)
pytestmark = pytest.mark.slow


def tick_of(name: str) -> float:
    """Matroska counts in milliseconds."""
    return 1e-3 if name.endswith((".mkv", ".webm")) else 1e-4


@dataclass
class Made:
    """right: by the name of a file; rows: by table; name_of: of an accepted video; summary: of the
    run."""

    right: dict[str, Right]
    rows: dict[str, list[dict[str, Any]]]
    name_of: dict[str, str]
    summary: dict[str, Any]
    folder: Path
    environment: dict[str, str]

    def video(self, name: str) -> dict[str, Any]:
        return next(r for r in self.rows["video_manifest"] if self.name_of[r["video_id"]] == name)

    def frames(self, table: str, name: str) -> set[int]:
        mine = (r for r in self.rows[table] if self.name_of[r["video_id"]] == name)
        return {r["frame_index"] for r in mine}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One run over all files."""
    folder = tmp_path_factory.mktemp("trouble")
    raw = folder / "raw"
    right = write_trouble(raw)
    for name in PATCHES:
        shutil.copy(TRUE_COLOURS / name, raw / name)
    whole = (raw / "base_bframes.mp4").read_bytes()
    (raw / CUT_OFF).write_bytes(whole[: len(whole) * 7 // 10])
    (raw / "copied").mkdir()
    shutil.copy(raw / COPIED, raw / "copied" / COPIED)
    (folder / "backends.yaml").write_text(BACKENDS)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "EGO_BACKENDS": str(folder / "backends.yaml"),
        "DAGSTER_HOME": str(folder / "home"),
    }
    command = [*EGO, "run", str(raw), "--lake", str(folder / "lake"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=530)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-4000:]}"
    lake = Lake(folder / "lake")
    rows = {
        table: [r for s in lake.shards() for r in lake.read(table, s).to_pylist()]
        for table in TABLES
    }
    accepted = [r for r in rows["video_manifest"] if r["accepted"]]
    name_of = {r["video_id"]: Path(r["uri"]).name for r in accepted}
    rows["rejected"] = [r for r in rows["video_manifest"] if not r["accepted"]]
    rows["video_manifest"] = accepted
    return Made(right, rows, name_of, json.loads(done.stdout), folder, environment)


def test_every_file_is_taken_in_or_says_why_not(made: Made) -> None:
    assert set(made.name_of.values()) == {*made.right, *PATCHES}
    reasons = {Path(r["uri"]).name: r["reject_reason"] for r in made.rows["rejected"]}
    assert reasons == {CUT_OFF: "truncated", COPIED: "duplicate"}
    assert made.summary["clips"]["failed"] == 0


def test_the_manifest_says_what_is_odd_of_a_file(made: Made) -> None:
    for name, right in made.right.items():
        row = made.video(name)
        found = {column: row[column] for column in right.manifest}
        assert found == pytest.approx(right.manifest), name
        if not right.lost:
            whole = {"frame_count": len(right.ticks), "damaged_frames": None, "missing_s": None}
            assert {column: row[column] for column in whole} == whole, name


@pytest.mark.parametrize("table", NUMBERED)
def test_a_row_is_of_the_picture_that_has_its_number(made: Made, table: str) -> None:
    for row in made.rows[table]:
        name = made.name_of[row["video_id"]]
        if name in made.right:
            assert (name, row["box"][0]) == (name, row["frame_index"])
            expected = made.right[name].times[row["frame_index"]]
            assert row["pts_s"] == pytest.approx(expected, abs=tick_of(name)), name
    for name, right in made.right.items():
        if not right.lost:
            assert made.frames(table, name) == set(range(len(right.ticks))), name


def test_a_camera_is_of_the_picture_that_has_its_number(made: Made) -> None:
    for row in made.rows["scene_reconstruction"]:
        if made.name_of[row["video_id"]] in made.right:
            assert row["inliers"] == row["frame_index"]


@pytest.mark.parametrize("name", PATCHES)
def test_colours_are_those_that_were_recorded(made: Made, name: str) -> None:
    labels = {r["label"] for r in made.rows["detections"] if made.name_of[r["video_id"]] == name}
    assert labels
    for label in labels:
        assert np.abs(np.array(label.split(), int) - (200, 60, 30)).max() <= PATCHES[name]


@pytest.mark.parametrize("table", [*NUMBERED, "scene_reconstruction", "robot_mappings"])
def test_no_table_has_a_row_of_a_picture_that_is_not_to_be_trusted(made: Made, table: str) -> None:
    assert made.frames(table, "hole_in_the_middle.mp4") == set(range(90)) - set(HOLE)


def test_damage_is_told(made: Made) -> None:
    assert made.video("hole_in_the_middle.mp4")["damaged_frames"] == [[35, 45]]
    cut = made.video("truncated_tail.mp4")
    assert cut["promised_frame_count"] == 90 > cut["frame_count"] > 45
    assert cut["missing_s"] == pytest.approx((90 - cut["frame_count"]) / 30, abs=0.05)
    assert not cut["is_variable_rate"]
    warned = {c["check"] for c in made.summary["checks"]}
    assert {"recordings_are_not_cut_off", "videos_are_not_damaged"} <= warned


def test_a_file_under_two_names_is_exported_once(made: Made) -> None:
    (video_id,) = (v for v, name in made.name_of.items() if name == COPIED)
    spans = [
        (r["start_frame"], r["end_frame"])
        for r in made.rows["episodes"]
        if r["video_id"] == video_id
    ]
    assert spans
    frames = [n for start, end in spans for n in range(start, end)]
    assert len(frames) == len(set(frames))
    out, command = made.folder / "out", [*EGO, "export", "webdataset", "--split", "all"]
    done = subprocess.run(
        [*command, "--lake", str(made.folder / "lake"), "--out", str(out)],
        capture_output=True,
        text=True,
        env=made.environment,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    members: list[str] = []
    for path in out.rglob("*.tar"):
        with tarfile.open(path) as tar:
            members += tar.getnames()
    samples = [name.removesuffix(".json") for name in members if name.endswith(".json")]
    mine = [r["episode_id"] for r in made.rows["episodes"] if r["video_id"] == video_id]
    assert [s for s in sorted(samples) if s.startswith(video_id)] == sorted(mine)
