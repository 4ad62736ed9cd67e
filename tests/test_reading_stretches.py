"""Videos, clips and episodes one by one: pictures, masks, joints and cameras as arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import ego_assets as ego
from ego_assets.media.cursor import FrameCursor
from ego_assets.reading import LakeReader, array_of, encode_mask
from ego_assets.stretches import groups_of
from tests.episodes.made_footage import MadeVideo
from tests.exports.bars import number_in
from tests.exports.numbered_lake import add_rows, make, write_numbered

ROOT = Path(__file__).resolve().parents[1]
TURNED = [0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5)]  # x to y


@pytest.fixture(scope="module")
def video() -> MadeVideo:
    """Two clips; the camera turned, and not known for a while."""
    made = MadeVideo(count=150, cuts=(70,))
    made.is_valid[30:33] = False
    made.camera_xyzw[:] = TURNED
    made.camera_m[:, 0] = np.arange(150) / 100
    made.camera_valid[90:110] = False
    return made


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, video: MadeVideo) -> LakeReader:
    made = make(tmp_path_factory.mktemp("lake"), video)
    rows = video.rows()
    shard = made.lake.shards()[0]
    of_all = {"video_id": video.video_id, "shard": shard}
    first, second = ({**c, "shard": shard} for c in rows["clips"])
    second |= {"start_frame": 65, "start_pts_s": 65 / 30, "context_frames": 5}
    add_rows(made, "clips", [first, second])
    for table in ("scene_reconstruction", "hand_poses"):
        add_rows(made, table, [of_all | row for row in rows[table]])
    masks = []
    for clip in (first, second):
        for frame in range(clip["start_frame"], clip["end_frame"]):
            mask = np.zeros((108, 192), bool)
            mask[10 : 20 + frame % 7, 30:40] = True
            masks.append(
                of_all
                | {
                    "clip_id": clip["clip_id"],
                    "frame_index": frame,
                    "pts_s": frame / 30,
                    "is_context": frame < clip["start_frame"] + clip["context_frames"],
                    "track_id": "h0",
                    "label": "hand",
                    "side": "left",
                    "is_wearer": True,
                    "area_px": int(mask.sum()),
                    "height_px": 108,
                    "width_px": 192,
                    "rle": encode_mask(mask),
                }
            )
    add_rows(made, "hand_masks", masks)
    return ego.open(made.lake.location)


def test_importing_it_alone_loads_nothing() -> None:
    code = "import sys, ego_assets; print({'numpy', 'pyarrow', 'pydantic', 'av'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


def test_tables_are_polars_frames(lake: LakeReader, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = lake.dataframe("episodes", columns=["episode_id", "split"])
    assert isinstance(episodes, pl.DataFrame)
    assert episodes.to_dicts() == lake.table("episodes", columns=episodes.columns).to_pylist()
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install polars; table\(\) does without"):
        lake.dataframe("episodes")


def test_stretches_have_their_frames(lake: LakeReader, video: MadeVideo) -> None:
    (whole,) = lake.videos()
    assert (whole.id, len(whole)) == (video.video_id, 150)
    first, second = lake.clips()
    assert [f.index for f in first.frames()] == first.indices.tolist() == list(range(70))
    assert second.indices[0] == 65
    alone = list(lake.clips(context=False))[1]
    assert alone.indices.tolist() == list(range(70, 150))
    few = list(alone.frames(max_side_px=96, stride=20))
    assert [f.index for f in few] == [70, 90, 110, 130] == [number_in(f.image) for f in few]
    assert few[0].image.shape == (54, 96, 3) and few[0].scale == 0.5
    for episode in lake.episodes(split="train"):
        assert [number_in(f.image) for f in episode.frames(stride=9)] == [
            *range(episode.start_frame, episode.end_frame, 9)
        ]
    assert list(lake.episodes(split="test")) == []
    with pytest.raises(ValueError, match="stride is 0"):
        next(alone.frames(stride=0))


def test_joints_and_cameras_are_arrays_over_the_frames(lake: LakeReader, video: MadeVideo) -> None:
    _, clip = lake.clips(context=False)
    joints, world, cameras = clip.joints(), clip.joints("world"), clip.cameras()
    assert joints["left"].shape == (80, 21, 3) and cameras.shape == (80, 4, 4)
    assert np.allclose(joints["right"][:, 0], video.wrist_m[70:], atol=1e-6)
    assert np.isnan(cameras[20:40]).all() and np.isnan(world["left"][20:40]).all()
    known = np.r_[0:20, 40:80]
    assert np.allclose(cameras[known, 0, 3], (70 + known) / 100)
    x, y, z = joints["left"][known].transpose(2, 0, 1)
    turned = np.stack([-y + (70 + known)[:, None] / 100, x, z], axis=-1)
    assert np.allclose(world["left"][known], turned, atol=1e-5)
    first = next(lake.clips())
    assert np.isnan(first.joints()["left"][30:33]).all()
    assert np.isfinite(first.joints()["left"][:30]).all()


def test_joints_of_episodes_are_cleaned(lake: LakeReader) -> None:
    episodes = list(lake.episodes())
    assert episodes and all(np.isfinite(e.joints()["left"]).all() for e in episodes)
    rows = lake.table("episode_hands").to_pylist()
    for episode in episodes:
        joints, world, cameras = episode.joints(), episode.joints("world"), episode.cameras()
        for row in (r for r in rows if r["episode_id"] == episode.id):
            n = row["frame_index"] - episode.start_frame
            assert np.array_equal(joints[row["side"]][n], np.float32(row["joints_camera_m"]))
            if row["joints_world_m"] is not None:
                assert np.array_equal(world[row["side"]][n], np.float32(row["joints_world_m"]))
                moved = joints[row["side"]][n] @ cameras[n, :3, :3].T + cameras[n, :3, 3]
                assert np.allclose(moved, world[row["side"]][n], atol=1e-4)
            else:
                assert np.isnan(world[row["side"]][n]).all()


def test_masks_are_decoded_and_come_once(lake: LakeReader) -> None:
    _, clip = lake.clips()
    masks = list(clip.masks())
    assert [m.frame_index for m in masks] == list(range(65, 150))
    assert masks[0].mask.shape == (108, 192) and masks[0].side == "left"
    assert [int(m.mask.sum()) for m in masks] == [10 * (10 + m.frame_index % 7) for m in masks]
    assert list(clip.masks("objects")) == []
    for episode in lake.episodes():
        assert [m.frame_index for m in episode.masks()] == episode.indices.tolist()


def test_groups_keep_lists_of_lists() -> None:
    values = np.arange(6 * 63, dtype=np.float32).reshape(6, 21, 3)
    joints = pa.array(values.tolist(), pa.list_(pa.list_(pa.float32(), 3), 21))
    rows = pa.table(
        {"key": ["a", "b", "a", "b", "b", "b"], "side": list("lrlrlr"), "joints": joints}
    )
    groups = groups_of(rows, "key")
    assert np.array_equal(array_of(groups["a"]["joints"]), values[[0, 2]])
    left = groups["b"].filter(pc.field("side") == "l")
    assert np.array_equal(array_of(left["joints"]), values[[4]])


def test_null_rows_of_a_column_are_nan() -> None:
    column = pa.chunked_array([pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))])
    found = array_of(column)
    assert np.array_equal(found, np.float32([[1, 2], [np.nan] * 2, [3, 4]]), equal_nan=True)
    assert array_of(pa.chunked_array([pa.array([], pa.list_(pa.float32(), 2))])).shape == (0, 2)


def test_a_cursor_goes_anywhere_and_seeks_where_that_is_shorter(tmp_path: Path) -> None:
    write_numbered(tmp_path / "v.mp4", 120, keyframes=30)
    with FrameCursor(tmp_path / "v.mp4", (54, 96)) as cursor:
        order = [
            5,
            6,
            6,
            9,
            100,
            119,
            3,
            31,
            30,
            90,
            *np.random.default_rng(1).integers(0, 120, 20),
        ]
        for index in map(int, order):
            frame = cursor.frame(index)
            assert frame is not None and frame.index == index == number_in(frame.image)
            assert frame.image.shape == (54, 96, 3)
        with pytest.raises(IndexError, match="frame 120 of a video of 120"):
            cursor.frame(120)
