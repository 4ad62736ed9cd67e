"""Overlaps, suppression of doubles, assignment: against what can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ego_assets.masks.association import assign, box_overlaps, keepers, mask_overlaps
from ego_assets.vision.rle import mask_iou


def square(x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros((20, 30), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_overlaps_of_masks_are_those_of_each_pair() -> None:
    rng = np.random.default_rng(0)
    ones, others = rng.random((4, 20, 30)) > 0.5, rng.random((3, 20, 30)) > 0.7
    ones[2] = False
    found = mask_overlaps(ones, others)
    assert found.shape == (4, 3)
    for row, column in np.ndindex(4, 3):
        assert found[row, column] == pytest.approx(mask_iou(ones[row], others[column]), abs=1e-12)
    assert (found[2] == 0).all()


def test_overlaps_count_exactly_in_large_masks() -> None:
    """More pixels than the numbers that a float32 can count in."""
    large = np.ones((1, 4200, 4200), bool)
    other = large.copy()
    other[0, 0, 0] = False
    assert mask_overlaps(large, other)[0, 0] == (4200**2 - 1) / 4200**2


def test_overlaps_of_nothing() -> None:
    masks = np.zeros((2, 20, 30), bool)
    assert mask_overlaps(masks[:0], masks).shape == (0, 2)
    assert mask_overlaps(masks, masks[:0]).shape == (2, 0)
    assert (mask_overlaps(masks, masks) == 0).all()
    assert box_overlaps(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)
    assert box_overlaps(np.array([]), np.array([])).shape == (0, 0)


def test_overlaps_of_boxes() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6], [1, 1, 1, 1], [3, 3, 1, 1]])
    found = box_overlaps(boxes, boxes)
    assert found[0, 1] == found[1, 0] == pytest.approx(2 / 6)
    assert found[0, 0] == 1
    assert found[0, 2] == found[0, 3] == found[3, 3] == 0, "a box without area overlaps nothing"
    assert found[4, 4] == 0, "nor does one inside out"


def test_the_best_of_doubles_stays() -> None:
    masks = np.stack([square(0, 0, 10), square(1, 0, 10), square(15, 5, 10)])
    kept = keepers(np.array([0.5, 0.9, 0.4]), mask_overlaps(masks, masks), 0.5)
    assert kept.tolist() == [1, 1, 2]


def test_what_goes_does_not_take_others_along() -> None:
    """A overlaps B and B overlaps C: B goes, C stays."""
    masks = np.stack([square(0, 0, 10), square(4, 0, 10), square(8, 0, 10)])
    overlaps = mask_overlaps(masks, masks)
    assert overlaps[0, 1] == overlaps[1, 2] > 0.4
    assert overlaps[0, 2] < 0.2
    assert keepers(np.array([0.9, 0.8, 0.7]), overlaps, 0.4).tolist() == [0, 0, 2]


def test_the_one_that_overlaps_most_stands_for_a_double() -> None:
    overlaps = np.array([[1, 0.1, 0.5], [0.1, 1, 0.8], [0.5, 0.8, 1]])
    assert keepers(np.array([0.9, 0.8, 0.7]), overlaps, 0.3).tolist() == [0, 1, 1]


def test_equals_stay_in_order() -> None:
    assert keepers(np.array([0.5, 0.5]), np.ones((2, 2)), 0.5).tolist() == [0, 0]
    assert keepers(np.array([]), np.zeros((0, 0)), 0.5).tolist() == []


def test_overlap_at_the_limit_is_allowed() -> None:
    assert keepers(np.array([0.9, 0.8]), np.full((2, 2), 0.5), 0.5).tolist() == [0, 1]


def test_pairs_are_the_best_in_all() -> None:
    # Greedily, the first row would take the first column and leave little for the second.
    overlaps = np.array([[0.6, 0.5], [0.55, 0.0]])
    assert sorted(assign(overlaps, 0.1)) == [(0, 1), (1, 0)]


def test_pairs_need_some_overlap() -> None:
    assert assign(np.array([[0.05]]), 0.1) == []
    assert assign(np.array([[0.1]]), 0.1) == [(0, 0)]
    assert assign(np.zeros((2, 2)), 0.0) == []
    assert assign(np.zeros((0, 3)), 0.1) == []
