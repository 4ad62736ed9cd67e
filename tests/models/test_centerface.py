"""The face finder: real faces in a real frame, and weights that are missing or damaged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.face_blur import FACES as DRAWN
from ego_assets.media.decode import ClipFrames
from ego_assets.models.faces.centerface import MAX_SIDE_PX, CenterFace, _boxes
from ego_assets.models.packaged.declaration import FACES
from ego_assets.models.weights import WeightsError, WeightsMissingError, weights_root

DINNER = "ego_dinner_table.mp4"


@pytest.fixture(scope="module")
def finder() -> CenterFace:
    file = weights_root() / FACES.paths[0]
    if not file.is_file():
        pytest.skip(f"no {file}: run `ego weights fetch faces`")
    return CenterFace(file)


@pytest.fixture(scope="module")
def frame(real_data: Path) -> np.ndarray:
    path = real_data / "videos" / DINNER
    (found,) = ClipFrames(path, 4, 5).read(max_side_px=MAX_SIDE_PX)
    image: np.ndarray = found.image
    return image


def distances(boxes: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(N, F) from the middle of each box to that of each face, pixels."""
    middles = [(b[:, :2] + b[:, 2:]) / 2 for b in (boxes, drawn)]
    return np.asarray(np.linalg.norm(middles[0][:, None] - middles[1][None], axis=2))


def test_both_faces_of_a_real_frame_are_found_and_little_else(
    finder: CenterFace, frame: np.ndarray
) -> None:
    boxes = finder.find(frame)
    apart = distances(boxes, np.array(DRAWN[DINNER][1][4]))
    assert (apart.min(axis=0) < 15).all()
    assert (apart.min(axis=1) > 40).sum() <= 1
    faces = boxes[apart.min(axis=1) < 15]
    sides = faces[:, 2:] - faces[:, :2]
    assert (sides > 40).all() and (sides < 130).all()


def test_boxes_are_of_the_picture_at_any_size_one_after_the_other(
    finder: CenterFace, frame: np.ndarray
) -> None:
    drawn = np.array(DRAWN[DINNER][1][4])
    for width, height in ((2560, 1920), (900, 675), (1280, 960)):
        sized = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        apart = distances(finder.find(sized) * (1280 / width), drawn)
        assert (apart.min(axis=0) < 15).all(), width
        assert (apart.min(axis=1) > 40).sum() <= 2, width


def test_the_same_picture_gives_the_same_boxes(finder: CenterFace, frame: np.ndarray) -> None:
    first = finder.find(frame)
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        assert (CenterFace(finder._file).find(frame) == first).all()
    finally:
        cv2.setNumThreads(before)


def test_a_picture_without_anything_has_no_faces(finder: CenterFace) -> None:
    assert finder.find(np.full((120, 160, 3), 90, np.uint8)).shape == (0, 4)


def test_its_weights_are_said_by_their_hash(finder: CenterFace) -> None:
    assert finder.said()["weights_sha256"] == FACES.files[0].sha256


def test_maps_become_boxes_and_the_surer_of_two_that_overlap() -> None:
    heat = np.zeros((8, 10), np.float32)
    heat[2, 3], heat[2, 4], heat[6, 8], heat[0, 0] = 0.5, 0.9, 0.3, 0.19
    sizes = np.zeros((2, 8, 10), np.float32)
    sizes[0], sizes[1] = np.log(4), np.log(2)  # 16 high, 8 wide
    offsets = np.zeros((2, 8, 10), np.float32)
    offsets[0], offsets[1] = 0.25, -0.25
    # The middle of (2, 4): x = (4 - 0.25 + 0.5) * 4 = 17, y = (2 + 0.25 + 0.5) * 4 = 11
    expected = [[13, 3, 21, 19], [29, 19, 37, 35]]
    np.testing.assert_allclose(_boxes(heat, sizes, offsets), expected, atol=1e-4)


def test_without_weights_it_says_which_command_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGO_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissingError, match="run `ego weights fetch faces`"):
        CenterFace.load()


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_WEIGHTS", str(tmp_path))
    (file,) = (tmp_path / path for path in FACES.paths)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"another network")
    with pytest.raises(WeightsError, match="ego weights fetch faces"):
        CenterFace.load()
