"""COCO compressed run-length encoding of masks, byte for byte what pycocotools writes.

Here: encode, decode, area, box and intersection-over-union of single masks. Not here: masks of one
size at another (`mask_scaling`), anything that makes a mask, or the rows that hold one.

Source of the format: the COCO API's `maskApi.c` (`rleEncode`, `rleToString`, `rleFrString`).
Runs go down the columns (column-major), the first run is of zeros; from the third run on the
difference to the run two before is stored, in groups of five bits, lowest first, as characters
from 48 ("0") up, bit 5 saying that more groups follow.

Inside this package a mask that is being coded is its `flips`: the ascending positions, in
column-major order, at which it changes between outside and inside, beginning outside. They cost as
much as the outline is long, whatever the size of the picture. pycocotools, which writes the counts,
only makes runs out of whole pictures, and whole pictures out of counts:
`benchmarks/mask_encoding.py` compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco

try:
    import cv2
except ImportError:  # to read a lake takes no OpenCV; whole pictures then cost some ms more
    cv2 = None  # type: ignore[assignment]


@dataclass(frozen=True)
class MaskCrop:
    """The part of a mask that holds all of its pixels, (h, w) bool, of a picture of `shape`."""

    pixels: np.ndarray
    left: int
    top: int
    shape: tuple[int, int]

    @classmethod
    def of(cls, mask: np.ndarray) -> MaskCrop:
        """mask: (H, W) bool."""
        left, top, right, bottom = edges_of(mask) or (0, 0, 0, 0)
        pixels = np.ascontiguousarray(mask[top:bottom, left:right])
        return cls(pixels, left, top, (mask.shape[0], mask.shape[1]))


_NO_FLIPS = np.zeros(0, np.int64)


def encode_mask(mask: np.ndarray) -> bytes:
    """COCO counts of a mask.

    mask: (H, W) bool or integer, nonzero is inside. Returns the compressed counts; the size
    (H, W) is not in them. Raises ValueError unless `mask` has two dimensions and some pixels.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"encode_mask: a mask of shape {mask.shape}; give a non-empty (H, W)")
    return encode_flips(flips_of(mask), mask.size)


def decode_mask(counts: bytes | str, height: int, width: int) -> np.ndarray:
    """(height, width) bool mask of COCO counts. Raises ValueError if they do not fill it."""
    mask = np.zeros((height, width), bool)
    crop = decode_crop(counts, height, width)
    rows, columns = crop.pixels.shape
    mask[crop.top : crop.top + rows, crop.left : crop.left + columns] = crop.pixels
    return mask


