"""Small pictures and their colours: what frames are compared by before any of them is looked at.

Not here: what the comparison decides (`cuts`, `packets`).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

GLANCE_SIDE_PX = 127
"""Odd: its steps divide no usual width, so that fine patterns do not fall between them."""
_BINS = (12, 6, 6)


def glance(glancer: VideoReformatter, picture: Any) -> np.ndarray:
    """(h, w, 3) HSV of the nearest pixels on a coarse grid, not turned."""
    size = fit(picture.width, picture.height, GLANCE_SIDE_PX)
    small = glancer.reformat(picture, *size, "bgr24", interpolation="POINT", threads=1)
    return cv2.cvtColor(small.to_ndarray(), cv2.COLOR_BGR2HSV)


def fit(width: int, height: int, side: int) -> tuple[int, int]:
    """Size with a longer side of `side` pixels, or as it is if it is smaller."""
    factor = max(1.0, max(width, height) / side)
    return max(1, round(width / factor)), max(1, round(height / factor))


def histogram(hsv: np.ndarray) -> np.ndarray:
    """Share of the pixels in each bin of hue, saturation and value."""
    counts = cv2.calcHist([hsv], [0, 1, 2], None, list(_BINS), [0, 180, 0, 256, 0, 256]).ravel()
    return counts / max(float(counts.sum()), 1.0)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the pixels that changed their colour, 0 to 1."""
    return 0.5 * float(np.abs(one - other).sum())
