"""Cameras in the formats that people have arrive in the manifest, and everything uses them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ego_assets.catalog import TABLES
from ego_assets.operator import Intrinsics, intrinsics_of
from ego_assets.videos.calibration import formats
from ego_assets.videos.calibration.camera import Calibration, CalibrationError
from ego_assets.videos.calibration.columns import is_calibrated_by
from ego_assets.videos.inspection import probe_video
from ego_assets.videos.settings import ManifestSettings
from ego_assets.vision.cameras import project_points
from tests.support.coded_video import write_coded

WIDTH, HEIGHT = 1280, 720
LENS = [0.1, -0.05, 0.001, -0.002]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "v.mp4"
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    return write_coded(path, [picture, picture])


@pytest.fixture
def raw(video: Path, tmp_path: Path) -> Path:
    (tmp_path / "v.mp4").hardlink_to(video)
    return tmp_path


def probe(raw: Path, name: str = "v.mp4") -> dict[str, Any]:
    row = probe_video(raw / name, ManifestSettings())
    whole = {"video_id": "v", "shard": "s", "uri": "u", "byte_size": 1, "sha256": "0"} | row
    stored: dict[str, Any] = TABLES["video_manifest"].from_rows([whole]).to_pylist()[0]
    return stored


def camera(raw: Path) -> Intrinsics:
    row = probe(raw)
    assert row["reject_detail"] is None
    assert is_calibrated_by(row, raw / "v.mp4")
    return intrinsics_of(row)


COLMAP = "# Camera list with one line of data per camera:\n1 {} 1280 720 {}\n"
KALIBR = """cam0:
  cam_overlaps: []
  camera_model: pinhole
  distortion_coeffs: [0.1, -0.05, 0.001, -0.002]
  distortion_model: {}
  intrinsics: [1920.0, 1910.0, 639.0, 359.0]
  resolution: [1280, 720]
  rostopic: /camera/image_raw
"""
ROS = """image_width: 1280
image_height: 720
camera_name: head
camera_matrix:
  rows: 3
  cols: 3
  data: [1920., 0., 639., 0., 1910., 359., 0., 0., 1.]
distortion_model: {}
distortion_coefficients:
  rows: 1
  cols: 4
  data: [0.1, -0.05, 0.001, -0.002]
"""


def opencv(path: Path, lens: list[float]) -> None:
    """As OpenCV's own writer has it."""
    file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    file.write("image_width", WIDTH)
    file.write("image_height", HEIGHT)
    matrix = np.array([[1920.0, 0, 639.0], [0, 1910.0, 359.0], [0, 0, 1]])
    file.write("camera_matrix", matrix)
    file.write("distortion_coefficients", np.array([lens]))
    file.release()


