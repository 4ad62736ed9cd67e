"""Poses of objects as `observation.environment_state` of a LeRobot data set."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from ego_assets.exports.grid import make_grid
from ego_assets.exports.states import object_columns
from ego_assets.objects.preview import axes_sheet
from ego_assets.reading import LakeReader
from ego_assets.viewing.footage import ShownClips
from ego_assets.viewing.overlay import write_overlay
from ego_assets.vision import draw
from resources.raw.reader import RawReader
from tests.exports.numbered import plain_grid
from tests.exports.numbered_lake import MadeVideo, add_rows, make
from tests.exports.placed_objects import poses_of_cup, scene_of
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


def test_the_last_pose_before_a_tick_is_held(tmp_path: Path) -> None:
    """Also if no tick shows its frame; a tick that holds a picture says that its pose is old."""
    frames = np.array([*range(10), *range(20, 31)])
    grid = make_grid(frames, frames / 30, fps=10)
    poses = np.tile([0.0, 0, 0, 0, 0, 0, 1], (len(frames), 1))
    poses[:, 0] = frames
    poses[(frames > 4) & (frames < 9), :] = np.nan
    columns = object_columns([poses], 1, grid)
    found = dict(
        zip(
            grid.frames.tolist(), columns["observation.environment_state"].values[:, 0], strict=True
        )
    )
    assert (found[3], found[6], found[9]) == (3, 4, 9)
    known = columns["objects_known"].values[:, 0]
    assert grid.is_held.any() and not known[grid.is_held].any()
    assert known[~grid.is_held].tolist() == [f != 6 for f in grid.frames[~grid.is_held]]


def test_metres_that_hands_gave_are_metres_and_said(tmp_path: Path) -> None:
    video = MadeVideo(count=60)
    lake = make(tmp_path, video, more=poses_of_cup(video, scale_kind="metric_hands"))
    lake.export("--objects", "1", to="webdataset")
    (sample,) = samples(tmp_path / "out").values()
    assert np.load(io.BytesIO(sample["npz"]))["objects_known"].all()
    (said,) = json.loads(sample["json"])["provenance"]["environment_state"]
    assert said["scale_kind"] == "metric_hands"


@pytest.mark.parametrize("source", ["self_calibrated", "assumed_fov"])
def test_the_lens_of_the_scene_is_said_where_it_found_one(tmp_path: Path, source: str) -> None:
    video = MadeVideo(count=60)
    lake = make(tmp_path, video, more=poses_of_cup(video))
    rows = scene_of(video, intrinsics_source=source)
    rows[0]["fx_px"] = 191.0
    add_rows(lake, "scene_reconstruction", rows)
    lake.export("--objects", "1", to="webdataset")
    (sample,) = samples(tmp_path / "out").values()
    said = json.loads(sample["json"])["provenance"]
    assert said["camera"]["fx_px"] == 150.0
    found = said.get("scene_camera")
    if source == "self_calibrated":
        assert (found["fx_px"], found["focal_std_px"]) == (191.0, 4.0)
    else:
        assert found is None


@pytest.mark.parametrize("source", ["self_calibrated", "assumed_fov"])
def test_axes_are_drawn_through_the_lens_of_the_poses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    video = MadeVideo(count=60)
    lake = make(tmp_path, video, more=poses_of_cup(video))
    add_rows(lake, "scene_reconstruction", scene_of(video, intrinsics_source=source))
    drawn: list[float] = []
    monkeypatch.setattr(draw, "draw_axes", lambda tile, camera, *_, **__: drawn.append(camera.fx))
    monkeypatch.setattr(RawReader, "hold", lambda self, uri, _: nullcontext(Path(uri)))
    assert axes_sheet(lake.lake, "object_poses", lake.lake.shards()[0], RawReader())
    by_preview, drawn[:] = drawn[:], []
    reader = LakeReader(lake.lake)
    clips = reader.table("clips").to_pylist()
    write_overlay(ShownClips.of(reader, "it", clips, 192), tmp_path / "it.mp4")
    expected = 190.0 if source == "self_calibrated" else 150.0
    assert set(by_preview) == set(drawn) == {expected}


def test_without_the_setting_there_is_no_such_column() -> None:
    assert object_columns([], 0, plain_grid(5)) == {}
