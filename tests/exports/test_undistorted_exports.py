"""`--undistorted true`: pictures, and what is in pixels, go through one map in every format."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO

from ego_assets.exports.grid import ExportError
from ego_assets.exports.lake_episodes import LakeEpisodes, view_of
from ego_assets.exports.settings import ContentSettings
from ego_assets.reading import LakeReader
from ego_assets.vision.lenses.undistorted import UndistortedView
from tests.exports.bars import picture_of
from tests.exports.numbered_lake import FISHEYE, MadeVideo, NumberedLake, make
from tests.exports.test_coco import blob, masks_of
from tests.exports.test_egodex import world_moves
from tests.exports.test_mcap import only as only_log
from tests.exports.test_mcap import read as read_log
from tests.exports.test_webdataset import samples

SIZE = {"width_px": 192, "height_px": 108}
VIEW = UndistortedView.of_video(FISHEYE | SIZE | {"video_id": "", "uri": ""})
SAID = {
    "camera_model": "PINHOLE",
    "fx_px": VIEW.camera.fx,
    "distortion": [],
    "intrinsics_source": "calibration_file",
}


def fisheye_lake(folder: Path, video: MadeVideo | None = None, **more: Any) -> NumberedLake:
    return make(folder, video or MadeVideo(count=90), lens=FISHEYE, **more)


def shown_of(picture: np.ndarray, count: int = 90) -> tuple[int, float]:
    """Which undistorted picture of the video this is, and how far it is off."""
    off = [np.abs(VIEW.picture(picture_of(n)).astype(int) - picture).mean() for n in range(count)]
    return int(np.argmin(off)), float(min(off))


def pictures_in(path: Any) -> list[np.ndarray]:
    with av.open(path) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def check_camera(provenance: dict[str, Any]) -> None:
    assert provenance["camera"] | SAID == provenance["camera"]
    assert provenance["undistorted_from"] | FISHEYE == provenance["undistorted_from"]


def test_a_lens_is_another_picture_at_all() -> None:
    plain = np.abs(VIEW.picture(picture_of(5)).astype(int) - picture_of(5)).mean()
    assert plain > 7


def test_lerobot_shows_them_and_says_so(tmp_path: Path) -> None:
    lake = fisheye_lake(tmp_path)
    lake.export("--undistorted", "true")
    (path,) = (tmp_path / "out").rglob("*.mp4")
    found = [shown_of(p) for p in pictures_in(str(path))]
    assert [n for n, _ in found] == list(range(90)) and max(off for _, off in found) < 6
    (record,) = (tmp_path / "out/meta/ego_episodes").rglob("*.parquet")
    (row,) = pq.read_table(record).to_pylist()
    check_camera(json.loads(row["provenance"]))


@pytest.mark.parametrize("content", ["clips", "frames"])
def test_webdataset_shows_them_and_says_so(tmp_path: Path, content: str) -> None:
    fisheye_lake(tmp_path).export(
        *("--undistorted", "true", "--content", content, "--threads", "1"), to="webdataset"
    )
    for sample in samples(tmp_path / "out").values():
        said = json.loads(sample["json"])
        check_camera(said["provenance"])
        if content == "frames":
            picture = np.asarray(Image.open(io.BytesIO(sample["jpg"])))
            assert shown_of(picture)[0] == said["source_frame"]
        else:
            shown = [shown_of(p)[0] for p in pictures_in(io.BytesIO(sample["mp4"]))]
            assert shown == list(range(90))


def test_mcap_shows_them_and_calibrates_for_them(tmp_path: Path) -> None:
    fisheye_lake(tmp_path).export("--undistorted", "true", "--pictures", "jpeg", to="mcap")
    log = read_log(only_log(tmp_path / "out"))
    frames = {t: m["source_frame"] for t, m in log.messages["/shown"]}
    for time, message in log.messages["/camera/image"]:
        picture = np.asarray(Image.open(io.BytesIO(message.data)))
        assert shown_of(picture)[0] == frames[time]
    ((_, lens),) = log.messages["/camera/calibration"]
    assert lens.distortion_model in ("", "plumb_bob") and not any(lens.D)
    np.testing.assert_allclose(np.reshape(lens.K, (3, 3)), VIEW.camera.matrix(), rtol=1e-6)
    check_camera(json.loads(log.said["provenance"]))


def test_egodex_always_shows_them(tmp_path: Path) -> None:
    fisheye_lake(tmp_path, world_moves(90)).export(to="egodex")
    (path,) = (tmp_path / "out").rglob("*.mp4")
    assert [shown_of(p)[0] for p in pictures_in(str(path))] == list(range(90))
    with h5py.File(path.with_suffix(".hdf5")) as file:
        np.testing.assert_allclose(file["camera/intrinsic"], VIEW.camera.matrix(), rtol=1e-6)


def test_coco_takes_masks_boxes_and_keypoints_along(tmp_path: Path) -> None:
    video = MadeVideo(count=60)
    lake = fisheye_lake(tmp_path, video, more=masks_of(video))
    lake.export("--every", "20", "--undistorted", "true", to="coco")
    out = tmp_path / "out"
    data = COCO(str(out / "annotations.json"))
    poses = {(p["frame_index"], p["side"]): p for p in lake.tables["hand_poses"]}
    tracks = {p["track_id"] for p in lake.tables["hand_poses"]}
    shown = 0
    for number in data.getImgIds():
        (image,) = data.loadImgs(number)
        picture = np.asarray(Image.open(out / "images" / image["file_name"]))
        assert shown_of(picture)[0] == image["frame_index"]
        for row in data.loadAnns(data.getAnnIds(number)):
            seen = data.annToMask(row).astype(bool)
            wanted = VIEW.mask(blob(image["frame_index"], row["track_id"]))
            assert (seen == wanted).all() and seen.any()
            assert row["area"] == seen.sum()
            np.testing.assert_allclose(row["bbox"], masks.toBbox(row["segmentation"]))
            if row["track_id"] not in tracks:
                continue
            side = data.loadCats(row["category_id"])[0]["name"].split()[0]
            joints = VIEW.points(np.array(poses[image["frame_index"], side]["joints_px"]))
            keypoints = np.array(row["keypoints"]).reshape(21, 3)
            inside = ((joints >= 0) & (joints < (192, 108))).all(axis=1)
            assert (keypoints[:, 2] == 2 * inside).all()
            shown += inside.any()
            np.testing.assert_allclose(keypoints[inside, :2], joints[inside], atol=1e-6)
    assert shown > 2
    episodes = json.loads(next(out.glob("episodes/*.json")).read_text())
    check_camera(episodes["provenance"])


def test_a_lens_that_cannot_be_undone_is_named_with_its_video() -> None:
    lens = FISHEYE | SIZE | {"cx_px": 1e5}
    with pytest.raises(ExportError, match="cannot be undistorted: video v1"):
        view_of({"video_id": "v1", "undistorted_from": lens})


def test_an_export_that_is_asked_for_it_later_is_made_again(tmp_path: Path) -> None:
    lake = fisheye_lake(tmp_path)
    lake.export(to="webdataset")
    assert lake.export(to="webdataset")["encoded"] == 0
    assert lake.export("--undistorted", "true", to="webdataset")["encoded"] == 1


def test_without_a_lens_nothing_changes_but_what_is_said(tmp_path: Path) -> None:
    lake = make(tmp_path, MadeVideo(count=90)).lake
    kinds = [
        list(LakeEpisodes(LakeReader(lake), ContentSettings(undistorted=on), 0))
        for on in (False, True)
    ]
    (plain,), (asked,) = kinds
    assert asked.provenance["camera"] == plain.provenance["camera"] | {"distortion": []}


def test_an_episode_whose_camera_is_not_known_is_left_out(tmp_path: Path) -> None:
    lake = make(tmp_path, MadeVideo(count=90), lens={"fx_px": None})
    message = lake.export("--undistorted", "true", ok=False)
    assert "cannot be undistorted" in message and "no intrinsics" in message


def test_training_windows_show_them(tmp_path: Path) -> None:
    from ego_assets.training import EpisodeDataset, WindowSettings

    reader = LakeReader(fisheye_lake(tmp_path).lake)
    data = EpisodeDataset(
        reader, WindowSettings(size=(108, 192)), ContentSettings(undistorted=True, split="all")
    )
    for number in (3, 40):
        picture = data[number]["observation.images.ego"][0].numpy().transpose(1, 2, 0)
        assert shown_of(picture)[0] == data[number]["frame_index"] == number


def test_readers_show_them_with_their_camera_beside(tmp_path: Path) -> None:
    reader = LakeReader(fisheye_lake(tmp_path).lake)
    (episode,) = reader.episodes()
    frames = list(episode.frames(undistorted=True, stride=10))
    assert [shown_of(f.image)[0] for f in frames] == [f.index for f in frames]
    camera = episode.undistorted_view.camera
    assert (camera.fx, camera.cy) == pytest.approx((VIEW.camera.fx, VIEW.camera.cy))
    (small, *_) = episode.frames(undistorted=True, max_side_px=96)
    assert small.image.shape == (54, 96, 3)
    (video,) = reader.videos()
    assert video.undistorted_view.source.model == "OPENCV_FISHEYE"
