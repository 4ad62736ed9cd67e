"""Poses of objects as `observation.environment_state` of a LeRobot data set."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from ego_assets.exports.states import object_columns
from tests.exports.numbered import plain_grid
from tests.exports.numbered_lake import MadeVideo, make
from tests.exports.placed_objects import poses_of_cup
from tests.exports.test_webdataset import samples


def test_rows_have_the_objects_of_their_frame_and_say_which_are_known(tmp_path: Path) -> None:
    video = MadeVideo(count=60)
    more = poses_of_cup(video, invalid=range(20, 30))
    other = poses_of_cup(video, invalid=range(40), number=2)
    more = {
        table: rows + (other[table] if table != "clips" else []) for table, rows in more.items()
    }
    lake = make(tmp_path, video, more=more)
    lake.export("--objects", "3")
    found = lake.data()
    names = found.info["features"]["observation.environment_state"]["names"]
    assert len(names) == 27 and found.info["features"]["objects_known"]["shape"] == [3]
    for row in found.rows:
        frame = row["source_frame"]
        state = dict(zip(names, row["observation.environment_state"], strict=True))
        assert list(row["objects_known"]) == [not 20 <= frame < 30, frame >= 40, False]
        last = 19 if 20 <= frame < 30 else frame
        assert state["object0_x"] == pytest.approx(last / 100, abs=1e-6)
        assert state["object0_y"] == pytest.approx(1.0)
        # What comes later is not shown before its time.
        assert state["object1_y"] == pytest.approx(2.0 if frame >= 40 else 0.0)
        assert [state[f"object{n}_r11"] for n in range(3)] == [1.0, 1.0, 1.0]


def test_poses_that_are_not_in_metres_are_not_known(tmp_path: Path) -> None:
    video = MadeVideo(count=60)
    lake = make(tmp_path, video, more=poses_of_cup(video, scale_kind="arbitrary"))
    lake.export("--objects", "1")
    assert not any(row["objects_known"] for row in lake.data().rows)


def test_metres_that_hands_gave_are_metres_and_said(tmp_path: Path) -> None:
    video = MadeVideo(count=60)
    lake = make(tmp_path, video, more=poses_of_cup(video, scale_kind="metric_hands"))
    lake.export("--objects", "1", to="webdataset")
    (sample,) = samples(tmp_path / "out").values()
    assert np.load(io.BytesIO(sample["npz"]))["objects_known"].all()
    (said,) = json.loads(sample["json"])["provenance"]["environment_state"]
    assert said["scale_kind"] == "metric_hands"


def test_without_the_setting_there_is_no_such_column() -> None:
    assert object_columns([], 0, plain_grid(5)) == {}
