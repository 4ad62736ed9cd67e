"""Exports of lakes with several shards, methods, robots' sides, shapes and rates; missing files."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from dagster_project.cli.program import main
from ego_assets.exports.lake_export import export_episodes
from ego_assets.exports.lake_joints import JointsOfRobot, ShardJoints
from ego_assets.exports.lerobot.settings import LeRobotFiles
from ego_assets.exports.settings import ContentSettings
from ego_assets.reading import LakeReader
from tests.exports.bars import number_in
from tests.exports.made_lake import SHARD, Made, MadeVideo, add_shard, make

SECOND = "20261130-0001"
A = MadeVideo(count=60)
B = MadeVideo(count=60, video_id="00000000000000b2")
C = MadeVideo(count=60, video_id="00000000000000c3")
EGO = "observation.images.ego"


def two_shards(folder: Path, first: dict[str, Any], second: dict[str, Any]) -> Made:
    made = make(folder, A, **first)
    add_shard(made, SECOND, B, **second)
    return made


def names_in(made: Made) -> list[str]:
    names: list[str] = made.data().info["features"]["observation.state"]["names"]
    return names


def test_episodes_of_all_shards_are_exported_and_a_missing_file_leaves_one_out(
    tmp_path: Path,
) -> None:
    made = two_shards(tmp_path, {}, {})
    add_shard(made, "20261130-0002", C)
    (tmp_path / f"{B.video_id}.mp4").unlink()
    report = made.export()
    assert (report["episodes"], report["encoded"], report["frames"]) == (2, 2, 120)
    ((episode, why),) = report["skipped"].items()
    assert episode.startswith(B.video_id) and f"{B.video_id}.mp4" in why
    found = made.data()
    for row in found.rows:
        assert number_in(found.picture(row, EGO)) == row["source_frame"]
    words = CliRunner().invoke(
        main, ["export", "lerobot", "--lake", str(made.lake.root), "--out", str(tmp_path / "out")]
    )
    assert words.exit_code == 0 and "1 left out" in words.stdout
    assert f"left out: {episode}: " in words.stdout


def test_where_no_file_is_there_the_command_says_so_in_a_line(tmp_path: Path) -> None:
    made = make(tmp_path, A)
    (tmp_path / f"{A.video_id}.mp4").unlink()
    said = made.export(ok=False)
    assert said.startswith("Error: none of the 1 episodes can be exported")
    assert f"{A.video_id}.mp4" in said and "Traceback" not in said


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path: Path) -> None:
    made = make(tmp_path, A)
    (tmp_path / "file").write_text("")
    options = ["--lake", str(made.lake.root), "--out", str(tmp_path / "file/out")]
    done = CliRunner().invoke(main, ["export", "lerobot", *options], catch_exceptions=False)
    assert done.exit_code == 1 and str(tmp_path / "file/out") in done.output


def test_a_preset_that_the_encoder_does_not_know_is_refused(tmp_path: Path) -> None:
    said = make(tmp_path, A).export("--preset", "bogus", ok=False)
    assert "--preset: Value error, 'bogus' is no preset of h264" in said


def test_another_shape_is_left_out(tmp_path: Path) -> None:
    made = two_shards(tmp_path, {}, {"size": (108, 192)})
    report = made.export()
    assert report["episodes"] == 1
    ((episode, why),) = report["skipped"].items()
    assert episode.startswith(B.video_id) and "108x192 in a data set of 192x108" in why


def test_the_rate_is_the_one_of_most_seconds_of_the_split(tmp_path: Path) -> None:
    made = two_shards(tmp_path, {}, {"fps": 20})  # 2 s at 30, 3 s at 20 frames a second
    assert made.export()["frames"] == 40 + 60
    assert made.data().info["fps"] == 20
    add_shard(made, "20261130-0002", C)
    made.export()
    assert made.data().info["fps"] == 30


def test_ctrl_c_says_that_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = two_shards(tmp_path, {}, {})
    real = LakeReader.frames

    def interrupted(self: LakeReader, clip: Any, **more: Any) -> Any:
        if clip["video_id"] == B.video_id:
            raise KeyboardInterrupt
        return real(self, clip, **more)

    options = ["--lake", str(made.lake.root), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(LakeReader, "frames", interrupted)
        done = CliRunner().invoke(main, ["export", "lerobot", *options])
    assert done.exit_code == 130 and "Stopped. Run the same command to go on." in done.output
    report = made.export()
    assert (report["resumed"], report["encoded"]) == (1, 1)


def test_those_that_are_left_out_count_as_done(tmp_path: Path) -> None:
    lost = replace(B, camera_valid=np.zeros(60, bool))
    made = make(tmp_path, A)
    add_shard(made, SECOND, lost)
    add_shard(made, "20261130-0002", C)
    (tmp_path / f"{A.video_id}.mp4").unlink()
    told: list[tuple[int, ...]] = []
    content = ContentSettings(frame="world")
    export_episodes(
        "lerobot", made.lake, tmp_path / "out", content, LeRobotFiles(), lambda *n: told.append(n)
    )
    assert told == [(1, 3), (3, 3)]


def by_two_methods(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [row, row | {"method": "dexpilot", "joint_positions": [3.0, 3.0]}]


def test_of_two_methods_one_has_to_be_named(tmp_path: Path) -> None:
    made = make(tmp_path, A, mapped=by_two_methods)
    said = made.export("--hand", "robot", ok=False)
    assert "joints of two_joints by the method dexpilot, vector: say which method" in said
    said = made.export("--hand", "robot", "--method", "position", ok=False)
    assert "dexpilot, vector, not of position" in said
    for method, first in (("vector", 0.5), ("dexpilot", 3.0)):
        made.export("--hand", "robot", "--method", method)
        at = names_in(made).index("left_index")
        rows = made.data().rows
        assert {r["observation.state"][at] for r in rows if r["joints_known"][0]} == {first}


def names_of_its_side(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [row | {"joint_names": [f"{row['side'][0]}_{n}" for n in row["joint_names"]]}]


def test_joints_have_the_names_of_their_side_in_all_episodes(tmp_path: Path) -> None:
    def right_alone(row: dict[str, Any]) -> list[dict[str, Any]]:
        return names_of_its_side(row) if row["side"] == "right" else []

    made = two_shards(tmp_path, {"mapped": right_alone}, {"mapped": names_of_its_side})
    report = made.export("--hand", "robot")
    assert (report["episodes"], report["skipped"]) == (2, {})
    names = names_in(made)
    assert names[9:11] == ["left_l_thumb", "left_l_index"]
    assert names[20:22] == ["right_r_thumb", "right_r_index"]
    known = {tuple(r["joints_known"]) for r in made.data().rows}
    assert known == {(False, True), (True, True), (False, False)}


def test_a_side_that_a_robot_never_mimics_has_no_joints(tmp_path: Path) -> None:
    made = make(tmp_path, A, mapped=lambda row: [row] if row["side"] == "right" else [])
    made.export("--hand", "robot")
    assert names_in(made)[9:] == [f"right_{n}" for n in (*names_in_wrist(), "thumb", "index")]
    assert {r["joints_known"][0] for r in made.data().rows} == {False}


def names_in_wrist() -> list[str]:
    return [f"wrist_{n}" for n in ("x", "y", "z", "r11", "r21", "r31", "r12", "r22", "r32")]


def test_joints_in_another_order_leave_an_episode_out(tmp_path: Path) -> None:
    def turned(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [row | {"joint_names": row["joint_names"][::-1]}]

    made = two_shards(tmp_path, {}, {"mapped": turned})
    report = made.export("--hand", "robot")
    assert report["episodes"] == 1
    (why,) = report["skipped"].values()
    assert "left robot hand are index, thumb, and those of the lake thumb, index" in why


def test_a_camera_that_is_lost_without_a_hand_in_view_leaves_an_episode_out(tmp_path: Path) -> None:
    lost = MadeVideo(count=90)
    lost.is_there[70:80] = False
    lost.camera_valid[70:80] = False
    said = make(tmp_path, lost, max_hand_gap_s=1.0).export("--frame", "world", ok=False)
    assert "its cameras are not known in metres in every frame" in said


def test_before_a_hand_appears_nothing_later_is_shown(tmp_path: Path) -> None:
    made = make(tmp_path, replace(A, sides=("right",)))
    made.export()
    found = made.data()
    names = names_in(made)
    row = dict(zip(names, found.rows[30]["observation.state"], strict=True))
    turn = [row[f"left_wrist_r{i}{j}"] for j in (1, 2) for i in (1, 2, 3)]
    assert turn == [1, 0, 0, 0, 1, 0] and row["left_wrist_x"] == row["left_index_tip_z"] == 0
    assert {r["hand_origin"][0] for r in found.rows} == {0}


def test_joints_are_found_fast_among_many() -> None:
    count, names = 200_000, [f"j{n}" for n in range(16)]
    table = pa.table(
        {
            "clip_id": pa.array(["c"] * count),
            "track_id": pa.array(["t"] * count),
            "frame_index": np.arange(count)[::-1],
            "joint_names": pa.array([names] * count),
            "joint_positions": pa.FixedSizeListArray.from_arrays(
                np.arange(count * 16, dtype=np.float32), 16
            ).cast(pa.list_(pa.float32())),
        }
    )
    joints = ShardJoints.index(table, {"left": tuple(names), "right": ()})
    begin = time.process_time()
    for first in range(0, 100_000, 1000):
        keys = [("c", "t", first), None, ("c", "t", first + 7)]
        found = joints.of({"left": keys, "right": [None] * 3})
        assert found.known[:, 0].tolist() == [True, False, True]
        assert found.values["left"][2, 0] == 16 * (count - 1 - first - 7)
    assert time.process_time() - begin < 1, "an episode costs what it has, not what its shard has"


def test_an_episode_without_valid_joints_says_where_to_look(tmp_path: Path) -> None:
    said = {"is_valid": False, "invalid_reason": "misses the fingertips"}
    made = two_shards(tmp_path, {}, {"mapped": lambda row: [row | said]})
    (told,) = made.export("--hand", "robot")["skipped"].values()
    assert "no valid robot joints of its hands" in told
    assert "invalid_reason" in told


def test_a_robot_is_looked_for_in_all_shards(tmp_path: Path) -> None:
    made = two_shards(tmp_path, {}, {"mapped": lambda row: [row | {"robot": "other"}]})
    with pytest.raises(
        ValueError, match="the lake has joints of other, two_joints: say which robot"
    ):
        JointsOfRobot.find(LakeReader(made.lake))
    found = JointsOfRobot.find(LakeReader(made.lake), "other")
    assert (found.method, found.names["left"]) == ("vector", ("thumb", "index"))
    assert found.read(LakeReader(made.lake), SHARD).tracks == {}
