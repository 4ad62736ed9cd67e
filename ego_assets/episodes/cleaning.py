"""Cleans trajectories: rejects outliers, fills short gaps, takes jitter out without lag.

Positions are filled by a monotone cubic (PCHIP; Fritsch and Carlson, 1980), which does not
overshoot, rotations by SLERP (Shoemake, 1985). Jitter is taken out by a parabola fitted to the
frames around each (as Savitzky and Golay, 1964, with the true times), which has no lag. Here:
arrays over the frames of an episode. Not here: tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ego_assets.arrays import runs_of_true

MEASURED, SMOOTHED, FILLED, ABSENT = range(4)
"""Where a frame's pose comes from."""
HOLE = 3.0
"""Frames that are further apart than this many usual distances are no neighbours."""
_NEIGHBOURS = 7
_ROBUST = 1.4826
"""A standard deviation over the median absolute deviation, of normal noise."""


@dataclass(frozen=True)
class CleanPath:
    """A rigid frame's path, and of points in that frame.

    origin: (N,); position: (N, 3), xyzw: (N, 4), local: (N, P, 3), NaN where absent; rejected:
    how many measured frames were outliers; before, after: jitter in mm/frame², NaN without any.
    """

    origin: np.ndarray
    position: np.ndarray
    xyzw: np.ndarray
    local: np.ndarray
    rejected: int
    before_mm: float
    after_mm: float


def clean(
    pts_s: np.ndarray,
    track: np.ndarray,
    position: np.ndarray,
    xyzw: np.ndarray,
    local: np.ndarray,
    *,
    fill_gap_s: float,
    outlier_m: float,
    smoothing_s: float,
) -> CleanPath:
    """Clean a path of N frames.

    pts_s: (N,); track: (N,) numbers of tracks: nothing is filled or smoothed across a change of
    track, which may be one of the person; position: (N, 3) metres and xyzw: (N, 4), NaN where not
    measured; local: (N, P, 3) points in the moving frame; fill_gap_s: longest gap that is filled,
    from the last measured frame before it to the first one behind; outlier_m: of `outliers`;
    smoothing_s: of `smooth`.
    """
    is_there = np.isfinite(position).all(axis=1) & np.isfinite(xyzw).all(axis=1)
    is_out = outliers(position, is_there, outlier_m)
    before = jitter_mm(position, is_there)
    is_there = is_there & ~is_out
    origin = np.where(is_there, MEASURED, ABSENT)
    position, local = position.copy(), local.copy()
    xyzw = continuous(xyzw)
    for first, last in fillable(pts_s, is_there, fill_gap_s):
        if track[first - 1] == track[last]:
            origin[first:last] = FILLED
    fill(pts_s, is_there, origin == FILLED, position, xyzw, local)
    for first, last in runs(pts_s, np.where(origin == FILLED, -1, track), origin != ABSENT):
        done = smooth(pts_s, position, xyzw, local, slice(first, last), smoothing_s)
        origin[first:last][done & (origin[first:last] == MEASURED)] = SMOOTHED
    absent = origin == ABSENT
    position[absent], xyzw[absent], local[absent] = np.nan, np.nan, np.nan
    return CleanPath(
        origin, position, xyzw, local, int(is_out.sum()), before, jitter_mm(position, ~absent)
    )


