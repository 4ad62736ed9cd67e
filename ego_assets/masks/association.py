"""Which detections are the same thing, and which track each one continues.

Here: overlaps, suppression of doubles, assignment; pure functions of arrays. Not here: how masks
and boxes are found.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def mask_overlaps(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M) intersection over union of (N, H, W) and (M, H, W) bool masks; 0 for empty ones."""
    if not len(ones) or not len(others):
        return np.zeros((len(ones), len(others)))
    first, second = (np.packbits(m.reshape(len(m), -1), axis=1) for m in (ones, others))
    areas = [np.bitwise_count(m).sum(-1, dtype=np.int64) for m in (first, second)]
    both = np.zeros((len(first), len(second)), np.int64)
    for row, mask in enumerate(first):
        both[row] = np.bitwise_count(mask & second).sum(-1, dtype=np.int64)
    overlaps: np.ndarray = both / np.maximum(areas[0][:, None] + areas[1] - both, 1)
    return overlaps


def box_iou(ones: ArrayLike, others: ArrayLike) -> np.ndarray:
    """Intersection over union of boxes x_min, y_min, x_max, y_max, (..., 4), which are broadcast; 0
    for those without area."""
    first, second = np.asarray(ones, np.float64), np.asarray(others, np.float64)
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(b[..., 2:] - b[..., :2], 0, None).prod(-1) for b in (first, second)]
    union = areas[0] + areas[1] - both
    found: np.ndarray = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return found


def box_overlaps(ones: ArrayLike, others: ArrayLike) -> np.ndarray:
    """(N, M) intersection over union of boxes (N, 4) and (M, 4)."""
    first = np.asarray(ones, np.float64).reshape(-1, 1, 4)
    return box_iou(first, np.asarray(others, np.float64).reshape(1, -1, 4))


def keepers(scores: np.ndarray, overlaps: np.ndarray, max_overlap: float) -> np.ndarray:
    """(N,) which detection stands for each one: itself, or a better one that overlaps it.

    Greedy non-maximum suppression. scores: (N,); overlaps: (N, N). A detection goes if it
    overlaps a kept one by more than `max_overlap`; of several kept ones, the one that it overlaps
    most stands for it. Of equals, the earlier one stays.
    """
    found = np.full(len(scores), -1)
    kept: list[int] = []
    for index in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        rivals = [k for k in kept if overlaps[index, k] > max_overlap]
        if rivals:
            found[index] = max(rivals, key=lambda k: overlaps[index, k])
        else:
            found[index] = index
            kept.append(int(index))
    return found


def assign(overlaps: np.ndarray, min_overlap: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of an (N, M) matrix, each used once, of the most overlap in all.

    Pairs under `min_overlap`, or without any, are none (Kuhn, "The Hungarian Method", 1955).
    """
    from scipy.optimize import linear_sum_assignment

    allowed = (overlaps >= min_overlap) & (overlaps > 0)
    rows, columns = linear_sum_assignment(-np.where(allowed, overlaps, 0))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if allowed[r, c]]
