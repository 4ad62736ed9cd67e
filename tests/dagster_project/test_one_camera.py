"""One camera through the whole graph: what a calibration file says is what every table, probe,
export and viewer goes by, for a pinhole of fx = 1920 and for a fisheye lens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from dagster_project.cli.program import main
from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames
from ego_assets.media.video_writer import write_mp4
from ego_assets.operator import Intrinsics
from ego_assets.reading import LakeReader, open_lake
from ego_assets.vision.cameras import project_points
from ego_assets.vision.lenses.undistorted import UndistortedView
from tests.exports.test_webdataset import samples
from tests.support.fisheye import through_equidistant
from tests.support.rendered import small_sample

EGO = str(Path(sys.executable).with_name("ego"))
SIZE = (320, 180)
SIDECARS: dict[str, dict[str, Any]] = {
    "told": {"fx": 1920.0, "fy": 1926.0, "cx": 1150.0, "cy": 655.0, "width": 2320, "height": 1305},
    "bent": {
        "model": "OPENCV_FISHEYE",
        "distortion": [0.0] * 4,
        **{"fx": 250.0, "fy": 250.0, "cx": 158.0, "cy": 91.0, "width": 320, "height": 180},
    },
}
LENSES = {
    # The calibration is of a picture 7.25 times as large.
    "told": Intrinsics(
        "PINHOLE", 1920 / 7.25, 1926 / 7.25, 1150.5 / 7.25 - 0.5, 655.5 / 7.25 - 0.5
    ),
    "bent": Intrinsics("OPENCV_FISHEYE", 250.0, 250.0, 158.0, 91.0, (0.0,) * 4),
}
ASSUMED = Intrinsics("PINHOLE", 228.5, 228.5, 159.5, 89.5)
"""What a video without a calibration is taken for."""
OPTIONS = (
    *("episodes.min_length_s=0.5", "episodes.validation_share=0", "episodes.max_idle_s=5"),
    # Through a lens that makes hands seem further off, one is taken for another person's.
    *("episodes.whose_hands=anyone", "episodes.min_valid_hand_share=0.1"),
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> LakeReader:
    """Of a rendered sample with a calibration of fx = 1920, and the same through a fisheye."""
    folder = tmp_path_factory.mktemp("one_camera")
    video = small_sample(folder / "rendered")
    said = json.loads(video.with_suffix(".camera.json").read_text())
    pinhole = Intrinsics("PINHOLE", *(said[n] for n in ("fx", "fy", "cx", "cy")))
    raw = folder / "raw"
    raw.mkdir()
    frames = list(ClipFrames(video, 0, len(index_frames(video))).read())
    write_mp4(raw / "told.mp4", ((f.pts_s, f.image) for f in frames))
    bent = ((f.pts_s, through_equidistant(f.image, pinhole, LENSES["bent"])) for f in frames)
    write_mp4(raw / "bent.mp4", bent)
    for name, sidecar in SIDECARS.items():
        (raw / f"{name}.camera.json").write_text(json.dumps(sidecar))
    sets = [word for option in OPTIONS for word in ("--set", option)]
    command = [EGO, "run", str(raw), "--lake", str(folder / "lake"), "--json", *sets]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    return open_lake(folder / "lake")


def rows(lake: LakeReader, table: str, name: str) -> list[dict[str, Any]]:
    """The rows of a table that are of one of the two videos."""
    manifest = lake.table("video_manifest").to_pylist()
    (video,) = (v["video_id"] for v in manifest if Path(v["uri"]).stem == name)
    return [row for row in lake.table(table).to_pylist() if row["video_id"] == video]


def columns(lens: Intrinsics) -> list[float]:
    return [lens.fx, lens.fy, lens.cx, lens.cy, *lens.distortion]


def check(row: dict[str, Any], lens: Intrinsics) -> None:
    """A row that has columns of a camera has these."""
    found = [row[n] for n in ("fx_px", "fy_px", "cx_px", "cy_px")] + list(row["distortion"] or ())
    np.testing.assert_allclose(found, columns(lens), rtol=1e-6)
    assert (row["camera_model"], row["intrinsics_source"]) == (lens.model, "calibration_file")


@pytest.mark.parametrize("name", SIDECARS)
def test_the_manifest_and_the_cameras_have_it(lake: LakeReader, name: str) -> None:
    (video,) = rows(lake, "video_manifest", name)
    check(video, LENSES[name])
    cameras = rows(lake, "scene_reconstruction", name)
    assert len(cameras) == 30
    for row in cameras:
        check(row, LENSES[name])
        assert row["focal_std_px"] is None


@pytest.mark.parametrize("name", SIDECARS)
def test_hands_fall_on_their_joints_through_it(lake: LakeReader, name: str) -> None:
    off: dict[str, list[float]] = {"own": [], "other": []}
    for row in rows(lake, "hand_poses", name):
        if row["is_valid"]:
            joints = np.array(row["joints_camera_m"])
            for kind, lens in (("own", LENSES[name]), ("other", ASSUMED)):
                seen = project_points(lens, joints)
                off[kind].append(float(np.median(np.linalg.norm(seen - row["joints_px"], axis=1))))
    assert len(off["own"]) > 10
    assert np.median(off["own"]) < 2.5
    assert np.median(off["other"]) > 1.5 * np.median(off["own"])


@pytest.mark.parametrize("name", SIDECARS)
def test_points_of_the_scene_have_the_colours_where_it_shows_them(
    lake: LakeReader, name: str
) -> None:
    (clip,) = (c for c in lake.clips() if c.video_id == rows(lake, "clips", name)[0]["video_id"])
    (uri,) = {row["points_uri"] for row in rows(lake, "scene_reconstruction", name)}
    arrays = lake.arrays(uri)
    off: dict[str, list[float]] = {"own": [], "other": []}
    for frame, pose in zip(clip.frames(), clip.cameras(), strict=True):
        points = (arrays["points"] - pose[:3, 3]) @ pose[:3, :3]
        for kind, lens in (("own", LENSES[name]), ("other", ASSUMED)):
            x, y = project_points(lens, points).round().astype(int).T
            inside = (x >= 0) & (x < SIZE[0]) & (y >= 0) & (y < SIZE[1]) & (points[:, 2] > 0)
            shown = frame.image[y[inside], x[inside]].astype(int)
            off[kind].append(float(np.abs(shown - arrays["colors"][inside]).mean()))
    assert np.mean(off["own"]) < 0.7 * np.mean(off["other"])


@pytest.mark.parametrize("name", SIDECARS)
def test_robot_hands_and_episodes_stand_where_hands_do(lake: LakeReader, name: str) -> None:
    hands = {
        (h["frame_index"], h["track_id"]): h
        for h in rows(lake, "hand_poses", name)
        if h["is_valid"]
    }
    mapped = rows(lake, "robot_mappings", name)
    assert mapped
    for row in mapped:
        hand = hands.get((row["frame_index"], row["track_id"]))
        if hand is not None and row["camera_from_wrist_m"] is not None:
            off = np.subtract(row["camera_from_wrist_m"], hand["camera_from_hand_m"])
            assert np.linalg.norm(off) < 0.02
    kept = rows(lake, "episode_hands", name)
    assert kept, "no episode was cut: the rest of this test would show nothing"
    measured = [h for h in kept if (h["frame_index"], h["track_id"]) in hands]
    off = [
        np.subtract(
            h["camera_from_hand_m"],
            hands[h["frame_index"], h["track_id"]]["camera_from_hand_m"],
        )
        for h in measured
    ]
    assert np.median(np.linalg.norm(off, axis=1)) < 0.02


@pytest.mark.parametrize("undistorted", ["false", "true"])
def test_exports_say_it(lake: LakeReader, tmp_path: Path, undistorted: str) -> None:
    out = tmp_path / "out"
    asked = ["export", "webdataset", "--lake", lake.location, "--out", str(out), "--split", "all"]
    options = ["--content", "frames", "--every", "10", "--undistorted", undistorted]
    done = CliRunner().invoke(main, [*asked, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    names = {rows(lake, "video_manifest", n)[0]["video_id"]: n for n in SIDECARS}
    seen = set()
    for sample in samples(out).values():
        said = json.loads(sample["json"])["provenance"]
        lens = LENSES[names[said["video_id"]]]
        seen.add(names[said["video_id"]])
        if undistorted == "true":
            check(said["undistorted_from"], lens)
            lens = UndistortedView.of(lens, *SIZE).camera
        check(said["camera"], lens)
    assert seen == set(SIDECARS)


def test_egodex_and_readers_have_it(lake: LakeReader, tmp_path: Path) -> None:
    for episode in lake.episodes():
        (video,) = (v for v in lake.videos() if v.video_id == episode.video_id)
        lens = LENSES[Path(video.row["uri"]).stem]
        source = episode.undistorted_view.source
        np.testing.assert_allclose(columns(source), columns(lens), rtol=1e-6)
        assert source.source == episode.undistorted_view.camera.source == "calibration_file"
    out = tmp_path / "out"
    asked = ["export", "egodex", "--lake", lake.location, "--out", str(out), "--split", "all"]
    done = CliRunner().invoke(main, asked, catch_exceptions=False)
    paths = list(out.rglob("*.hdf5"))
    assert done.exit_code == 0 and paths, done.output
    for path in paths:
        with h5py.File(path) as file:
            said = json.loads(file.attrs["ego_provenance"])["camera"]
            assert said["intrinsics_source"] == "calibration_file"
            assert file["camera/intrinsic"][0, 0] > 200


def test_what_is_undistorted_is_taken_in_with_its_new_camera(
    lake: LakeReader, tmp_path: Path
) -> None:
    from ego_assets.videos.calibration.undistorting import calibrated_camera

    done = CliRunner().invoke(
        main,
        ["undistort", "bent.mp4", "--out", str(tmp_path), "--lake", lake.location, "--json"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    view = UndistortedView.of(LENSES["bent"], *SIZE)
    found = calibrated_camera(tmp_path / "bent.mp4")
    np.testing.assert_allclose(columns(found), columns(view.camera), rtol=1e-6)
