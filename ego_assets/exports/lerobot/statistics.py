"""Statistics that policies normalise by: of one episode, and of all rows of a data set.

Means and spreads are merged by the parallel formula in float64, never as sums of squares. Quantiles
of the whole are those of its rows, not averages of the episodes' own: exact up to `SAMPLED_VALUES`
numbers, from as many rows chosen evenly above that. Pictures are counted in 256 bins a channel,
which add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)
SAMPLED_VALUES = 32_000_000
SAMPLED_ROWS = 20_000
"""So many rows at least, however many columns there are."""
MAX_PICTURES = 100
LOOKED_AT_PX = 150
"""Longer side of what is counted of a picture."""

Stats = dict[str, Any]


def of_rows(values: np.ndarray) -> Stats:
    """Statistics of (T, n) numbers."""
    rows = values.astype(np.float64)
    found: Stats = {
        "min": rows.min(axis=0).tolist(),
        "max": rows.max(axis=0).tolist(),
        "mean": rows.mean(axis=0).tolist(),
        "std": rows.std(axis=0).tolist(),
        "count": [len(rows)],
    }
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return found | {name: q.tolist() for name, q in zip(QUANTILES, quantiles, strict=True)}


class PictureCounter:
    """Counts the values of up to 100 pictures of an episode, spread evenly, as they pass."""

    def __init__(self, ticks: int) -> None:
        chosen = np.linspace(0, ticks - 1, min(ticks, MAX_PICTURES))
        self._chosen = set(np.round(chosen).astype(int).tolist())
        self.bins = np.zeros((3, 256), np.int64)
        self.pictures = len(self._chosen)

    def watch(self, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Hand on the pictures."""
        for tick, picture in enumerate(pictures):
            if tick in self._chosen:
                step = max(1, max(picture.shape[:2]) // LOOKED_AT_PX)
                small = picture[::step, ::step]
                for channel in range(3):
                    self.bins[channel] += np.bincount(small[..., channel].ravel(), minlength=256)
            yield picture


def of_pictures(bins: np.ndarray, pictures: int) -> Stats:
    """Statistics of (3, 256) counts, of values between 0 and 1, as (3, 1, 1)."""
    values = np.arange(256) / 255
    totals = bins.sum(axis=1, keepdims=True)
    mean = (bins * values).sum(axis=1, keepdims=True) / totals
    variance = (bins * (values - mean) ** 2).sum(axis=1, keepdims=True) / totals
    sums = bins.cumsum(axis=1)

    def at(share: float) -> np.ndarray:
        return np.asarray(values[(sums > share * (totals - 1)).argmax(axis=1)])

    rows = {"min": at(0.0), "max": at(1.0), "mean": mean[:, 0], "std": np.sqrt(variance[:, 0])}
    rows |= {name: at(share) for name, share in QUANTILES.items()}
    shaped: Stats = {name: row.reshape(3, 1, 1).tolist() for name, row in rows.items()}
    return shaped | {"count": [pictures]}


class Aggregate:
    """Statistics of all rows of a data set, which pass once, file by file."""

    def __init__(self, rows: int, widths: Mapping[str, int]) -> None:
        limit = max(SAMPLED_ROWS, SAMPLED_VALUES // max(1, sum(widths.values())))
        self._step = -(-rows // limit)
        self._random = np.random.default_rng(0)
        self._seen = 0
        self._moments: dict[str, tuple[int, np.ndarray, np.ndarray]] = {}
        self._ends: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._sample: dict[str, list[np.ndarray]] = {key: [] for key in widths}

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take in rows: {key: (T, n)}."""
        count = len(next(iter(columns.values())))
        chosen = self._choose(count)
        for key, values in columns.items():
            rows = values.astype(np.float64)
            self._sample[key].append(rows[chosen])
            mean = rows.mean(axis=0)
            squares = ((rows - mean) ** 2).sum(axis=0)
            low, high = rows.min(axis=0), rows.max(axis=0)
            if key in self._moments:
                before, mean_before, squares_before = self._moments[key]
                apart = mean - mean_before
                total = before + count
                mean = mean_before + apart * (count / total)
                squares = squares_before + squares + apart**2 * (before * count / total)
                low = np.minimum(low, self._ends[key][0])
                high = np.maximum(high, self._ends[key][1])
            self._moments[key] = (self._seen + count, mean, squares)
            self._ends[key] = (low, high)
        self._seen += count

    def result(self) -> dict[str, Stats]:
        found: dict[str, Stats] = {}
        for key, (count, mean, squares) in self._moments.items():
            low, high = self._ends[key]
            sample = np.concatenate(self._sample[key])
            quantiles = np.quantile(sample, list(QUANTILES.values()), axis=0)
            found[key] = {
                "min": low.tolist(),
                "max": high.tolist(),
                "mean": mean.tolist(),
                "std": np.sqrt(squares / count).tolist(),
                "count": [count],
            } | {name: q.tolist() for name, q in zip(QUANTILES, quantiles, strict=True)}
        return found

    def _choose(self, count: int) -> np.ndarray:
        """Of every `step` rows one, at random: no rhythm of the data may meet that of the step."""
        first = -(-self._seen // self._step)
        blocks = np.arange(first, -(-(self._seen + count) // self._step))
        if self._step == 1:
            return np.arange(count)
        starts = blocks * self._step - self._seen
        chosen = starts + self._random.integers(0, self._step, len(starts))
        return np.asarray(np.minimum(chosen, count - 1))
