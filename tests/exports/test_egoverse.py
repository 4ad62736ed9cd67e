"""`ego export egoverse`, read back with zarr and judged by the rules of EgoVerse's own guide."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import zarr
from PIL import Image

from ego_assets.exports.egoverse.poses import ABSENT
from ego_assets.exports.egoverse.writer import store_name, write_egoverse
from ego_assets.exports.episode import ExportEpisode, Numbers, Words
from ego_assets.exports.grid import ExportError
from ego_assets.operator import Intrinsics
from ego_assets.vision.cameras import project_points
from ego_assets.vision.geometry import matrix_from_quaternion
from tests.exports.bars import number_in
from tests.exports.lerobot_reader import tree
from tests.exports.numbered import episode
from tests.exports.numbered_lake import LENS, MadeVideo, make
from tests.exports.test_lake_export import of
from tests.exports.test_mcap import world_moves


def stores(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.zarr"))


def judge(path: Path) -> list[str]:
    """What `validate_episode` of CONTRIBUTING_DATA.md (§11.1) would complain of."""
    store = zarr.open_group(path, mode="r")
    said: Any = dict(store.attrs)
    count, wrong = said["total_frames"], []
    needed = ("embodiment", "total_frames", "fps", "task_name", "features")
    wrong += [f"no {name}" for name in needed if name not in said]
    wrong += [] if said["fps"] in (30, 60) else ["fps"]
    wrong += [] if np.shape(said["intrinsics"]["front_1"]) == (3, 4) else ["intrinsics"]
    keys = set(store.keys())
    wrong += [] if keys == set(said["features"]) else [f"features {keys ^ set(said['features'])}"]
    for key in {"images.front_1", "left.obs_ee_pose", "right.obs_ee_pose"} - keys:
        wrong.append(f"no {key}")
    for key in keys - {"annotations"}:
        wrong += [] if store[key].shape[0] == count else [f"{key} is too short"]
        if key.endswith("_pose"):
            norms = np.linalg.norm(store[key][:][:, 3:], axis=1)
            wrong += [] if np.allclose(norms, 1, atol=1e-4) else [f"{key} has odd quaternions"]
        if key.endswith("_keypoints"):
            wrong += [] if store[key].shape == (count, 63) else [f"{key} shape"]
    for raw in store["annotations"][:] if store["annotations"].shape[0] else []:
        span = json.loads(raw)
        wrong += [] if 0 <= span["start_idx"] < span["end_idx"] <= count else [f"{span}"]
    return wrong


def pose(values: np.ndarray) -> np.ndarray:
    """(4, 4) of x y z, w x y z."""
    found = np.eye(4)
    found[:3, :3] = matrix_from_quaternion(values[[4, 5, 6, 3]])
    found[:3, 3] = values[:3]
    return found


def test_a_store_has_the_rows_and_pictures_of_the_lake(tmp_path: Path) -> None:
    lake = make(tmp_path, world_moves(90))
    report = lake.export(to="egoverse")
    assert (report["episodes"], report["frames"], report["skipped"]) == (1, 90, {})
    (path,) = stores(tmp_path / "out")
    assert judge(path) == []
    assert re.fullmatch(r"1970(-\d\d){5}-\d{6}\.zarr", path.name)
    store = zarr.open_group(path, mode="r")
    frames = store["ego.source_frame"][:]
    shown = [np.asarray(Image.open(io.BytesIO(data))) for data in store["images.front_1"][:]]
    assert [number_in(picture) for picture in shown] == frames.tolist() == list(range(90))
    with av.open(str(path.with_suffix(".mp4"))) as preview:
        found = [f.to_ndarray(format="rgb24") for f in preview.decode(video=0)]
    assert [number_in(picture) for picture in found] == list(range(90))
    matrix = np.array(store.attrs["intrinsics"]["front_1"])[:, :3]
    lens = Intrinsics("PINHOLE", 150.0, 151.0, 95.5, 53.5)
    for side in ("left", "right"):
        rows = of(lake.tables["episode_hands"], side)
        joints = store[f"{side}.obs_keypoints"][:].reshape(-1, 21, 3)
        for tick, frame in enumerate(frames):
            row = rows[frame]
            assert joints[tick] == pytest.approx(np.array(row["joints_world_m"]), abs=1e-6)
            wrist = pose(store[f"{side}.obs_wrist_pose"][tick])
            assert wrist[:3, 3] == pytest.approx(row["world_from_hand_m"], abs=1e-6)
            turn = matrix_from_quaternion(np.array(row["world_from_hand_xyzw"]))
            assert wrist[:3, :3] == pytest.approx(turn, abs=1e-5)
            # As its training does: into the head, then onto the picture.
            head = np.linalg.inv(pose(store["obs_head_pose"][tick]))
            tip = matrix @ (head @ [*joints[tick, 8], 1.0])[:3]
            (wanted,) = project_points(lens, np.array([row["joints_camera_m"][8]]))
            assert tip[:2] / tip[2] == pytest.approx(wanted, abs=1e-2)
    assert store["ego.true_time_s"][:] == pytest.approx(frames / 30)
    assert json.loads(json.dumps(store.attrs["ego_provenance"]))["video_id"]


def flat_hand(side: str) -> np.ndarray:
    """(63,) a flat hand half a metre before the camera, palm down, fingers forward."""
    sign = -1.0 if side == "right" else 1.0  # the thumb is on the inner side
    joints = np.zeros((21, 3))
    for finger in range(5):
        for joint in range(4):
            joints[1 + 4 * finger + joint] = [sign * (0.04 - 0.02 * finger), 0, 0.1 + 0.02 * joint]
    return (joints + np.array([0.0, 0.0, 0.5])).ravel()


def plain(name: str, frames: int, side: str = "right", **changes: Any) -> ExportEpisode:
    still = np.tile([0.0, 0, 0, 0, 0, 0, 1], (frames, 1))
    known = Numbers(np.ones((frames, 1), bool))
    columns = {
        "world_from_camera": Numbers(still),
        f"world_from_{side}_hand": Numbers(still),
        f"{side}_joints_world": Numbers(np.tile(flat_hand(side), (frames, 1))),
    }
    columns |= {f"{key}.known": known for key in columns}
    camera = LENS | {"distortion": None, "width_px": 192, "height_px": 108}
    values: dict[str, Any] = {"columns": columns, "provenance": {"camera": camera}}
    return replace(episode(name, frames, 0), **(values | changes))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_flat_hand_held_forward_has_the_axes_of_the_camera(tmp_path: Path, side: str) -> None:
    write_egoverse(tmp_path, [plain("e", 10, side)])
    (path,) = stores(tmp_path)
    assert judge(path) == []
    store = zarr.open_group(path, mode="r")
    found = pose(store[f"{side}.obs_ee_pose"][0])
    assert found[:3, :3] == pytest.approx(np.eye(3), abs=1e-6)
    sign = -1 if side == "right" else 1
    assert found[:3, 3] == pytest.approx([sign * 0.0, 0, 0.575], abs=1e-6)
    other = "left" if side == "right" else "right"
    assert (store[f"{other}.obs_ee_pose"][:][:, :3] == ABSENT).all()
    assert f"{other}.obs_keypoints" not in store


def test_a_hand_that_is_away_is_absent_and_not_held(tmp_path: Path) -> None:
    video = world_moves(120)
    video.is_valid[60:75] = False
    make(tmp_path, video).export(to="egoverse")
    (path,) = stores(tmp_path / "out")
    assert judge(path) == []
    store = zarr.open_group(path, mode="r")
    away = store["left.obs_keypoints"][:][:, 0] == ABSENT
    assert away.any() and set(np.flatnonzero(away)) <= set(range(60, 75))
    for key in ("left.obs_ee_pose", "left.obs_wrist_pose"):
        assert np.array_equal(store[key][:][:, 0] == ABSENT, away)


def test_cameras_that_are_not_known_in_metres_are_left_out(tmp_path: Path) -> None:
    lost = MadeVideo(count=90)
    lost.camera_valid[40:60] = False
    assert "not known in metres" in make(tmp_path, lost).export(ok=False, to="egoverse")


@pytest.mark.parametrize(("rate", "fps"), [(25, "30"), (24, "30"), (30, "60"), (50, "30")])
def test_footage_of_another_rate_is_left_out(tmp_path: Path, rate: int, fps: str) -> None:
    video = world_moves(120, pts_s=np.arange(121) / rate)
    said = make(tmp_path, video).export("--fps", fps, ok=False, to="egoverse")
    assert f"its footage has {rate} frames a second, which is no multiple of {fps}" in said


@pytest.mark.parametrize("rate", [29.97, 59.94])
def test_stamps_are_those_of_the_rate_and_true_times_beside_them(
    tmp_path: Path, rate: float
) -> None:
    times = np.arange(121) / rate + 0.004 * np.sin(np.arange(121))
    make(tmp_path, world_moves(120, pts_s=times)).export(to="egoverse")
    store = zarr.open_group(stores(tmp_path / "out")[0], mode="r")
    stamps = store["obs_rgb_timestamps_ns"][:]
    ticks = np.arange(len(stamps)) * 1e9 / 30
    assert np.abs(stamps - stamps[0] - ticks).max() <= 1
    assert store["ego.true_time_s"][:] == pytest.approx(times[store["ego.source_frame"][:]])


def test_words_are_spans(tmp_path: Path) -> None:
    made = plain("e", 30)
    words = [Words(made.task, 0, style="task"), Words("reach", 0), Words("lift", 12)]
    write_egoverse(tmp_path, [replace(made, persistent=words)])
    store = zarr.open_group(stores(tmp_path)[0], mode="r")
    assert [json.loads(raw) for raw in store["annotations"][:]] == [
        {"text": "reach", "start_idx": 0, "end_idx": 12},
        {"text": "lift", "start_idx": 12, "end_idx": 30},
    ]


def test_again_changes_no_byte_and_what_goes_leaves_no_folder(tmp_path: Path) -> None:
    episodes = [plain(f"e{n}", 120) for n in range(3)]
    write_egoverse(tmp_path, episodes)
    before = tree(tmp_path)
    assert write_egoverse(tmp_path, episodes).encoded == 0
    assert tree(tmp_path) == before
    write_egoverse(tmp_path, episodes[:1])
    left = store_name("e0")
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{left}.zarr",
        f"{left}.mp4",
        "ego_export.json",
    }
    write_egoverse(tmp_path / "again", episodes)
    assert tree(tmp_path / "again") == before


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"provenance": {}}, "the intrinsics"),
        ({"columns": {}}, "its cameras are not known in metres"),
        ({"grid": episode("e", 10, 0, fps=25).grid}, "25 ticks a second"),
    ],
)
def test_what_the_layout_cannot_hold_is_refused(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ExportError, match=why):
        write_egoverse(tmp_path, [plain("e", 10, **changes)])


def test_what_cannot_be_written_is_left_out_and_the_rest_is_not(tmp_path: Path) -> None:
    """Before and after it begins to be written: a lens whose picture is elsewhere is met late."""
    lens = {**LENS, "cx_px": 1e5, "camera_model": "OPENCV", "distortion": [0.1, 0.0, 0.0, 0.0]}
    odd = {"camera": lens | {"width_px": 192, "height_px": 108}}
    episodes = [plain("a", 10, columns={}), plain("b", 10, provenance=odd), plain("c", 10)]
    report = write_egoverse(tmp_path, episodes)
    assert [path.stem for path in stores(tmp_path)] == [store_name("c")]
    assert report.skipped["a"] == "its cameras are not known in metres"
    assert report.skipped["b"].startswith("it cannot be undistorted: ")


def test_zarr_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ExportError, match=r"pip install 'ego-assets\[egoverse\]'"):
        write_egoverse(tmp_path, [])
