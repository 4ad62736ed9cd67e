"""Frames with empty hands are told from the annotations, and what is said to be held from masks."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.real_objects import frames_with_empty_hands, says_held
from ego_assets.vision.rle import encode_mask


def row(x: int, y: int) -> dict[str, Any]:
    mask = np.zeros((80, 100), bool)
    mask[y : y + 20, x : x + 20] = True
    return {"height_px": 80, "width_px": 100, "area_px": 400, "rle": encode_mask(mask)}


def test_an_object_beside_a_hand_is_held_and_one_further_off_is_not() -> None:
    assert says_held([row(31, 10)], [row(10, 10)])
    assert not says_held([row(60, 10)], [row(10, 10)])
    assert not says_held([row(31, 10)], [])


def test_hands_are_empty_where_no_human_hand_touches_anything() -> None:
    def frame(index: int, *, complete: bool = True, **touch: bool) -> dict[str, Any]:
        objects = [{"touched": False, "by_robot": False} | touch]
        return {"frame_index": index, "complete": complete, "objects": objects}

    entry = {
        "frames": [
            frame(0),
            frame(1, touched=True),
            frame(2, touched=True, by_robot=True),
            frame(3, complete=False),
        ]
    }
    assert frames_with_empty_hands(entry) == [0, 2]
