"""Colours in bins: what may be skin.

Here: tables by bin of CIELAB. Not here: hands, objects.
"""

from __future__ import annotations

import cv2
import numpy as np

_BINS = (16, 32, 32)
_STEP = tuple(256 // b for b in _BINS)


def bins_of(image: np.ndarray) -> np.ndarray:
    """(H, W) uint16 colour bin of each pixel of an RGB picture, in CIELAB."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lightness, a, b = (channel.astype(np.uint16) for channel in cv2.split(lab))
    lightness //= _STEP[0]
    lightness *= _BINS[1]
    a //= _STEP[1]
    lightness += a
    lightness *= _BINS[2]
    b //= _STEP[2]
    lightness += b
    return lightness


def looked_up(table: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """(H, W) values of a (bins,) table, float32 or bool, at the bins of a picture."""
    whole = np.zeros(2**16, np.uint8 if table.dtype == bool else table.dtype)
    whole[: len(table)] = table
    return cv2.LUT(bins, whole).view(table.dtype)


def skin_prior() -> np.ndarray:
    """(bins,) 0 to 1: how well a colour may be skin.

    Hue angle and chroma in CIELAB of measured skin lie in 20 to 80 degrees and 8 to 40 (Xiao et al.
    2017, from very light to very dark); shade and strong light widen both.
    """
    grid = np.meshgrid(
        *[(np.arange(n) + 0.5) * s for n, s in zip(_BINS, _STEP, strict=True)], indexing="ij"
    )
    lightness, a, b = grid[0] * 100 / 255, grid[1] - 128, grid[2] - 128
    chroma = np.hypot(a, b)
    hue = np.degrees(np.arctan2(b, a))
    likely = _ramp(hue, 5, 25) * _ramp(-hue, -95, -75)
    likely *= _ramp(chroma, 4, 9) * _ramp(-chroma, -60, -42)
    likely *= _ramp(lightness, 8, 16) * _ramp(-lightness, -99, -94)
    table: np.ndarray = likely.ravel().astype(np.float32)
    return table


def _ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((x - low) / (high - low), 0, 1)