def aria(model: str, params: list[float], size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    said = {"model": f"CameraModelType.{model}", "image_size": list(size), "params": params}
    return json.dumps({"fps": 30, "calibration": said | {"label": "camera-rgb"}})


OURS = {"fx": 1920.0, "fy": 1910.0, "cx": 639.0, "cy": 359.0, "model": "OPENCV"}
FOUR = "1920 1910 639.5 359.5 0.1 -0.05 0.001 -0.002"
PINS = [1920.0, 1910.0, 639.0, 359.0]
GIVEN: dict[str, tuple[str, str, str]] = {
    "ours": (".json", json.dumps(OURS | {"distortion": LENS}), "OPENCV"),
    "ours in YAML": (".yaml", "fx: 1920.0\nfy: 1910.0\ncx: 639.0\ncy: 359.0\n", "PINHOLE"),
    "COLMAP pinhole": (".txt", COLMAP.format("PINHOLE", "1920 1910 639.5 359.5"), "PINHOLE"),
    "COLMAP OpenCV": (".txt", COLMAP.format("OPENCV", FOUR), "OPENCV"),
    "COLMAP fisheye": (".txt", COLMAP.format("OPENCV_FISHEYE", FOUR), "OPENCV_FISHEYE"),
    "Kalibr radtan": (".yaml", KALIBR.format("radtan"), "OPENCV"),
    "Kalibr equidistant": (".yml", KALIBR.format("equidistant"), "OPENCV_FISHEYE"),
    "ROS plumb bob": (".yaml", ROS.format("plumb_bob"), "OPENCV"),
    "ROS fisheye": (".yaml", ROS.format("equidistant"), "OPENCV_FISHEYE"),
    "Aria linear": (".json", aria("LINEAR", PINS), "PINHOLE"),
    "Aria Kannala-Brandt": (".json", aria("KANNALA_BRANDT_K3", PINS + LENS), "OPENCV_FISHEYE"),
}


@pytest.mark.parametrize("place", ["v.camera", "camera"])
@pytest.mark.parametrize("name", GIVEN)
def test_a_camera_of_each_format_arrives(raw: Path, name: str, place: str) -> None:
    suffix, text, model = GIVEN[name]
    (raw / f"{place}{suffix}").write_text(text)
    found = camera(raw)
    assert (found.source, found.model) == ("calibration_file", model)
    assert (found.fx, found.fy, found.cx, found.cy) == (1920, 1910, 639, 359)
    assert found.distortion == pytest.approx([] if model == "PINHOLE" else LENS, abs=1e-6)


def test_the_files_of_opencv_itself_are_read(raw: Path) -> None:
    opencv(raw / "v.camera.yaml", LENS)
    found = camera(raw)
    assert (found.fx, found.model) == (1920, "OPENCV")
    opencv(raw / "v.camera.yaml", [*LENS, 0.0])
    assert camera(raw).distortion == found.distortion


def test_a_lens_of_more_coefficients_is_fitted(raw: Path) -> None:
    lens = np.array([0.2, -0.1, 0.001, -0.002, 0.03])
    opencv(raw / "v.camera.yaml", lens.tolist())
    points = np.column_stack([np.random.default_rng(0).uniform(-0.33, 0.33, (50, 2)), np.ones(50)])
    points[:, 1] *= 0.5
    matrix = np.array([[1920.0, 0, 639.0], [0, 1910.0, 359.0], [0, 0, 1]])
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, lens)
    off = project_points(camera(raw), points) - expected[:, 0]
    assert np.abs(off).max() < 0.1


def test_a_lens_is_compared_as_far_as_the_picture_reaches() -> None:
    """Near one of ours up to 55 degrees, and far from it at 60, which the picture shows."""
    lens = [-0.4317, 0.0089, 0.0, 0.0, 0.0226, -0.3798, -0.0193, 0.0278]
    numbers = " ".join(map(str, [600.0, 600.0, 960.0, 540.0, *lens]))
    text = f"1 FULL_OPENCV 1920 1080 {numbers}\n".encode()
    with pytest.raises(CalibrationError, match="pixels off the nearest camera of model OPENCV"):
        formats.parse(text)


@pytest.mark.parametrize("number", ["1e-05", "1e-5", "1E-05", "1.0e-5", "+1e-05", ".00001"])
def test_numbers_are_read_as_everybody_writes_them(raw: Path, number: str) -> None:
    (raw / "v.camera.yaml").write_text(KALIBR.format("radtan").replace("0.001", number))
    assert camera(raw).distortion == pytest.approx([0.1, -0.05, 1e-5, -0.002])


def test_the_cameras_of_glasses_are_fitted(real_data: Path) -> None:
    for name in ("adt_kitchen", "aria_gen2_hands"):
        path = real_data / "groundtruth" / name / "camera.json"
        found = formats.parse(path.read_bytes())
        said = json.loads(path.read_text())["calibration"]
        numbers = [said["params"][0], *said["params"]]
        angle = np.random.default_rng(0).uniform(-0.6, 0.6, (200, 2))
        expected = formats._fisheye624(angle, numbers)
        camera = found.camera
        ours = Intrinsics(
            camera.model, camera.fx, camera.fy, camera.cx, camera.cy, tuple(camera.distortion)
        )
        off = project_points(ours, np.column_stack([angle, np.ones(200)])) - expected
        assert not found.is_upright
        assert np.linalg.norm(off, axis=1).max() < 0.001 * max(said["image_size"])


