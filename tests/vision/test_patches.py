"""Masks and pictures of a clip as they are kept: the same as the whole ones, and bounded."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ego_assets.vision.patches import Patch, Shelf
from ego_assets.vision.rle import mask_box, mask_iou


def ellipse(x: int, y: int, a: int, b: int, shape: tuple[int, int] = (60, 90)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    cv2.ellipse(mask, (x, y), (a, b), 20, 0, 360, 1, -1)
    return mask.astype(bool)


MASKS = [
    ellipse(40, 30, 12, 8),
    ellipse(50, 33, 15, 9),
    ellipse(0, 0, 9, 9),
    ellipse(89, 59, 30, 12),
    np.ones((60, 90), bool),
    np.zeros((60, 90), bool),
]


@pytest.mark.parametrize("mask", MASKS, ids=lambda m: str(int(m.sum())))
def test_a_patch_is_its_mask(mask: np.ndarray) -> None:
    patch = Patch.of(mask)
    np.testing.assert_array_equal(patch.whole(), mask)
    assert patch.area == np.count_nonzero(mask)
    assert patch.box == (mask_box(mask) or [0.0] * 4)
    part = Patch.of(mask[10:50, 20:80], (20, 10), mask.shape)
    np.testing.assert_array_equal(part.whole()[10:50, 20:80], mask[10:50, 20:80])
    window = slice(5, 41), slice(30, 77)
    np.testing.assert_array_equal(patch.within(window), mask[window])
    for size in (3, 7):
        grown = cv2.dilate(mask.astype(np.uint8), np.ones((size, size))) > 0
        np.testing.assert_array_equal(patch.grown(size, window), grown[window])
    for other in MASKS:
        assert patch.overlap(Patch.of(other)) == np.count_nonzero(mask & other)
        assert patch.iou(Patch.of(other)) == mask_iou(mask, other)
        np.testing.assert_array_equal(patch.joined(Patch.of(other)).whole(), mask | other)


def test_a_moved_patch_loses_what_leaves_the_picture() -> None:
    for mask in MASKS:
        for right, down in ((3, 2), (-25, 10), (200, 0), (0.4, -0.4)):
            x, y = round(right), round(down)
            expected = np.zeros_like(mask)
            rows, columns = np.nonzero(mask)
            keep = (rows + y >= 0) & (rows + y < 60) & (columns + x >= 0) & (columns + x < 90)
            expected[rows[keep] + y, columns[keep] + x] = True
            np.testing.assert_array_equal(Patch.of(mask).moved(right, down).whole(), expected)


def test_a_shelf_holds_so_much_and_files_the_rest() -> None:
    rng = np.random.default_rng(0)
    arrays = {n: rng.integers(0, 255, (20, 30, 3), dtype=np.uint8) for n in range(10)}
    arrays[10] = rng.random((7, 5)).astype(np.float16)
    arrays[11] = np.zeros(0, np.float32)
    shelf = Shelf(4 * 1800 + 100)
    for key, array in arrays.items():
        shelf[key] = array
    assert len(shelf) == len(arrays)
    assert sorted(shelf) == sorted(arrays)
    assert sum(array.nbytes for array in shelf._held.values()) <= 4 * 1800 + 100
    for key, array in arrays.items():
        np.testing.assert_array_equal(shelf[key], array)
        assert shelf[key].dtype == array.dtype
    assert all(key in shelf for key in arrays)
    assert 12 not in shelf
