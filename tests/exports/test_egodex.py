"""`ego export egodex`: joints are those of the tables, pictures those of their rows."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest

from ego_assets.exports.egodex.joints import joint_names
from ego_assets.exports.egodex.settings import EgoDexSettings
from ego_assets.exports.egodex.writer import write_egodex
from ego_assets.exports.episode import ExportEpisode, Numbers
from ego_assets.operator import Intrinsics
from ego_assets.vision.cameras import project_points
from tests.exports.bars import number_in
from tests.exports.lerobot_reader import tree
from tests.exports.numbered import EGO, episode
from tests.exports.numbered_lake import MadeVideo, make
from tests.exports.test_lake_export import of

PINHOLE = {
    "camera_model": "PINHOLE",
    "distortion": None,
    "width_px": 192,
    "height_px": 108,
    **{"fx_px": 150.0, "fy_px": 150.0, "cx_px": 95.5, "cy_px": 53.5},
}


def pictures_in(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 30
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


def world_moves(count: int, video_id: str = "00000000000000a1") -> MadeVideo:
    made = MadeVideo(count=count, video_id=video_id)
    made.camera_m[:, 0] = np.linspace(0, 1, count)
    return made


def test_joints_are_the_rows_of_the_lake_and_frames_their_pictures(tmp_path: Path) -> None:
    video = world_moves(90)
    video.is_there[70:] = False
    lake = make(tmp_path, video)
    report = lake.export(to="egodex")
    assert (report["episodes"], report["skipped"]) == (1, {})
    (found,) = (tmp_path / "out").rglob("*.hdf5")
    (row,) = lake.tables["episodes"]
    with h5py.File(found) as file:
        task = file.attrs["llm_description"]
        assert task == row["instruction"] and found.parent.name == file.attrs["task"]
        assert json.loads(file.attrs["ego_provenance"])["video_id"] == video.video_id
        frames = file["ego/source_frame"][:]
        count = row["end_frame"] - row["start_frame"]
        shown = pictures_in(found.with_suffix(".mp4"))
        assert [number_in(p) for p in shown] == frames.tolist() and len(frames) == count
        assert {len(values) for values in file["transforms"].values()} == {count}
        assert set(file["confidences"]) == {*joint_names("left"), *joint_names("right")}
        assert set(file["transforms"]) == {"camera", *file["confidences"]}
        cameras = {
            r["frame_index"]: r["world_from_camera_m"] for r in lake.tables["episode_frames"]
        }
        for side in ("left", "right"):
            rows = of(lake.tables["episode_hands"], side)
            for n, name in enumerate(joint_names(side)):
                joints, sure = file[f"transforms/{name}"][:], file[f"confidences/{name}"][:]
                for tick, frame in enumerate(frames):
                    expected = np.float32(rows[frame]["joints_world_m"][n])
                    assert np.array_equal(joints[tick, :3, 3], expected)
                    assert sure[tick] == np.float32(0.9)
                assert np.allclose(np.linalg.det(joints[:, :3, :3]), 1, atol=1e-5)
                assert np.array_equal(joints[:, 3], np.tile([0, 0, 0, 1], (count, 1)))
        for tick, frame in enumerate(frames):
            assert np.allclose(file["transforms/camera"][tick, :3, 3], cameras[frame], atol=1e-6)


def test_joints_fall_on_the_pixels_of_the_video(tmp_path: Path) -> None:
    """As loaders do it: inverse of the camera, then +K; at half of the size."""
    lake = make(tmp_path, world_moves(60))
    lake.export("--max-side-px", "96", to="egodex")
    (found,) = (tmp_path / "out").rglob("*.hdf5")
    rows = of(lake.tables["episode_hands"], "right")
    lens = Intrinsics("PINHOLE", 150.0, 151.0, 95.5, 53.5)
    with h5py.File(found) as file:
        for tick, frame in enumerate(file["ego/source_frame"]):
            tip = file["transforms/rightIndexFingerTip"][tick]
            seen = (np.linalg.inv(file["transforms/camera"][tick]) @ tip)[:3, 3]
            assert seen[2] > 0
            at = (file["camera/intrinsic"][:] @ seen)[:2] / seen[2]
            (full,) = project_points(lens, np.array([rows[frame]["joints_camera_m"][8]]))
            assert at == pytest.approx((full + 0.5) / 2 - 0.5, abs=1e-2)


def test_frames_without_a_hand_have_no_confidence_and_hold_the_last_pose(tmp_path: Path) -> None:
    video = world_moves(90)
    video.is_valid[40:44] = False
    make(tmp_path, replace(video, sides=("right",))).export(to="egodex")
    (found,) = (tmp_path / "out").rglob("*.hdf5")
    with h5py.File(found) as file:
        assert "leftHand" not in file["transforms"]
        sure = file["confidences/rightHand"][:]
        assert (sure[40:44] == 0).all() and (np.delete(sure, range(40, 44)) > 0).all()


def test_cameras_that_are_not_known_in_metres_are_skipped_with_the_reason(tmp_path: Path) -> None:
    lost = world_moves(90, "00000000000000b2")
    lost.camera_valid[40:60] = False
    lake = make(tmp_path, world_moves(90), lost)
    report = lake.export(to="egodex")
    why = "its cameras are not known in metres in every frame"
    assert report["episodes"] == 1 and list(report["skipped"].values()) == [why]
    only = make(tmp_path / "only", replace(lost, scale_kind="arbitrary"))
    assert why in only.export(ok=False, to="egodex")


def plain(name: str, frames: int, first: int, **changes: Any) -> ExportEpisode:
    whole = episode(name, frames, first)
    pose = np.tile(np.eye(4, dtype=np.float32).ravel(), (frames, 1))
    columns = {f"transforms/{n}": Numbers(pose) for n in ("camera", "leftHand")}
    values: dict[str, Any] = {"columns": columns, "provenance": {"camera": PINHOLE}}
    return replace(whole, **(values | {"task": "pick up the cup"} | changes))


def test_episodes_keep_their_numbers_and_what_is_unchanged_its_bytes(tmp_path: Path) -> None:
    write_egodex(tmp_path, [plain(f"e{n}", 10, 100 * n) for n in range(3)])
    before = tree(tmp_path)
    cup = "pick_up_the_cup"
    assert {f"{cup}/{n}.{kind}" for n in range(3) for kind in ("mp4", "hdf5")} < set(before)
    changed = plain("e2", 12, 300)
    report = write_egodex(tmp_path, [plain("e0", 10, 0), changed, plain("e3", 10, 400)])
    assert (report.kept, report.encoded, report.removed) == (1, 2, 2)
    after = tree(tmp_path)
    for kind in ("mp4", "hdf5"):
        assert after[f"{cup}/0.{kind}"] == before[f"{cup}/0.{kind}"]
        assert f"{cup}/1.{kind}" not in after
    starts = {n: number_in(pictures_in(tmp_path / cup / f"{n}.mp4")[0]) for n in (0, 2, 3)}
    assert starts == {0: 0, 2: 300, 3: 400}
    write_egodex(tmp_path / "again", [plain(f"e{n}", 10, 100 * n) for n in range(3)])
    assert tree(tmp_path / "again") == before


def test_a_lens_is_taken_out_of_the_pictures(tmp_path: Path) -> None:
    lens = PINHOLE | {"camera_model": "OPENCV", "distortion": [0.5, 0.0, 0.0, 0.0]}
    camera = Intrinsics("OPENCV", 150.0, 150.0, 95.5, 53.5, (0.5, 0.0, 0.0, 0.0))
    point = np.array([[0.35, 0.2, 1.0]])
    (seen,) = project_points(camera, point)
    picture = np.zeros((108, 192, 3), np.uint8)
    x, y = seen.round().astype(int)
    picture[y - 2 : y + 3, x - 2 : x + 3] = 255
    made = plain("e0", 3, 0, provenance={"camera": lens}, pictures={EGO: lambda: [picture] * 3})
    write_egodex(tmp_path, [made], EgoDexSettings(crf=10))
    (found,) = tmp_path.rglob("*.hdf5")
    with h5py.File(found) as file:
        at = (file["camera/intrinsic"][:] @ point[0])[:2]
    bright = pictures_in(found.with_suffix(".mp4"))[0].mean(axis=2)
    rows, columns = np.nonzero(bright > 128)
    assert np.abs([columns.mean() - at[0], rows.mean() - at[1]]).max() < 0.5
    assert np.abs(seen - at).max() > 1


def test_without_h5py_nothing_is_encoded_and_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"pip install 'ego-assets\[egodex\]'"):
        write_egodex(tmp_path / "out", [plain("e0", 5, 0)])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"provenance": {}}, "intrinsics of its camera are not known"),
        ({"pictures": {}}, "0 cameras"),
        ({"columns": {}}, "no column transforms/camera"),
    ],
)
def test_what_the_layout_has_no_place_for_is_refused(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        write_egodex(tmp_path, [plain("e0", 5, 0, **changes)])