REFUSED: dict[str, tuple[str, str, str]] = {
    "two cameras of Kalibr": (
        ".yaml", KALIBR.format("radtan") + KALIBR.format("radtan").replace("cam0", "cam1"),
        "it holds 2 cameras",
    ),
    "two cameras of COLMAP": (
        ".txt", COLMAP.format("PINHOLE", "1 1 1 1") + "2 PINHOLE 1280 720 2 2 2 2\n",
        "it holds 2 cameras",
    ),
    "another model": (
        ".txt", COLMAP.format("FOV", "1920 1910 639.5 359.5 0.9"), "its model is none of"
    ),
    "omni": (
        ".yaml", KALIBR.format("radtan").replace("pinhole", "omni"), "camera_model is not pinhole"
    ),
    "a lens that is none of ours": (
        ".json",
        aria("FISHEYE624", [610.0, 639.0, 359.0, *[0.0] * 6, 0.3, 0.3, *[0.0] * 4]),
        "pixels off the nearest camera of model OPENCV_FISHEYE",
    ),
    "a lens without its model": (
        ".yaml", KALIBR.replace("  distortion_model: {}\n", ""), "and no distortion_model"
    ),
    "a lens of no model": (".yaml", KALIBR.format("none"), "and no distortion_model"),
    "a number too many in a lens": (
        ".yaml", KALIBR.format("radtan").replace("-0.002]", "-0.002, 0.3]"),
        "its distortion_coeffs are not 4 numbers",
    ),
    "a number too many": (
        ".yaml", KALIBR.format("radtan").replace("359.0]", "359.0, 1.0]"),
        "its intrinsics are not four numbers",
    ),
    "a number too many of Aria": (
        ".json", aria("LINEAR", [*PINS, 0.1]), "a camera of its model has 4 params"
    ),
    "numbers too many of Aria": (
        ".json", aria("KANNALA_BRANDT_K3", [*PINS, *LENS, 0.1]), "its model has 8 params"
    ),
    "numbers too few of Aria": (".json", aria("SPHERICAL", PINS[:3]), "its model has 4 params"),
    "references": (
        ".yaml", "a: &a [1, 1]\ncamera_matrix: *a\n", "references (*), which are not followed"
    ),
    "code": (".yaml", "!!python/object/apply:os.system ['true']\n", "it is not YAML"),
    "too much YAML": (".yaml", "fx: 1\n" + "#" * 2**16, "YAML of more than 64 KiB"),
    "not YAML": (".yaml", "fx: [1\n", "it is not YAML (line 2, column 1)"),
    "words": (".txt", "a camera", "none of the known formats"),
    "two values": (".yaml", "fx: 1\nfx: 2\n", "two values of one name"),
    "no numbers": (".yaml", KALIBR.format("radtan").replace("1920.0", "wide"), "no finite number"),
    "another picture": (
        ".txt", COLMAP.format("PINHOLE", "1920 1910 639.5 359.5").replace("720", "960"),
        "width and height are those of another picture",
    ),
    "a skew": (".yaml", ROS.format("plumb_bob").replace("1920., 0.", "1920., 5."), "a skew"),
    "nested": (".yaml", "[" * 5000, "nested too deep"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_a_reason(raw: Path, name: str) -> None:
    suffix, text, why = REFUSED[name]
    (raw / f"v.camera{suffix}").write_text(text)
    row = probe(raw)
    assert (row["accepted"], row["reject_reason"]) == (False, "bad_calibration")
    assert why in row["reject_detail"]
    assert row["reject_detail"].startswith(f"v.camera{suffix} is no calibration of this video")


def test_the_file_of_a_video_comes_before_that_of_its_folder(raw: Path) -> None:
    (raw / "camera.json").write_text(json.dumps(OURS | {"fx": 1800.0, "distortion": LENS}))
    assert camera(raw).fx == 1800
    (raw / "v.camera.txt").write_text(COLMAP.format("PINHOLE", "1920 1910 639.5 359.5"))
    assert camera(raw).fx == 1920


@pytest.mark.parametrize("given", [(2560, 1440), (640, 360)])
def test_a_camera_of_a_picture_of_another_size_is_scaled(raw: Path, given: tuple[int, int]) -> None:
    scale = WIDTH / given[0]
    numbers = f"{1920 / scale} {1910 / scale} {640 / scale} {360 / scale}"
    text = f"1 PINHOLE {given[0]} {given[1]} {numbers}\n"
    (raw / "v.camera.txt").write_text(text)
    found = camera(raw)
    assert (found.fx, found.fy, found.cx, found.cy) == pytest.approx((1920, 1910, 639.5, 359.5))


def turned_video(raw: Path, degrees: int) -> None:
    """The display matrix that turns a stored picture clockwise."""
    one, data = 0x10000, bytearray((raw / "v.mp4").read_bytes())
    at = data.find(b"tkhd")
    matrix = at + (40 if not data[at + 4] else 52) + 4
    cos, sin = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    values = (cos, sin, 0, -sin, cos, 0, 0, 0, 0x40000000)
    data[matrix : matrix + 36] = struct.pack(">9i", *values)
    (raw / "v.mp4").unlink()
    (raw / "v.mp4").write_bytes(data)


@pytest.mark.parametrize("degrees", [90, 270])
def test_a_camera_of_the_stored_picture_is_turned_with_it(raw: Path, degrees: int) -> None:
    turned_video(raw, degrees)
    (raw / "v.camera.txt").write_text(COLMAP.format("OPENCV", FOUR))
    upright = camera(raw)
    points = np.column_stack([np.random.default_rng(1).uniform(-0.2, 0.2, (20, 2)), np.ones(20)])
    stored = Intrinsics("OPENCV", 1920, 1910, 639, 359, tuple(LENS))
    x, y = project_points(stored, points).T
    turn: Callable[[np.ndarray, np.ndarray, int, int], tuple[np.ndarray, np.ndarray]]
    turn = {
        90: lambda x, y, w, h: (h - y, x),
        270: lambda x, y, w, h: (y, w - x),
    }[degrees]
    expected = np.column_stack(turn(x, y, WIDTH - 1, HEIGHT - 1))
    rays = np.column_stack([*turn(points[:, 0], points[:, 1], 0, 0), np.ones(20)])
    np.testing.assert_allclose(project_points(upright, rays), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("degrees", "name"), [(180, "COLMAP OpenCV"), (180, "Kalibr radtan"), (90, "no size")]
)
def test_a_camera_of_nobody_knows_which_picture_is_refused(
    raw: Path, degrees: int, name: str
) -> None:
    turned_video(raw, degrees)
    suffix, text, _ = GIVEN["ROS plumb bob" if name == "no size" else name]
    if name == "no size":
        text = text.replace("image_width: 1280\nimage_height: 720\n", "")
    (raw / f"v.camera{suffix}").write_text(text)
    row = probe(raw)
    assert row["reject_reason"] == "bad_calibration"
    assert f"turned by {degrees} degrees" in row["reject_detail"]
    assert "for the upright one" in row["reject_detail"]


def test_a_camera_that_is_the_same_for_both_pictures_is_taken(raw: Path) -> None:
    turned_video(raw, 180)
    (raw / "v.camera.txt").write_text(COLMAP.format("SIMPLE_RADIAL", "1900 640 360 0.1"))
    found = camera(raw)
    assert (found.cx, found.cy) == (639.5, 359.5)
    (raw / "v.camera.json").write_text(json.dumps(OURS | {"distortion": LENS}))
    assert camera(raw).cx == 639, "ours says which it is"


def test_a_camera_that_says_the_upright_size_is_not_turned(raw: Path) -> None:
    turned_video(raw, 90)
    text = "1 PINHOLE 720 1280 1920 1910 360.5 640.5\n"
    (raw / "v.camera.txt").write_text(text)
    found = camera(raw)
    assert (found.fx, found.cx, found.cy) == (1920, 360, 640)


@pytest.mark.parametrize("junk", [b"1 PINHOLE 9 9 x\n", b"\xff\xfe", b"%YAML:1.0\n---\n", b"{}"])
def test_junk_is_a_calibration_error_and_nothing_else(junk: bytes) -> None:
    with pytest.raises(CalibrationError):
        formats.parse(junk)


def test_scaling_keeps_the_corners(raw: Path) -> None:
    half = Calibration(fx=960.0, fy=955.0, cx=319.5, cy=179.5, width=640, height=360)
    whole = half.of_picture(1280, 720)
    # The left edge of the picture lies half a pixel left of the middle of the first.
    assert (-0.5 - whole.cx) / whole.fx == pytest.approx((-0.5 - half.cx) / half.fx)
