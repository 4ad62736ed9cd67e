"""Hands fitted together, and masks seen through a lens: the same as one by one, and whole."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ego_assets.hands.baseline import estimator as hands
from ego_assets.hands.baseline.estimator import _Lens
from ego_assets.hands.baseline.fit import HandView, _shrunk, first_guesses, view_of
from ego_assets.hands.baseline.solver import FitProblem, fit, joints_of
from ego_assets.operator import Intrinsics
from ego_assets.vision.cameras import undistortion
from ego_assets.vision.rle import MaskCrop, encode_mask

MATRIX = np.array([[400.0, 0, 320], [0, 400, 180], [0, 0, 1]])


def hand(x: int, y: int, tilt: int) -> np.ndarray:
    """A palm, four fingers and a forearm that comes in from below."""
    mask = np.zeros((360, 640), np.uint8)
    cv2.line(mask, (x, 359), (x, y), 1, 34)
    cv2.ellipse(mask, (x, y), (26, 34), tilt, 0, 360, 1, -1)
    for finger in range(4):
        tip = (x - 30 + 20 * finger + tilt, y - 70 + 4 * finger)
        cv2.line(mask, (x - 18 + 12 * finger, y - 18), tip, 1, 9)
    return mask.astype(bool)


def view(x: int, y: int, tilt: int) -> HandView:
    found = view_of(MaskCrop.of(hand(x, y, tilt)), MATRIX, True)
    assert found is not None
    return found


def problems() -> list[FitProblem]:
    views = [view(200, 200, 10), view(430, 220, -15), view(300, 150, 0)]
    sides = ["left", "right", "right"]
    guesses = [np.stack(first_guesses(v, s, 1.0)) for v, s in zip(views, sides, strict=True)]
    before = guesses[1][0] + 0.05
    return [
        FitProblem(views[0], sides[0], guesses[0]),
        FitProblem(views[1], sides[1], np.stack([before, before + 0.02]), before),
        FitProblem(views[2], sides[2], guesses[2][:3]),
    ]


def test_hands_that_go_together_end_where_each_would_alone() -> None:
    together = fit(problems(), 1.0, 8)
    for one, (parameters, errors) in zip(problems(), together, strict=True):
        assert len(parameters) == len(one.starts)
        (alone,) = fit([one], 1.0, 8)
        np.testing.assert_array_equal(parameters, alone[0])
        np.testing.assert_array_equal(errors, alone[1])
        for start, found, error in zip(one.starts, parameters, errors, strict=True):
            ((lonely, its_error),) = fit(
                [FitProblem(one.view, one.side, start[None], one.before)], 1.0, 8
            )
            np.testing.assert_array_equal(lonely[0], found)
            assert its_error[0] == error


def test_a_fit_lies_in_its_mask() -> None:
    one = problems()[0]
    ((parameters, errors),) = fit([one], 1.0, 8)
    joints = joints_of(parameters[errors.argmin()][None], one.side, 1.0)[0]
    pixels = joints[:, :2] / joints[:, 2:] * 400 + MATRIX[:2, 2]
    mask = cv2.dilate(hand(200, 200, 10).astype(np.uint8), np.ones((9, 9)))
    assert np.mean([mask[int(y), int(x)] for x, y in pixels]) > 0.8


@pytest.mark.parametrize(
    ("model", "distortion"),
    [
        ("PINHOLE", ()),
        ("OPENCV", (-0.28, 0.08, 0.001, -0.002)),
        ("OPENCV", (0.2, -0.05, 0.0, 0.0)),
        ("OPENCV_FISHEYE", (-0.05, 0.02, -0.01, 0.001)),
    ],
)
def test_a_mask_seen_through_a_lens_is_that_of_the_whole_picture(
    model: str, distortion: tuple[float, ...]
) -> None:
    lens = Intrinsics(model, 400.0, 405.0, 318.0, 183.0, distortion)
    maps = undistortion(lens, lens.matrix(), (640, 360))
    seen = _Lens(lens, 640, 360)
    edge = np.zeros((360, 640), bool)
    edge[:40, 600:] = True
    for mask in (hand(200, 200, 10), hand(20, 100, 0), edge, np.ones((360, 640), bool)):
        whole = mask.astype(np.uint8)
        if maps is not None:
            whole = cv2.remap(whole, *maps, cv2.INTER_NEAREST)
        row = {"rle": encode_mask(mask), "height_px": 360, "width_px": 640}
        crop = seen.mask(row)
        expected = MaskCrop.of(whole > 0)
        assert (crop.left, crop.top) == (expected.left, expected.top)
        np.testing.assert_array_equal(crop.pixels, expected.pixels)
    nothing = {"rle": encode_mask(np.zeros((360, 640), bool)), "height_px": 360, "width_px": 640}
    assert seen.mask(nothing).pixels.size == 0


def test_a_mask_is_shrunk_as_its_whole_picture_is() -> None:
    """What OpenCV rounds depends on the place in the picture, and a fit on every pixel."""
    shape = (1080, 1920)
    for number in range(60):
        mask = np.zeros(shape, np.uint8)
        centre, axes = (211 + 29 * number, 150 + 13 * number), (60 + 5 * number, 41 + number)
        cv2.ellipse(mask, centre, axes, 11 * number, 0, 360, 1, -1)
        part = MaskCrop.of(mask > 0)
        found = _shrunk(part)
        assert found is not None
        crop, (x0, y0, shrink), _ = found
        move = np.array([[shrink, 0, -x0 * shrink], [0, shrink, -y0 * shrink]])
        whole = cv2.warpAffine(mask, move, crop.shape[::-1], flags=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(crop, cv2.medianBlur(whole, 3))


def test_halves_of_a_pixel_are_rounded_as_in_the_whole_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = np.meshgrid(np.arange(640, dtype=np.float32), np.arange(360, dtype=np.float32))
    maps = (x + np.float32(0.5), y - np.float32(0.5))
    monkeypatch.setattr(hands, "undistortion", lambda *_: maps)
    seen = _Lens(Intrinsics("PINHOLE", 400.0, 400.0, 320.0, 180.0), 640, 360)
    for left, top in ((100, 100), (101, 100), (100, 101), (101, 101)):
        mask = np.zeros((360, 640), bool)
        mask[top : top + 9, left : left + 12] = True
        expected = MaskCrop.of(cv2.remap(mask.astype(np.uint8), *maps, cv2.INTER_NEAREST) > 0)
        crop = seen.mask({"rle": encode_mask(mask), "height_px": 360, "width_px": 640})
        assert (crop.left, crop.top) == (expected.left, expected.top)
        np.testing.assert_array_equal(crop.pixels, expected.pixels)
