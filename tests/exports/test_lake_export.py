"""`ego export lerobot` over a lake: rows of the tables, frames of the raw video, one command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from dagster_project.cli.program import main
from ego_assets.exports.states import held, rotation_6d
from tests.episodes.made_footage import MadeVideo
from tests.exports.bars import number_in
from tests.exports.lerobot_reader import tree
from tests.exports.numbered_lake import make


def of(rows: list[dict[str, Any]], side: str) -> dict[int, dict[str, Any]]:
    return {r["frame_index"]: r for r in rows if r["side"] == side}


def test_rows_show_the_frames_and_poses_of_the_lake(tmp_path: Path) -> None:
    video = MadeVideo(count=150)
    video.is_valid[60:64] = False
    made = make(tmp_path, replace(video))
    report = made.export()
    assert (report["episodes"], report["frames"], report["skipped"]) == (1, 150, {})
    found = made.data()
    left, right = (
        of(made.tables["episode_hands"], "left"),
        of(made.tables["episode_hands"], "right"),
    )
    names = found.info["features"]["observation.state"]["names"]
    for row in found.rows:
        frame = row["source_frame"]
        assert number_in(found.picture(row, "observation.images.ego")) == frame
        assert row["true_time_s"] == pytest.approx(frame / 30, abs=1e-6)
        state = dict(zip(names, row["observation.state"], strict=True))
        for side, pose in (("left", left[frame]), ("right", right[frame])):
            wrist = [state[f"{side}_wrist_{a}"] for a in "xyz"]
            assert wrist == pytest.approx(pose["camera_from_hand_m"], abs=1e-5)
            tip = [state[f"{side}_index_tip_{a}"] for a in "xyz"]
            assert tip == pytest.approx(pose["joints_camera_m"][8], abs=1e-5)
        filled = 3 if 60 <= frame < 64 else 2
        assert row["hand_origin"] == [filled, filled]
    states = np.array([r["observation.state"] for r in found.rows])
    actions = np.array([r["action"] for r in found.rows])
    assert np.array_equal(actions[:-1], states[1:]) and np.array_equal(actions[-1], states[-1])


def test_the_same_command_again_codes_nothing_and_changes_no_byte(tmp_path: Path) -> None:
    made = make(tmp_path, MadeVideo(count=90))
    assert made.export()["encoded"] == 1
    before = tree(tmp_path / "out")
    again = made.export()
    assert (again["encoded"], again["kept"], again["written"]) == (0, 1, [])
    assert tree(tmp_path / "out") == before


def test_robot_joints_are_state_and_what_is_not_known_is_held_and_said(tmp_path: Path) -> None:
    made = make(tmp_path, MadeVideo(count=90))
    made.export("--hand", "robot")
    found = made.data()
    names = found.info["features"]["observation.state"]["names"]
    assert names[9:11] == ["left_thumb", "left_index"] and len(names) == 22
    for row in found.rows:
        frame = row["source_frame"]
        unknown = frame % 50 == 7
        joints = row["observation.state"][9:11]
        assert joints == pytest.approx([(frame - unknown) / 1000, 0.5])
        assert row["joints_known"] == [not unknown] * 2


def test_a_robot_that_is_not_there_is_named(tmp_path: Path) -> None:
    made = make(tmp_path, MadeVideo(count=90))
    said = made.export("--hand", "both", "--robot", "shadow", ok=False)
    assert "the lake has joints of two_joints, not of shadow" in said


def test_positions_in_the_world_are_exported_where_the_camera_is_known(tmp_path: Path) -> None:
    walking, lost = MadeVideo(count=90), MadeVideo(count=90, video_id="00000000000000b2")
    walking.camera_m[:, 0] = np.linspace(0, 1, 90)
    lost.camera_valid[40:60] = False
    made = make(tmp_path, walking, lost)
    report = made.export("--frame", "world")
    assert list(report["skipped"].values()) == [
        "its cameras are not known in metres in every frame"
    ]
    right = of(
        [r for r in made.tables["episode_hands"] if r["video_id"] == walking.video_id], "right"
    )
    found = made.data()
    names = found.info["features"]["observation.state"]["names"]
    at = names.index("right_wrist_x")
    for row in found.rows:
        world = right[row["source_frame"]]["world_from_hand_m"]
        assert row["observation.state"][at : at + 3] == pytest.approx(world, abs=1e-5)
        camera = row["camera"][:3]
        assert camera[0] == pytest.approx(row["source_frame"] / 89, abs=0.02)
        assert row["camera_known"] in (True, [True])
    made.export("--frame", "camera")
    assert {tuple(np.atleast_1d(r["camera_known"])) for r in made.data().rows} == {
        (True,),
        (False,),
    }


def test_the_usual_rate_is_taken_and_others_are_brought_to_it(tmp_path: Path) -> None:
    made = make(tmp_path, MadeVideo(count=90))
    assert made.export("--fps", "10")["frames"] == 30
    found = made.data()
    assert found.info["fps"] == 10
    assert [r["source_frame"] for r in found.rows] == list(range(0, 90, 3))
    for row in found.rows:
        assert number_in(found.picture(row, "observation.images.ego")) == row["source_frame"]


def test_a_lake_without_episodes_says_where_footage_went(tmp_path: Path) -> None:
    video = MadeVideo(count=90, is_there=np.zeros(90, bool))
    said = make(tmp_path, video).export(ok=False)
    assert "no episodes of the split train: `ego yield`" in said
    done = CliRunner().invoke(main, ["yield", "--lake", str(tmp_path / "lake"), "--json"])
    found = json.loads(done.stdout)
    assert found["kept_s"] == 0 and found["lost_s"] == {"no hands": 3.0}
    shown = CliRunner().invoke(main, ["yield", "--lake", str(tmp_path / "lake")]).stdout
    assert "no hands" in shown and "-3.0 s" in shown and "0 episodes of 1 video" in shown


def test_a_value_that_does_not_fit_is_refused_by_the_name_of_its_option(tmp_path: Path) -> None:
    said = make(tmp_path, MadeVideo(count=90)).export("--max-side-px", "3", ok=False)
    assert "--max-side-px: Input should be greater than or equal to 16" in said


def test_held_values_are_those_of_the_last_tick_that_is_known() -> None:
    values = np.array([[np.nan], [1.0], [np.nan], [np.nan], [2.0]])
    assert held(values).ravel().tolist() == [0, 1, 1, 1, 2]
    assert held(values, (7.0,)).ravel().tolist() == [7, 1, 1, 1, 2]
    assert held(np.full((2, 3), np.nan), (1, 0, 2)).tolist() == [[1, 0, 2], [1, 0, 2]]


def test_rotations_are_two_columns_of_the_matrix() -> None:
    from scipy.spatial.transform import Rotation

    turns = Rotation.random(20, random_state=0)
    expected = turns.as_matrix()[:, :, :2].transpose(0, 2, 1).reshape(20, 6)
    assert np.abs(rotation_6d(turns.as_quat()) - expected).max() < 1e-12
