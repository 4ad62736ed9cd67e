"""Masks of one size at another, without the picture between: from small pixels to the counts of a
full-size mask, and from counts to small pixels.

Here: enlarging as linear interpolation does, shrinking to the nearest pixel and by area. Not here:
the coding of a mask (`rle`).

What a mask costs is its outline: the full-size picture, of which it covers a few per cent, is never
made. The pixels are those that `cv2.resize` would give of the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import cv2
import numpy as np

from ego_assets.vision import rle


@dataclass(frozen=True)
class CodedMask:
    """counts: COCO's; box: x_min, y_min, x_max, y_max that holds the pixels whole."""

    counts: bytes
    box: list[float]
    area: int


@dataclass(frozen=True)
class _Axis:
    """Where the pixels of the long side of an enlarging lie between those of the short one.

    lower: (L,) index of the pixel before; share: (L,) float32 of the pixel after it; start: (S,)
    the first long pixel that lies at or behind each short one; between: (S, R) shares of those
    from there on, NaN where the next short pixel's begin.
    """

    lower: np.ndarray
    share: np.ndarray
    start: np.ndarray
    between: np.ndarray


@lru_cache(maxsize=64)
def _axis(short: int, long: int) -> _Axis:
    place = (np.arange(long) + 0.5) * (1 / (long / short)) - 0.5
    lower = np.floor(place).astype(np.int64)
    share = np.where((lower < 0) | (lower >= short - 1), 0, place - lower).astype(np.float32)
    lower = np.clip(lower, 0, short - 1)
    start = np.searchsorted(lower, np.arange(short + 1))
    between = np.full((short, int(np.diff(start).max())), np.nan, np.float32)
    between[lower, np.arange(long) - start[lower]] = share
    return _Axis(lower, share, start, between)


def encode_enlarged(mask: np.ndarray, height: int, width: int) -> CodedMask | None:
    """A (h, w) bool mask enlarged to (height, width), its outline smooth; None if it is empty.

    As linear interpolation draws it, where more than half of it is inside.
    """
    size = height * width
    is_full = mask.shape == (height, width)
    flips = rle.flips_of(mask) if is_full else _enlarged(mask, height, width)
    box = rle.box_of(flips, height, width)
    if box is None:
        return None
    area = rle.area_of(flips, size)
    return CodedMask(rle.encode_flips(flips, size), [float(v) for v in box], area)


def _enlarged(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """(F,) flips of the enlarged mask: along each of its columns, found between two small pixels
    of which one is inside and one is not."""
    edges = rle.edges_of(mask)
    if edges is None:
        return np.zeros(0, np.int64)
    left, top, right, bottom = edges
    across, down = _axis(mask.shape[1], width), _axis(mask.shape[0], height)
    # A pixel more on each side, where the picture has one.
    first, last = max(left - 1, 0), min(right, mask.shape[1] - 1)
    upper, lower = max(top - 1, 0), min(bottom, mask.shape[0] - 1)
    small = np.ascontiguousarray(mask[upper : lower + 1, first : last + 1].T, np.float32)
    columns = np.arange(across.start[first], across.start[last + 1])
    before = across.lower[columns] - first
    after = np.minimum(before + 1, last - first)
    share = across.share[columns, None]
    soft = small[before] + (small[after] - small[before]) * share  # (columns, small rows)
    inside = soft > 0.5
    changes = np.flatnonzero(inside[:, 1:] != inside[:, :-1])
    column, row = np.divmod(changes, lower - upper) if len(changes) else (changes, changes)
    here, beyond = soft[column, row][:, None], soft[column, row + 1][:, None]
    shares = down.between[row + upper]
    is_still = ((here + (beyond - here) * shares > 0.5) == (here > 0.5)) & ~np.isnan(shares)
    steps = is_still.sum(axis=1)
    flips = columns[column] * height + down.start[row + upper] + steps
    # From the end of a column to the start of the next one.
    starts = inside[:, 0] if upper == 0 else np.zeros(len(columns), bool)
    ends = inside[:, -1] if lower == mask.shape[0] - 1 else np.zeros(len(columns), bool)
    bounds = np.flatnonzero(np.append(starts, False) != np.append(False, ends)) + columns[0]
    found = np.sort(np.concatenate([flips, bounds * height]))
    if (found[1:] == found[:-1]).any():
        # Two at one place are a tip so thin that no pixel of the large mask lies in it.
        found, times = np.unique(found, return_counts=True)
        found = found[times % 2 == 1]
    return found[:-1] if len(found) and found[-1] == height * width else found


def decode_nearest(
    counts: bytes | str, height: int, width: int, shape: tuple[int, int]
) -> np.ndarray:
    """(h, w) uint8 of `shape`: the nearest pixels of a (height, width) mask, 1 inside.

    Raises ValueError as `rle.decode_mask` does.
    """
    flips = rle.decode_flips(counts, height, width)
    rows, columns = _nearest(height, shape[0]), _nearest(width, shape[1])
    return rle.pixels_at(flips, height, columns, rows).view(np.uint8)


@lru_cache(maxsize=64)
def _nearest(long: int, short: int) -> np.ndarray:
    """(short,) which of `long` pixels cv2.INTER_NEAREST takes."""
    places: np.ndarray = np.floor(np.arange(short) * (1 / (short / long))).astype(np.int64)
    return places.clip(max=long - 1)


def decode_area(
    counts: bytes | str, height: int, width: int, shape: tuple[int, int], inside: int = 1
) -> np.ndarray:
    """(h, w) uint8 of `shape`: how much of each pixel a (height, width) mask covers, rounded, in
    parts of `inside`.

    Raises ValueError as `rle.decode_mask` does.
    """
    # Where a small pixel's edge falls on a full-size one's, a part is shrunk as the whole is.
    steps = [long // gcd(long, short) for long, short in zip((height, width), shape, strict=True)]
    crop = rle.decode_crop(counts, height, width, (steps[0], steps[1]))
    found = np.zeros(shape, np.uint8)
    if crop.pixels.size:
        down, across = shape[0] / height, shape[1] / width
        y, x = round(crop.top * down), round(crop.left * across)
        rows, columns = (
            round(n * by) for n, by in zip(crop.pixels.shape, (down, across), strict=True)
        )
        pixels = crop.pixels.view(np.uint8) * np.uint8(inside)
        part = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA)
        found[y : y + rows, x : x + columns] = part.reshape(rows, columns)
    return found
