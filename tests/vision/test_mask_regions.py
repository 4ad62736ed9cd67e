"""The union of hands and objects in a shrunken picture."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ego_assets.vision.mask_regions import MaskedThings
from ego_assets.vision.rle import encode_mask


def table(frame: int, rows: slice, columns: slice, shape: tuple[int, int] = (90, 160)) -> pa.Table:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    size = {"height_px": shape[0], "width_px": shape[1]}
    return pa.Table.from_pylist([{"frame_index": frame, "rle": encode_mask(mask)} | size])


def test_hands_and_objects_are_joined_and_grown() -> None:
    tables = {
        "hand_masks": table(7, slice(0, 20), slice(0, 20)),
        "object_masks": table(7, slice(60, 70), slice(100, 120)),
    }
    found = MaskedThings(tables, 3).forbidden(7, (45, 80))
    expected = np.zeros((45, 80), bool)
    expected[:13, :13] = True
    expected[27:38, 47:63] = True
    np.testing.assert_array_equal(found, expected)


def test_a_pixel_that_a_mask_only_touches_is_covered() -> None:
    found = MaskedThings({"hand_masks": table(0, slice(41, 42), slice(81, 82))}, 0)
    assert found.forbidden(0, (9, 16)) is not None
    assert found.forbidden(0, (9, 16))[4, 8]


def test_frames_and_tables_without_masks_forbid_nothing() -> None:
    assert MaskedThings({}, 3).forbidden(0, (9, 16)) is None
    tables = {"hand_masks": table(1, slice(0, 9), slice(0, 9))}
    assert MaskedThings(tables, 3).forbidden(0, (9, 16)) is None