def decode_crop(
    counts: bytes | str, height: int, width: int, steps: tuple[int, int] = (1, 1)
) -> MaskCrop:
    """The part of a (height, width) mask that holds all of its pixels.

    steps: (rows, columns) of which the crop's edges are multiples, unless they are the picture's.
    Raises ValueError as `decode_mask` does.
    """
    flips = decode_flips(counts, height, width)
    box = box_of(flips, height, width)
    if box is None:
        return MaskCrop(np.zeros((0, 0), bool), 0, 0, (height, width))
    left, top, right, bottom = box
    rows, columns = steps
    left, top = left // columns * columns, top // rows * rows
    right = min(-(-right // columns) * columns, width)
    bottom = min(-(-bottom // rows) * rows, height)
    if bottom - top == height:
        place = flips - left * height
    else:  # no flip lies above the crop, and those below it begin its next column
        column, row = np.divmod(flips, height)
        place = (column - left) * (bottom - top) + np.clip(row - top, 0, bottom - top)
    pixels = _filled(place, bottom - top, right - left)
    return MaskCrop(pixels, left, top, (height, width))


def pixels_at(flips: np.ndarray, height: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(R, C) bool: the pixels of a mask at (R,) rows and (C,) columns, each ascending, none twice.

    The pixels in between are skipped, not decoded.
    """
    if not len(flips) or not len(columns) or not len(rows):
        return np.zeros((len(rows), len(columns)), bool)
    column, row = np.divmod(flips, height)
    # How many of the chosen pixels lie before each flip, column by column.
    before = np.searchsorted(columns, column)
    is_chosen = columns[np.minimum(before, len(columns) - 1)] == column
    place = before * len(rows) + np.where(is_chosen, np.searchsorted(rows, row), 0)
    return _filled(place, len(rows), len(columns))


def _filled(flips: np.ndarray, height: int, width: int) -> np.ndarray:
    runs = np.diff(flips, prepend=0, append=height * width)
    values = np.zeros(len(runs), np.uint8)
    values[1::2] = 1
    columns = np.repeat(values, runs).reshape(width, height)
    return _transposed(columns).reshape(height, width).view(bool)


def _transposed(pixels: np.ndarray) -> np.ndarray:
    """The (H, W) uint8 pixels as (W, H), contiguous. OpenCV does it several times faster."""
    return np.ascontiguousarray(pixels.T) if cv2 is None else cv2.transpose(pixels)


def mask_contains(counts: bytes, height: int, width: int, points: np.ndarray) -> np.ndarray:
    """(N,) whether the pixels that (N, 2) points x, y lie on are in the mask, without decoding it.

    Points outside of the picture are not.
    """
    x, y = np.floor(np.asarray(points, np.float64) + 0.5).T
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    place = np.where(is_inside, x * height + y, 0).astype(np.int64)
    # Runs alternate, zeros first: a pixel is in the mask if an odd number of runs end before it.
    ended = np.searchsorted(np.cumsum(_unpack(counts)), place, side="right")
    found: np.ndarray = is_inside & (ended % 2 == 1)
    return found


def mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two (H, W) bool masks; 0 when both are empty."""
    union = int(np.count_nonzero(one | other))
    return int(np.count_nonzero(one & other)) / union if union else 0.0


def mask_box(mask: np.ndarray) -> list[float] | None:
    """Box x_min, y_min, x_max, y_max that holds the (H, W) mask's pixels whole; None if empty."""
    edges = edges_of(mask)
    return None if edges is None else [float(v) for v in edges]


def edges_of(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """left, top, right, bottom of the pixels of a (H, W) mask, the last two exclusive."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    return int(columns[0]), top, int(columns[-1]) + 1, bottom


# -- flips -------------------------------------------------------------------------------------


def flips_of(mask: np.ndarray) -> np.ndarray:
    """(F,) flips of a (H, W) mask, bool or integer."""
    edges = edges_of(mask)
    if edges is None:
        return _NO_FLIPS
    left, top, right, bottom = edges
    height = len(mask)
    crop: np.ndarray = np.ascontiguousarray(mask[top:bottom, left:right])
    crop = crop.view(np.uint8) if crop.dtype == bool else (crop != 0).view(np.uint8)
    is_whole_columns = bottom - top == height
    if not is_whole_columns:  # a row outside stands for all those between two columns
        crop = np.concatenate([crop, np.zeros((1, crop.shape[1]), np.uint8)])
    flat = _transposed(crop).reshape(-1)
    found = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    before, after = [0] if flat[0] else [], [len(flat)] if flat[-1] else []
    found = np.concatenate([before, found, after]).astype(np.int64)
    if is_whole_columns:
        flips = found + left * height
    else:
        column, row = np.divmod(found, len(crop))
        flips = (column + left) * height + row + top
    return flips[:-1] if flips[-1] == mask.size else flips


def box_of(flips: np.ndarray, height: int, width: int) -> tuple[int, int, int, int] | None:
    """left, top, right, bottom of a (height, width) mask, the last two exclusive; None if empty."""
    if not len(flips):
        return None
    starts, ends = flips[::2], flips[1::2]
    if len(ends) < len(starts):
        ends = np.append(ends, height * width)
    first_column, first_row = np.divmod(starts, height)
    last_column, last_row = np.divmod(ends - 1, height)
    left, right = int(first_column[0]), int(last_column[-1]) + 1
    if (first_column != last_column).any():  # from one column into the next
        return left, 0, right, height
    return left, int(first_row.min()), right, int(last_row.max()) + 1


def area_of(flips: np.ndarray, size: int) -> int:
    """Pixels inside a mask of `size` pixels."""
    ends = int(flips[1::2].sum()) + (size if len(flips) % 2 else 0)
    return ends - int(flips[::2].sum())


def encode_flips(flips: np.ndarray, size: int) -> bytes:
    """COCO counts of a mask of `size` pixels."""
    runs = np.diff(flips, prepend=0, append=size)
    # The library wants the size of the picture, but looks only at the runs.
    counts: bytes = coco.frPyObjects([{"counts": runs, "size": [size, 1]}], size, 1)[0]["counts"]
    return counts


def decode_flips(counts: bytes | str, height: int, width: int) -> np.ndarray:
    """(F,) flips of COCO counts. Raises ValueError if they do not fill (height, width)."""
    runs = _unpack(counts.encode("ascii") if isinstance(counts, str) else counts)
    flips = np.cumsum(runs)
    total = int(flips[-1]) if len(flips) else 0
    if total != height * width or (runs < 0).any():
        raise ValueError(
            f"decode_mask: the runs cover {total} pixels, a mask of {height} x {width} has "
            f"{height * width}; check the size that belongs to these counts"
        )
    return flips[:-1]


def _unpack(counts: bytes) -> np.ndarray:
    codes = np.frombuffer(counts, dtype=np.uint8)
    if not len(codes):
        return np.zeros(0, dtype=np.int64)
    if codes.min() < 48 or codes.max() > 48 + 63 or (codes[-1] - 48) & 32:
        raise ValueError("decode_mask: the counts are not COCO's compressed form or are cut off")
    codes = codes - np.uint8(48)
    ends = np.flatnonzero((codes & 32) == 0)
    place = np.concatenate([[0], ends[:-1] + 1])
    count = ends - place + 1
    if count.max() > 12:
        raise ValueError("decode_mask: a run has more than 60 bits: the counts are damaged")
    runs = np.zeros(len(ends), np.int64)
    left = np.arange(len(ends))
    for shift in range(0, 60, 5):
        runs[left] += (codes[place[left]] & 31).astype(np.int64) << shift
        left = left[count[left] * 5 > shift + 5]
        if not len(left):
            break
        place[left] += 1
    is_negative = (codes[ends] & 16) != 0
    runs[is_negative] -= np.int64(1) << 5 * count[is_negative]
    # Undo the differences: two interleaved running sums; runs 0, 1 and 2 stand as they are.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
