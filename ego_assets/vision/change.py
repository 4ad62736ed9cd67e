"""How much the picture of a camera changes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


def picture_change(pictures: Sequence[np.ndarray]) -> float:
    """How much pictures (H, W, 3) uint8 of one camera change, grey levels.

    The median over the pixels keeps hands and objects out of it, blurring the noise, the mean
    brightness a changing exposure. The largest change since the first picture counts.
    """
    small = [
        cv2.GaussianBlur(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.5)
        for p in pictures
    ]
    flat = [s - s.mean() for s in small]
    return max((float(np.median(np.abs(f - flat[0]))) for f in flat[1:]), default=0.0)
