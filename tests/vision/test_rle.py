"""The run-length code is COCO's, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco

from ego_assets.vision.rle import decode_mask, encode_mask, mask_box, mask_iou


def masks():
    rng = np.random.default_rng(7)
    yield np.zeros((5, 7), bool)
    yield np.ones((5, 7), bool)
    yield np.ones((1, 1), bool)
    yield np.eye(9, dtype=bool)
    for corner in [(0, 0), (0, -1), (-1, 0), (-1, -1)]:
        one = np.zeros((6, 4), bool)
        one[corner] = True
        yield one
    for shape in [(18, 32), (97, 61), (1, 40), (40, 1)]:
        for share in (0.02, 0.5, 0.98):
            yield rng.random(shape) < share
    big = np.zeros((1080, 1920), bool)
    yy, xx = np.mgrid[:1080, :1920]
    big[(yy - 700) ** 2 + (xx - 900) ** 2 < 300**2] = True
    yield big
    full_height = np.zeros((33, 50), bool)
    full_height[:, 10:20] = True
    yield full_height


@pytest.mark.parametrize("mask", list(masks()), ids=lambda m: f"{m.shape}-{int(m.sum())}")
def test_equals_pycocotools_byte_for_byte(mask):
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = encode_mask(mask)
    assert ours == theirs["counts"]
    assert np.array_equal(decode_mask(ours, *mask.shape), mask)


def test_damaged_counts_and_wrong_sizes_are_refused():
    counts = encode_mask(np.eye(9, dtype=bool))
    with pytest.raises(ValueError, match="9 x 8"):
        decode_mask(counts, 9, 8)
    with pytest.raises(ValueError, match="not COCO"):
        decode_mask(b"\x00\xff", 9, 9)
    with pytest.raises(ValueError, match="shape"):
        encode_mask(np.zeros((3, 3, 3), bool))


def test_box_and_iou():
    mask = np.zeros((10, 20), bool)
    mask[2:5, 4:9] = True
    assert mask_box(mask) == [4.0, 2.0, 9.0, 5.0]
    assert mask_box(np.zeros((3, 3), bool)) is None
    other = np.zeros_like(mask)
    other[2:5, 4:14] = True
    assert mask_iou(mask, other) == pytest.approx(0.5)
    assert mask_iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 0.0
