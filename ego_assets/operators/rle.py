"""COCO compressed run-length encoding of masks, byte for byte what pycocotools writes.

Here: encode, decode, area and intersection-over-union of single masks. Not here: anything that
makes a mask, or the rows that hold one.

Source of the format: the COCO API's `maskApi.c` (`rleEncode`, `rleToString`, `rleFrString`).
Runs go down the columns (column-major), the first run is of zeros; from the third run on the
difference to the run two before is stored, in groups of five bits, lowest first, as characters
from 48 ("0") up, bit 5 saying that more groups follow.
"""

from __future__ import annotations

import cv2
import numpy as np

_GROUPS = 7  # 7 groups of 5 bits hold a signed run difference of a picture up to 2**34 pixels


def encode_mask(mask: np.ndarray) -> bytes:
    """COCO counts of a mask.

    mask: (H, W) bool or integer, nonzero is inside. Returns the compressed counts; the size
    (H, W) is not in them. Raises ValueError unless `mask` has two dimensions and some pixels.
    """
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"encode_mask: a mask of shape {mask.shape}; give a non-empty (H, W)")
    return _pack(_runs(mask))


def decode_mask(counts: bytes | str, height: int, width: int) -> np.ndarray:
    """(height, width) bool mask of COCO counts. Raises ValueError if they do not fill it."""
    runs = _unpack(counts.encode("ascii") if isinstance(counts, str) else counts)
    total = int(runs.sum())
    if total != height * width or (runs < 0).any():
        raise ValueError(
            f"decode_mask: the runs cover {total} pixels, a mask of {height} x {width} has "
            f"{height * width}; check the size that belongs to these counts"
        )
    values = np.zeros(len(runs), dtype=np.uint8)
    values[1::2] = 1
    columns = np.repeat(values, runs).reshape(width, height)
    return np.ascontiguousarray(cv2.transpose(columns)).view(bool).reshape(height, width)


def mask_area(counts: bytes) -> int:
    """Pixels inside the mask, without decoding it."""
    return int(_unpack(counts)[1::2].sum())


def mask_contains(counts: bytes, height: int, width: int, points: np.ndarray) -> np.ndarray:
    """(N,) whether the pixels that (N, 2) points x, y lie on are in the mask, without decoding it.

    Points outside of the picture are not.
    """
    x, y = np.floor(np.asarray(points, np.float64) + 0.5).T
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    place = np.where(is_inside, x * height + y, 0).astype(np.int64)
    # Runs alternate, zeros first: a pixel is in the mask if an odd number of runs end before it.
    ended = np.searchsorted(np.cumsum(_unpack(counts)), place, side="right")
    return is_inside & (ended % 2 == 1)


def mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two (H, W) bool masks; 0 when both are empty."""
    union = int(np.count_nonzero(one | other))
    return int(np.count_nonzero(one & other)) / union if union else 0.0


def mask_box(mask: np.ndarray) -> list[float] | None:
    """Box x_min, y_min, x_max, y_max that holds the (H, W) mask's pixels whole; None if empty."""
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return None
    x0, x1 = int(columns[0]), int(columns[-1]) + 1
    rows = np.flatnonzero(mask[:, x0:x1].any(axis=1))
    return [float(x0), float(rows[0]), float(x1), float(rows[-1] + 1)]


def _runs(mask: np.ndarray) -> np.ndarray:
    """Run lengths down the columns, beginning with zeros (maybe none)."""
    height, width = mask.shape
    flags = mask.view(np.uint8) if mask.dtype == bool else (mask != 0).view(np.uint8)
    used = np.flatnonzero(cv2.reduce(np.ascontiguousarray(flags), 0, cv2.REDUCE_MAX)[0])
    if not len(used):
        return np.array([height * width], dtype=np.int64)
    x0, x1 = int(used[0]), int(used[-1]) + 1
    # Only the columns in use are turned: turning is what costs time.
    flat = cv2.transpose(np.ascontiguousarray(flags[:, x0:x1])).reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    before, after = x0 * height, (width - x1) * height
    bounds = [0] if flat[0] == 0 else [0, before]
    inner = edges + before
    # A mask that ends in its last column's last pixel runs into the zeros of the next column.
    tail = [before + len(flat)] if flat[-1] else []
    if tail and after == 0:
        tail = []
    ends = [height * width]
    return np.diff(np.concatenate([bounds, inner, tail, ends]).astype(np.int64))


def _pack(runs: np.ndarray) -> bytes:
    values = runs.copy()
    values[3:] -= runs[1:-2]
    shifts = np.arange(_GROUPS, dtype=np.int64) * 5
    rest = values[:, None] >> shifts[None, :]
    groups = rest & 31
    after = rest >> 5
    # A group is the last when what is left is only its own sign.
    last = np.where(groups & 16, after == -1, after == 0)
    count = last.argmax(axis=1)
    used = np.arange(_GROUPS)[None, :] <= count[:, None]
    more = np.arange(_GROUPS)[None, :] < count[:, None]
    return ((groups | (more << 5)) + 48)[used].astype(np.uint8).tobytes()


def _unpack(counts: bytes) -> np.ndarray:
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not len(codes):
        return np.zeros(0, dtype=np.int64)
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("decode_mask: the counts are not COCO's compressed form or are cut off")
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    position = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if position.max() >= 12:
        raise ValueError("decode_mask: a run has more than 60 bits: the counts are damaged")
    values = np.add.reduceat((codes & 31) << (5 * position), starts)
    negative = (codes[ends] & 16) != 0
    values = values - np.where(negative, np.int64(1) << (5 * (position[ends] + 1)), 0)
    # Undo the differences: two interleaved running sums; runs 0, 1 and 2 stand as they are.
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    if len(runs) > 2:
        runs[2::2] = np.cumsum(values[2::2])
    return runs
