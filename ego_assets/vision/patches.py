"""Masks and pictures of a clip as they are kept: each no larger than it must be.

Here: a mask as the bits of its box, arrays that go to a file when there are
too many. Not here: what the masks are of.

An operator that looks at a whole clip at once keeps hundreds of masks and pictures. A mask at work
size takes 130 kB as a picture and 2 kB as the bits of its box.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

import cv2
import numpy as np

from ego_assets.vision.rle import edges_of


@dataclass(frozen=True, eq=False, slots=True)
class Patch:
    """A mask of a picture of `shape` (height, width): the packed bits of its box.

    left, top, right, bottom: the box, the last two exclusive; all 0 of an empty mask. area: pixels
    inside.
    """

    bits: np.ndarray
    left: int
    top: int
    right: int
    bottom: int
    shape: tuple[int, int]
    area: int

    @classmethod
    def of(
        cls, mask: np.ndarray, at: tuple[int, int] = (0, 0), shape: tuple[int, int] | None = None
    ) -> Patch:
        """mask: (H, W) bool; or a part of a picture of `shape` that begins `at` (left, top)."""
        whole = (mask.shape[0], mask.shape[1]) if shape is None else shape
        edges = edges_of(mask)
        if edges is None:
            return cls(np.zeros(0, np.uint8), 0, 0, 0, 0, whole, 0)
        x0, y0, x1, y1 = edges
        pixels = mask[y0:y1, x0:x1]
        left, top = at
        return cls(
            np.packbits(pixels),
            x0 + left,
            y0 + top,
            x1 + left,
            y1 + top,
            whole,
            int(np.count_nonzero(pixels)),
        )

    @property
    def box(self) -> list[float]:
        """x_min, y_min, x_max, y_max that holds the pixels whole."""
        return [float(v) for v in (self.left, self.top, self.right, self.bottom)]

    def pixels(self) -> np.ndarray:
        """(h, w) bool: those in the box."""
        height, width = self.bottom - self.top, self.right - self.left
        flat = np.unpackbits(self.bits, count=height * width)
        return flat.reshape(height, width).view(bool)

    def whole(self) -> np.ndarray:
        """(H, W) bool: the mask."""
        mask = np.zeros(self.shape, bool)
        mask[self.top : self.bottom, self.left : self.right] = self.pixels()
        return mask

    def window(self, margin: int) -> tuple[slice, slice]:
        """The box and so many pixels around it, as far as the picture goes: rows, columns."""
        height, width = self.shape
        return (
            slice(max(0, self.top - margin), min(height, self.bottom + margin)),
            slice(max(0, self.left - margin), min(width, self.right + margin)),
        )

    def within(self, window: tuple[slice, slice]) -> np.ndarray:
        """(h, w) bool: the mask in a window of its picture."""
        rows, columns = window
        found = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        y0, y1 = max(self.top, rows.start), min(self.bottom, rows.stop)
        x0, x1 = max(self.left, columns.start), min(self.right, columns.stop)
        if y0 < y1 and x0 < x1:
            part = self.pixels()[y0 - self.top : y1 - self.top, x0 - self.left : x1 - self.left]
            found[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = part
        return found

    def grown(self, size: int, window: tuple[slice, slice]) -> np.ndarray:
        """(h, w) bool: the mask in a window of its picture, grown by half of `size` pixels."""
        rows, columns = window
        found = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        near = self.window(size // 2)
        y0, y1 = max(near[0].start, rows.start), min(near[0].stop, rows.stop)
        x0, x1 = max(near[1].start, columns.start), min(near[1].stop, columns.stop)
        if self.area and y0 < y1 and x0 < x1:
            part = self.within(near).view(np.uint8)
            part = cv2.dilate(part, np.ones((size, size), np.uint8)).view(bool)
            y, x = near[0].start, near[1].start
            found[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = (
                part[y0 - y : y1 - y, x0 - x : x1 - x]
            )
        return found

    def overlap(self, other: Patch) -> int:
        """Pixels that both have."""
        y0, y1 = max(self.top, other.top), min(self.bottom, other.bottom)
        x0, x1 = max(self.left, other.left), min(self.right, other.right)
        if y0 >= y1 or x0 >= x1:
            return 0
        window = slice(y0, y1), slice(x0, x1)
        return int(np.count_nonzero(self.within(window) & other.within(window)))

    def iou(self, other: Patch) -> float:
        """Intersection over union; 0 when both are empty."""
        both = self.overlap(other)
        union = self.area + other.area - both
        return both / union if union else 0.0

    def moved(self, right: float, down: float) -> Patch:
        """The same pixels so many further right and down, rounded; what leaves the picture is cut
        off."""
        x, y = round(right), round(down)
        height, width = self.shape
        left, top = max(0, self.left + x), max(0, self.top + y)
        end, bottom = min(width, self.right + x), min(height, self.bottom + y)
        if left >= end or top >= bottom:
            return Patch.of(np.zeros((0, 0), bool), shape=self.shape)
        pixels = self.within((slice(top - y, bottom - y), slice(left - x, end - x)))
        return Patch.of(pixels, (left, top), self.shape)

    def joined(self, other: Patch) -> Patch:
        """The pixels of either."""
        return Patch.of(self.whole() | other.whole())


class Shelf(Mapping[Any, np.ndarray]):
    """Arrays by key; what does not fit into `limit` bytes lies in a temporary file without a name,
    which is gone with this process at the latest. Several threads may read at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[Any, np.ndarray] = {}
        self._filed: dict[Any, tuple[int, tuple[int, ...], np.dtype]] = {}
        self._end = 0

    @cached_property
    def _file(self) -> BinaryIO:
        return tempfile.TemporaryFile(prefix="ego-frames-", buffering=0)

    def __setitem__(self, key: Any, array: np.ndarray) -> None:
        if array.nbytes <= self._limit:
            self._limit -= array.nbytes
            self._held[key] = array
            return
        plain = np.ascontiguousarray(array)
        self._filed[key] = (self._end, plain.shape, plain.dtype)
        left = plain.data.cast("B")
        while left:
            written = os.pwrite(self._file.fileno(), left, self._end)
            left, self._end = left[written:], self._end + written

    def __getitem__(self, key: Any) -> np.ndarray:
        if key in self._held:
            return self._held[key]
        start, shape, dtype = self._filed[key]
        array = np.empty(shape, dtype)
        left = array.data.cast("B")
        while left:
            found = os.preadv(self._file.fileno(), [left], start)
            if not found:
                raise OSError("the temporary file of a clip's pictures was cut short")
            left, start = left[found:], start + found
        return array

    def __contains__(self, key: object) -> bool:
        return key in self._held or key in self._filed  # without reading it

    def __iter__(self) -> Iterator[Any]:
        yield from self._held
        yield from self._filed

    def __len__(self) -> int:
        return len(self._held) + len(self._filed)
