"""Pictures show what they should, fit where they should, and survive odd input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ego_assets.operator import Intrinsics
from ego_assets.vision import draw, plots


def grey(height: int = 90, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


def test_a_mask_tints_its_pixels_and_no_others() -> None:
    image, mask = grey(), np.zeros((180, 320), bool)
    mask[40:120, 60:200] = True
    draw.overlay_mask(image, mask, (255, 0, 0))
    assert image[40, 60, 0] > 130 > image[40, 60, 1]
    assert (image[70:, 120:] == 100).all()


def test_what_is_inside_of_a_mask_keeps_its_shades() -> None:
    """45 % of the colour, wherever in the picture the mask lies; its border has the colour."""
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3)).astype(np.uint8)
    before, color = image.copy(), (0, 158, 115)
    mask = np.zeros((90, 160), bool)
    mask[50:90, 120:160] = mask[70:80, 100:121] = True
    draw.overlay_mask(image, mask, color)
    inner = cv2.erode(mask.view("u1"), np.ones((5, 5), np.uint8), borderValue=0).view(bool)
    expected = (before * 0.55 + np.array(color) * 0.45).astype(np.uint8)
    assert inner.any() and (image[inner] == expected[inner]).all()
    outside = ~cv2.dilate(mask.view("u1"), np.ones((5, 5), np.uint8)).view(bool)
    assert (image[outside] == before[outside]).all()
    assert np.abs(image[75, 100].astype(int) - color).max() < 0.1 * 255
    draw.overlay_mask(image, np.zeros((90, 160), bool), color)


def test_axes_point_where_the_pose_says() -> None:
    image = grey(200, 200)
    camera = Intrinsics("PINHOLE", 200.0, 200.0, 100.0, 100.0)
    pose = np.eye(4)
    pose[2, 3] = 2.0
    draw.draw_axes(image, camera, pose, 0.5)
    red = np.argwhere((image[..., 0] > 200) & (image[..., 1] < 90))
    assert red[:, 1].max() >= 145  # x to the right
    pose[2, 3] = -2.0
    behind = grey(200, 200)
    draw.draw_axes(behind, camera, pose, 0.5)
    assert (behind == 100).all()


def test_axes_bend_as_the_lens_does() -> None:
    image, pose = grey(400, 400), np.eye(4)
    pose[:3, 3] = (2.0, 0.0, 1.0)
    draw.draw_axes(image, Intrinsics("OPENCV_FISHEYE", 100.0, 100.0, 100, 200, (0.0,) * 4), pose, 1)
    green = np.argwhere((image[..., 1] > 150) & (image[..., 0] < 90) & (image[..., 2] < 90))
    # A pinhole would show them at x = 300.
    assert green[:, 1].min() >= 190 and green[:, 1].max() <= 220


@pytest.mark.parametrize("far", [0.0, 1e7, -1e7])
def test_a_hand_far_off_the_picture_does_no_harm(far: float) -> None:
    draw.draw_hand(grey(), np.full((21, 2), far), draw.LEFT_COLOR)


def test_a_sheet_holds_every_tile_and_a_jpeg_fits() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    sheet = draw.contact_sheet([noise, grey(500, 20), grey(2, 900)] * 3)
    assert sheet.shape == (3 * 324 - 4, 3 * 324 - 4, 3)  # the tallest tile is higher than wide
    assert draw.contact_sheet([noise] * 4).shape == (2 * 244 - 4, 3 * 324 - 4, 3)
    data = draw.encode_jpeg(sheet, 150_000)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape == sheet.shape
    assert len(data) < len(cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 85])[1])
    with pytest.raises(ValueError, match="picture"):
        draw.contact_sheet([])


def test_words_fit_on_any_tile() -> None:
    for image in (grey(), grey(2, 2), grey(20, 40)):
        draw.draw_words(image, "ein sehr langer Name mit ünï ‘quote’ " * 5)


def test_plots_are_pictures() -> None:
    path = np.column_stack([np.arange(9.0), np.arange(9.0), np.full(9, np.nan)])
    row = {"track_id": "t", "start_pts_s": 0.0, "end_pts_s": 2.0, "state": "held"}
    times = np.arange(5.0)
    for data in (
        plots.plot_paths({"camera": path}, np.zeros((0, 3)), "t", "m"),
        plots.plot_timeline([row], "t"),
        plots.plot_scatter({"a": (times, times)}, 1.0, "x", "y", "t"),
    ):
        assert cv2.imdecode(np.frombuffer(data, np.uint8), 1) is not None