def outliers(position: np.ndarray, is_there: np.ndarray, least_m: float) -> np.ndarray:
    """(N,) which positions (N, 3) lie far from the median of their neighbours in time: by more
    than `least_m`, and by more than three robust deviations (Hampel's identifier)."""
    found = np.zeros(len(position), bool)
    at = np.flatnonzero(is_there)
    if len(at) < _NEIGHBOURS:
        return found
    half = _NEIGHBOURS // 2
    known = np.pad(position[at], ((half, half), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(known, _NEIGHBOURS, axis=0)
    median = np.median(windows, axis=2)
    spread = _ROBUST * np.median(np.linalg.norm(windows - median[:, :, None], axis=1), axis=1)
    apart = np.linalg.norm(position[at] - median, axis=1)
    found[at] = apart > np.maximum(least_m, 3 * spread)
    return found


def fillable(pts_s: np.ndarray, is_there: np.ndarray, longest_s: float) -> list[tuple[int, int]]:
    """(first, one past the last) of the gaps between two frames that are there, up to a length."""
    at = np.flatnonzero(is_there)
    gaps = pairwise(at)
    return [(int(a) + 1, int(b)) for a, b in gaps if b - a > 1 and pts_s[b] - pts_s[a] <= longest_s]


def fill(
    pts_s: np.ndarray,
    is_there: np.ndarray,
    is_gap: np.ndarray,
    position: np.ndarray,
    xyzw: np.ndarray,
    local: np.ndarray,
) -> None:
    """Write poses into the frames of gaps, from all that are there."""
    from scipy.interpolate import PchipInterpolator
    from scipy.spatial.transform import Rotation, Slerp

    if not is_gap.any():
        return
    when, gaps = pts_s[is_there], pts_s[is_gap]
    position[is_gap] = PchipInterpolator(when, position[is_there])(gaps)
    local[is_gap] = PchipInterpolator(when, local[is_there])(gaps)
    xyzw[is_gap] = Slerp(when, Rotation.from_quat(xyzw[is_there]))(gaps).as_quat()
    xyzw[:] = continuous(xyzw)


def smooth(
    pts_s: np.ndarray,
    position: np.ndarray,
    xyzw: np.ndarray,
    local: np.ndarray,
    here: slice,
    length_s: float,
) -> np.ndarray:
    """Smooth a segment without gaps in place; (n,) which of its frames were.

    The parabola is one over time, so frames may come at any rate. At the ends, where the window is
    not whole, that of the first or last whole one holds.
    """
    times, count = pts_s[here], here.stop - here.start
    step = float(np.median(np.diff(times))) if count > 1 else 0.0
    window = 2 * int(length_s / step / 2) + 1 if step > 0 else 1
    window = min(window, count - (count + 1) % 2)
    if window < 5:
        return np.zeros(count, bool)
    first = np.clip(np.arange(count) - window // 2, 0, count - window)
    at = first[:, None] + np.arange(window)
    apart = (times[at] - times[:, None]) / step
    design = np.stack([np.ones_like(apart), apart, apart**2], axis=2)  # (n, window, 3)
    weights = np.linalg.pinv(design)[:, 0]  # of each frame, for the parabola's value at its time
    for values in (position, local, xyzw):
        values[here] = np.einsum("nw,nw...->n...", weights, values[here][at])
    xyzw[here] /= np.linalg.norm(xyzw[here], axis=1, keepdims=True)
    return np.ones(count, bool)


def continuous(xyzw: np.ndarray) -> np.ndarray:
    """Quaternions (N, 4) with the sign that is closer to the one before; NaN stays."""
    found = xyzw.copy()
    at = np.flatnonzero(np.isfinite(xyzw).all(axis=1))
    flips = (found[at][1:] * found[at][:-1]).sum(axis=1) < 0
    found[at[1:]] *= np.where(np.cumsum(flips) % 2, -1.0, 1.0)[:, None]
    return found


def jitter_mm(position: np.ndarray, is_there: np.ndarray) -> float:
    """Mean length of second differences of positions (N, 3) in metres, in mm/frame²; NaN where no
    three frames are there in a row."""
    second = np.diff(np.where(is_there[:, None], position, np.nan), n=2, axis=0)
    lengths = np.linalg.norm(second, axis=1)
    known = lengths[np.isfinite(lengths)]
    return float(1000 * known.mean()) if len(known) else float("nan")


def runs(pts_s: np.ndarray, track: np.ndarray, is_there: np.ndarray) -> list[tuple[int, int]]:
    """(first, one past the last) of each run of frames that are there, of one track (-1: of that
    of its neighbours), without a hole in time."""
    found: list[tuple[int, int]] = []
    step = np.diff(pts_s)
    usual = float(np.median(step)) if len(step) else 0.0
    for first, last in runs_of_true(is_there):
        known = np.flatnonzero(track[first:last] >= 0) + first
        changes = known[1:][track[known][1:] != track[known][:-1]]
        holes = np.flatnonzero(step[first : last - 1] > HOLE * usual) + first + 1
        cuts = sorted({first, last, *(int(c) for c in changes), *(int(h) for h in holes)})
        found.extend(pairwise(cuts))
    return found
