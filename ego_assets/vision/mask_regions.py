"""Regions of a picture that belong to hands and objects, from the rows of the mask tables.

Here: the union of a frame's masks, shrunk and grown. Not here: making masks (`segment`), the
coding of one mask (`rle`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ego_assets.vision.mask_scaling import decode_area


class MaskedThings:
    """What must not be tracked: hands and objects, grown, at the size of the shrunken picture."""

    def __init__(self, tables: Mapping[str, pa.Table], margin_px: int) -> None:
        self._margin_px = margin_px
        self._rows: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for name in ("hand_masks", "object_masks"):
            table = tables.get(name)
            if table is None:
                continue
            for row in table.select(["frame_index", "height_px", "width_px", "rle"]).to_pylist():
                self._rows[row["frame_index"]].append(row)

    def forbidden(self, frame_index: int, shape: tuple[int, int]) -> np.ndarray | None:
        """(H, W) bool for a picture of `shape` (height, width), or None where nothing is masked."""
        rows = self._rows.get(frame_index)
        if not rows:
            return None
        covered = np.zeros(shape, np.uint8)
        for row in rows:
            # A pixel that the mask touches at all counts.
            size = (row["height_px"], row["width_px"])
            covered[decode_area(row["rle"], *size, shape, inside=255) > 0] = 1
        if self._margin_px:
            side = 2 * self._margin_px + 1
            grown = cv2.dilate(covered, np.ones((side, side), np.uint8))
            return np.asarray(grown).astype(bool)
        return covered.astype(bool)
