"""Masks from work size to counts and back: the pixels of whole pictures, without those pictures."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from ego_assets.vision.mask_scaling import decode_area, decode_nearest, encode_enlarged
from ego_assets.vision.rle import decode_crop, decode_mask, encode_mask, mask_box

PICTURES = [(1080, 1920), (2160, 3840), (1920, 1080), (1920, 2560), (720, 1280), (480, 853)]


def work_size(height: int, width: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def enlarged(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask enlarged as a picture."""
    soft = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return soft.reshape(height, width) > 0.5


def blobs(shape: tuple[int, int], seed: int) -> np.ndarray:
    """(h, w) bool: some ellipses that may reach out of the picture, or noise."""
    rng = np.random.default_rng(seed)
    if seed % 4 == 3:
        return rng.random(shape) < rng.random()
    mask = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(1, 4)):
        y, x = (int(rng.integers(-4, n + 4)) for n in shape)
        axes = tuple(int(rng.integers(1, max(2, n // 2))) for n in shape)
        cv2.ellipse(mask, (x, y), axes, float(rng.integers(180)), 0, 360, 1, -1)
    return mask.astype(bool)


@pytest.mark.parametrize("size", PICTURES, ids=str)
def test_an_enlarged_mask_is_that_of_the_whole_picture(size: tuple[int, int]) -> None:
    for seed in range(8):
        small = blobs(work_size(*size, 480), seed)
        found, whole = encode_enlarged(small, *size), enlarged(small, *size)
        if not whole.any():
            assert found is None
            continue
        assert found is not None
        assert found.counts == coco.encode(np.asfortranarray(whole))["counts"]
        assert found.box == mask_box(whole)
        assert found.area == np.count_nonzero(whole)


def test_borders_corners_and_specks_are_enlarged() -> None:
    for at in [(0, 0), (0, -1), (-1, 0), (-1, -1), (3, 4)]:
        small = np.zeros((9, 16), bool)
        small[at] = True
        found = encode_enlarged(small, 45, 80)
        assert found is not None
        np.testing.assert_array_equal(decode_mask(found.counts, 45, 80), enlarged(small, 45, 80))
    everything = encode_enlarged(np.ones((9, 16), bool), 45, 80)
    assert everything is not None
    assert everything.area == 45 * 80
    assert encode_enlarged(np.zeros((9, 16), bool), 45, 80) is None
    own_size = blobs((45, 80), 1)
    found = encode_enlarged(own_size, 45, 80)
    assert found is not None
    assert found.counts == encode_mask(own_size)


@given(
    height=st.integers(1, 120), width=st.integers(1, 120), side=st.integers(1, 120),
    seed=st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_size_goes_there_and_back(height: int, width: int, side: int, seed: int) -> None:
    shape = work_size(height, width, side)
    small = blobs(shape, seed)
    found, whole = encode_enlarged(small, height, width), enlarged(small, height, width)
    # Where a pixel is inside by exactly a half, OpenCV rounds as its processor does.
    mine = np.zeros_like(whole) if found is None else decode_mask(found.counts, height, width)
    assert np.count_nonzero(mine != whole) <= 2
    mask = blobs((height, width), seed + 1)
    counts, pixels = encode_mask(mask), mask.astype(np.uint8)
    for function, way in ((decode_area, cv2.INTER_AREA), (decode_nearest, cv2.INTER_NEAREST)):
        expected = cv2.resize(pixels, shape[::-1], interpolation=way).reshape(shape)
        np.testing.assert_array_equal(function(counts, height, width, shape), expected)
    touched = cv2.resize(pixels * 255, shape[::-1], interpolation=cv2.INTER_AREA).reshape(shape)
    part = decode_area(counts, height, width, shape, inside=255)
    np.testing.assert_array_equal(part > 0, touched > 0)


def test_a_crop_holds_all_pixels_and_begins_where_it_says() -> None:
    mask = np.zeros((40, 60), bool)
    mask[7:12, 30:33] = True
    crop = decode_crop(encode_mask(mask), 40, 60)
    assert (crop.left, crop.top, crop.pixels.shape, crop.shape) == (30, 7, (5, 3), (40, 60))
    assert crop.pixels.all()
    wider = decode_crop(encode_mask(mask), 40, 60, steps=(5, 8))
    assert (wider.left, wider.top, wider.pixels.shape) == (24, 5, (10, 16))
    np.testing.assert_array_equal(wider.pixels, mask[5:15, 24:40])
    assert decode_crop(encode_mask(np.zeros((4, 6), bool)), 4, 6).pixels.size == 0


@pytest.mark.parametrize(
    "step",
    [
        lambda small, counts: encode_enlarged(small, 4320, 7680),
        lambda small, counts: decode_area(counts, 4320, 7680, (360, 640)),
        lambda small, counts: decode_nearest(counts, 4320, 7680, (540, 960)),
    ],
    ids=["enlarge", "area", "nearest"],
)
def test_the_full_size_picture_is_never_made(step: Callable[[Any, Any], Any]) -> None:
    """A bool picture of 8K takes 33 MB; a hand in it takes a fifteenth of that."""
    small = np.zeros((270, 480), np.uint8)
    cv2.ellipse(small, (300, 160), (50, 35), 30, 0, 360, 1, -1)
    coded = encode_enlarged(small.astype(bool), 4320, 7680)
    assert coded is not None
    tracemalloc.start()
    try:
        step(small.astype(bool), coded.counts)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4320 * 7680 / 3
