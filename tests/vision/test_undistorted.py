"""The pinhole camera in place of a lens: pictures, masks, points and boxes there and back."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from ego_assets.operator import BadInputError, Frame, Intrinsics
from ego_assets.vision.cameras import project_points
from ego_assets.vision.lenses.undistorted import UndistortedView, has_lens
from tests.support.fisheye import EQUIDISTANT, SIZE, bend_px, chessboard

ARIA = Intrinsics("OPENCV_FISHEYE", 610.0, 612.0, 703.0, 700.0, (0.02, -0.01, 0.002, -0.0005))
LENSES = [
    (EQUIDISTANT, SIZE),
    (ARIA, (1408, 1408)),
    (Intrinsics("OPENCV", 900.0, 901.0, 955.0, 545.0, (-0.28, 0.07, 0.001, -0.002)), (1920, 1080)),
    (Intrinsics("OPENCV", 900.0, 450.0, 955.0, 270.0, (0.2, -0.03, 0.0, 0.001)), (1920, 540)),
]


def grid(size: tuple[int, int]) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, size[0] - 1, 33), np.linspace(0, size[1] - 1, 33))
    return np.stack([x, y], axis=-1)


@pytest.mark.parametrize(("lens", "size"), LENSES)
def test_points_come_back(lens: Intrinsics, size: tuple[int, int]) -> None:
    view = UndistortedView.of(lens, *size, max_fov_deg=120)
    there = view.points_back(grid(size))
    inside = np.isfinite(there).all(axis=-1)
    assert inside.mean() > 0.99
    np.testing.assert_allclose(view.points(there)[inside], grid(size)[inside], atol=0.05)
    np.testing.assert_allclose(view.points_back(view.points(there)), there, atol=0.05)


@pytest.mark.parametrize(("lens", "size"), LENSES)
def test_both_cameras_see_a_point_of_the_scene_at_one_place(
    lens: Intrinsics, size: tuple[int, int]
) -> None:
    points = np.random.default_rng(0).uniform((-0.5, -0.4, 1.0), (0.5, 0.4, 2.0), (200, 3))
    view = UndistortedView.of(lens, *size)
    assert view.camera.model == "PINHOLE"
    np.testing.assert_allclose(
        view.points(project_points(lens, points)), project_points(view.camera, points), atol=0.05
    )


@pytest.mark.parametrize(("lens", "size"), LENSES)
def test_a_picture_goes_where_its_points_go(lens: Intrinsics, size: tuple[int, int]) -> None:
    view = UndistortedView.of(lens, *size)
    for zoom in (1, 2):
        picture = np.zeros((size[1] // zoom, size[0] // zoom), np.uint8)
        at = (np.array([[0.3, 0.4], [0.6, 0.7], [0.5, 0.2]]) * size).round()
        for x, y in (at / zoom).round().astype(int):
            cv2.circle(picture, (int(x), int(y)), 6, 255, -1)
        seen = view.picture(picture) // 128
        count, _, _, middles = cv2.connectedComponentsWithStats(seen)
        assert count == 4
        wanted = view.points(at) / zoom
        nearest = np.linalg.norm(middles[1:, None] - wanted, axis=2).min(axis=1)
        assert nearest.max() < 1.0


def test_straight_lines_become_straight() -> None:
    picture = chessboard()
    view = UndistortedView.of(EQUIDISTANT, *SIZE)
    before, after = bend_px(picture), bend_px(view.picture(picture))
    assert before > 3.0
    assert after < 0.1


def test_the_field_of_view_is_kept_up_to_a_limit() -> None:
    across = np.degrees(320 / EQUIDISTANT.fx)
    for limit in (60.0, 100.0, 130.0):
        camera = UndistortedView.of(EQUIDISTANT, *SIZE, max_fov_deg=limit).camera
        wide = np.degrees(2 * np.arctan(320 / camera.fx))
        assert wide == pytest.approx(min(limit, 2 * across), abs=0.6), limit
    assert camera.fx == camera.fy


def test_pixels_keep_their_shape_and_the_picture_its_sides() -> None:
    lens, size = LENSES[3]
    view = UndistortedView.of(lens, *size)
    assert view.camera.fx / view.camera.fy == pytest.approx(2.0)
    middles = np.array([[0, (size[1] - 1) / 2], [size[0] - 1, (size[1] - 1) / 2]])
    x = view.points(middles)[:, 0]
    assert x[0] >= -0.01 and x[1] <= size[0] - 0.99


def test_what_the_lens_did_not_see_is_black_and_told() -> None:
    # A strong polynomial folds back at 46 degrees: beyond, things would be seen a second time.
    lens = Intrinsics("OPENCV", 700.0, 700.0, 959.5, 539.5, (-0.4, 0.05, 0.0, 0.0))
    view = UndistortedView.of(lens, 1920, 1080)
    white = view.picture(np.full((1080, 1920), 255, np.uint8))
    valid = view.valid(1920, 1080)
    assert 0.3 < valid.mean() < 0.9
    assert white[~valid].max(initial=0) < 255 and white[valid].min() > 200
    x, y = np.meshgrid(np.arange(1920), np.arange(1080))
    radius = np.hypot((x - view.camera.cx) / view.camera.fx, (y - view.camera.cy) / view.camera.fy)
    assert radius[valid].max() < 1.04
    assert np.isnan(view.points_back(np.array([[0.0, 0.0]]))).all()
    assert np.isnan(view.points(np.array([[-5000.0, 0.0]]))).all()
    assert np.isnan(view.points(np.array([[np.nan, 0.0]]))).all()


def test_boxes_hold_what_they_held() -> None:
    view = UndistortedView.of(ARIA, 1408, 1408)
    boxes = np.array([[200.0, 300.0, 500.0, 700.0], [900.0, 900.0, 1000.0, 1390.0]])
    there = view.boxes(boxes)
    for box, seen in zip(boxes, there, strict=True):
        inside = np.random.default_rng(1).uniform(box[:2], box[2:], (500, 2))
        points = view.points(inside).clip(0, 1407)
        assert (points >= seen[:2] - 0.5).all() and (points <= seen[2:] + 0.5).all()
    back = view.boxes_back(there)
    assert (back[0, :2] <= boxes[0, :2] + 0.05).all() and (back[0, 2:] >= boxes[0, 2:] - 0.05).all()
    assert np.isnan(view.boxes(np.array([[-900.0, -900.0, -800.0, -800.0]]))).all()


def test_masks_go_with_pictures() -> None:
    view = UndistortedView.of(ARIA, 1408, 1408)
    mask = np.zeros((1408, 1408), bool)
    mask[400:800, 300:600] = True
    shown = view.mask(mask)
    assert shown.dtype == bool
    rows, columns = np.nonzero(shown)
    box = view.boxes(np.array([[300.0, 400.0, 599.0, 799.0]]))[0]
    found = [columns.min(), rows.min(), columns.max(), rows.max()]
    np.testing.assert_allclose(found, box, atol=1.0)


def test_a_pinhole_stays_as_it_is() -> None:
    for lens in (
        Intrinsics("PINHOLE", 500.0, 510.0, 319.5, 179.5, source="calibration_file"),
        Intrinsics("OPENCV", 500.0, 510.0, 319.5, 179.5, (0.0,) * 4, "calibration_file"),
    ):
        assert not has_lens(lens)
        view = UndistortedView.of(lens, 640, 360)
        picture = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
        assert view.picture(picture) is picture and view.is_unchanged
        assert (view.camera.fx, view.camera.cy, view.camera.source) == (
            500.0,
            179.5,
            "calibration_file",
        )
        np.testing.assert_array_equal(view.points(grid((640, 360))), grid((640, 360)))
        assert view.valid(64, 36).all()


def test_maps_are_made_once_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from ego_assets.vision.lenses import undistorted

    asked: list[tuple[int, int]] = []
    make = undistorted.undistortion
    monkeypatch.setattr(
        undistorted,
        "undistortion",
        lambda lens, matrix, size: asked.append(size) or make(lens, matrix, size),
    )
    view = UndistortedView.of(EQUIDISTANT, *SIZE)
    frames = [Frame(n, n / 30, np.zeros((240, 320, 3), np.uint8), 0.5) for n in range(3)]
    shown = list(view.frames(frames))
    view.picture(np.zeros((480, 640, 3), np.uint8))
    assert asked == [(320, 240), (640, 480)]
    assert [(f.index, f.pts_s, f.scale) for f in shown] == [(n, n / 30, 0.5) for n in range(3)]
    assert pickle.loads(pickle.dumps(view)) == view  # noqa: S301


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="give 1 to 178"):
        UndistortedView.of(EQUIDISTANT, *SIZE, max_fov_deg=180)
    aside = Intrinsics("OPENCV", 500.0, 500.0, -1500.0, 240.0, (-0.1, 0.0, 0.0, 0.0))
    with pytest.raises(BadInputError, match="no part of the picture"):
        UndistortedView.of(aside, 640, 480, max_fov_deg=60)
    row = {"video_id": "v7", "uri": "/raw/a.mp4", "fx_px": None, "width_px": 1, "height_px": 1}
    with pytest.raises(BadInputError, match="v7"):
        UndistortedView.of_video(row)
