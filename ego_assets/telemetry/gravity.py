"""The direction of gravity, by an accelerometer and a gyroscope that move with the camera.

An accelerometer at rest feels 9.81 m/s² upwards, and whatever else accelerates it besides. Turned
by the gyroscope into one frame that does not turn, gravity is always the same there, and what a
head does averages out: speeds come back to what they were. So accelerations are averaged over a few
seconds in that frame, and the mean is turned back into the camera's (a complementary filter, as of
Mahony et al. 2008, without lag, since the future is known too). Drift of the gyroscope within the
window is what is left, besides what the accelerometer's own zero is off. A vehicle that speeds up
for longer than the window tilts the result, and nothing here can tell.

Here: arrays. Not here: which rows, worlds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ego_assets.vision.geometry import matrix_from_quaternion

GRAVITY_MPS2 = 9.81
ZERO_DEG = 1.0
"""What consumer accelerometers are off by themselves: 0.1 to 0.2 m/s² of 9.81."""
_SETTLE_S = 0.25
"""Accelerations nearer in time are smoothed before their length is judged."""
_INDEPENDENT_S = 0.5
"""So long what a body does goes on: means over fewer such stretches are less certain."""


@dataclass(frozen=True)
class Directions:
    """At some times: down (N, 3), unit vectors in the camera frame, NaN where not known;
    uncertainty_deg (N,) and used_share (N,) of the accelerations around."""

    down: np.ndarray
    uncertainty_deg: np.ndarray
    used_share: np.ndarray


@dataclass(frozen=True)
class GravityRules:
    """As the fields of `GravitySettings`."""

    window_s: float = 4.0
    still_window_s: float = 0.5
    max_norm_error_mps2: float = 1.0
    min_used_share: float = 0.5
    max_uncertainty_deg: float = 5.0
    max_gap_s: float = 0.25


def gravity_at(
    at_s: np.ndarray,
    accel_s: np.ndarray,
    accel: np.ndarray,
    gyro_s: np.ndarray,
    gyro: np.ndarray,
    rules: GravityRules,
) -> Directions:
    """Gravity at times (N,), from accelerations (A, 3) in m/s² at accel_s (A,) and turns (G, 3) in
    rad/s at gyro_s (G,), all ascending and in the camera frame. Where turns are not known,
    only where accelerations stay what they are."""
    found = Directions(
        np.full((len(at_s), 3), np.nan), np.full(len(at_s), np.nan), np.zeros(len(at_s))
    )
    turns = [
        (gyro_s[first:last], _orientations(gyro_s[first:last], gyro[first:last]))
        for first, last in _without_gaps(gyro_s, rules.max_gap_s)
    ]
    ends = np.array([times[-1] for times, _ in turns])
    for first, last in _without_gaps(accel_s, rules.max_gap_s):
        times, vectors = accel_s[first:last], accel[first:last]
        is_still = (at_s >= times[0]) & (at_s <= times[-1])
        for turned_s, quaternions in turns[np.searchsorted(ends, times[0]) :]:
            if turned_s[0] > times[-1]:
                break
            start, end = _common(turned_s, times, rules.max_gap_s)
            inside = np.flatnonzero((at_s >= start) & (at_s <= end))
            # Of less than that, a mean is no better than where nothing tells of turns.
            if end - start < rules.still_window_s or not len(inside):
                continue
            is_still[inside] = False
            part = (times >= start) & (times <= end)
            still, back = (_sampled(turned_s, quaternions, t) for t in (times[part], at_s[inside]))
            half = rules.window_s
            _fill(found, inside, at_s[inside], times[part], vectors[part], still, back, half, rules)
        if not len(inside := np.flatnonzero(is_still)):
            continue
        still, back = (np.broadcast_to(np.eye(3), (len(t), 3, 3)) for t in (times, inside))
        half = rules.still_window_s
        _fill(found, inside, at_s[inside], times, vectors, still, back, half, rules)
    is_good = found.uncertainty_deg <= rules.max_uncertainty_deg
    found.down[~is_good] = np.nan
    return found


def _without_gaps(times: np.ndarray, max_gap_s: float) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(times) > max_gap_s) + 1
    bounds = np.r_[0, edges, len(times)]
    for first, last in pairwise(bounds):
        if last - first > 1:
            yield int(first), int(last)


def _common(turned_s: np.ndarray, times: np.ndarray, max_gap_s: float) -> tuple[float, float]:
    """(start, end) of the accelerations whose turns are known, up to their own ends where turns
    begin a little later or end a little earlier."""
    start, end = turned_s[0], turned_s[-1]
    return (
        float(times[0] if start - times[0] <= max_gap_s else start),
        float(times[-1] if times[-1] - end <= max_gap_s else end),
    )


def _orientations(times: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """(G, 4) quaternions xyzw, first_from_camera, by integrating turns (G, 3) over time."""
    steps = np.diff(times, prepend=times[0])
    middle = np.vstack([turns[:1], (turns[1:] + turns[:-1]) / 2])
    angles = middle * steps[:, None]
    size = np.linalg.norm(angles, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(size > 1e-12, np.sin(size / 2) / size, 0.5)
    found = np.hstack([angles * share, np.cos(size / 2)])
    # Products of all that came before, by doubling (Hillis and Steele, 1986).
    reach = 1
    while reach < len(found):
        found[reach:] = _product(found[:-reach].copy(), found[reach:])
        reach *= 2
    unit: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def _product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Of quaternions (N, 4) xyzw."""
    v, w, u, s = p[:, :3], p[:, 3:], q[:, :3], q[:, 3:]
    vector = w * u + s * v + np.cross(v, u)
    return np.hstack([vector, w * s - (v * u).sum(axis=1, keepdims=True)])


def _sampled(times: np.ndarray, quaternions: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations at other times, between the two nearest."""
    after = np.clip(np.searchsorted(times, at), 1, len(times) - 1)
    span = np.maximum(times[after] - times[after - 1], 1e-9)
    share = np.clip((at - times[after - 1]) / span, 0.0, 1.0)[:, None]
    one, other = quaternions[after - 1], quaternions[after]
    other = other * np.where((one * other).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    return matrix_from_quaternion((1 - share) * one + share * other)


def _fill(
    found: Directions,
    inside: np.ndarray,
    at_s: np.ndarray,
    times: np.ndarray,
    accel: np.ndarray,
    still_from_camera: np.ndarray,
    still_from_frame: np.ndarray,
    half_s: float,
    rules: GravityRules,
) -> None:
    """Average in the frame that does not turn, and turn back."""
    still = np.einsum("nij,nj->ni", still_from_camera, accel)
    settled = _mean_around(times, still, times, min(_SETTLE_S, half_s) / 2)
    error = np.abs(np.linalg.norm(settled, axis=1) - GRAVITY_MPS2)
    is_used = error <= rules.max_norm_error_mps2
    weight = is_used.astype(np.float64)
    sums = _Sums.of(times, np.hstack([still * weight[:, None], weight[:, None]]), at_s, half_s)
    count, total = sums.values[:, 3], sums.counts
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.values[:, :3] / count[:, None]
        length = np.linalg.norm(mean, axis=1)
        # Across the mean, settled accelerations spread by so much of its length.
        square = np.where(is_used, (settled**2).sum(axis=1), 0.0)
        spread = _Sums.of(times, square[:, None], at_s, half_s).values[:, 0] / count - length**2
        covered = np.minimum(at_s + half_s, times[-1]) - np.maximum(at_s - half_s, times[0])
        stretches = np.maximum(covered / _INDEPENDENT_S, 1.0)
        random = np.degrees(np.sqrt(np.maximum(spread, 0.0)) / length) / np.sqrt(stretches)
        # A mean that is longer or shorter than gravity has something else in it.
        other = np.degrees(np.abs(length - GRAVITY_MPS2) / GRAVITY_MPS2)
        uncertainty = np.sqrt(random**2 + other**2 + ZERO_DEG**2)
        share = count / np.maximum(total, 1)
        up = np.einsum("nji,nj->ni", still_from_frame, mean / length[:, None])
    is_known = (share >= rules.min_used_share) & np.isfinite(uncertainty)
    found.down[inside[is_known]] = -up[is_known]
    found.uncertainty_deg[inside[is_known]] = uncertainty[is_known]
    found.used_share[inside] = share


@dataclass(frozen=True)
class _Sums:
    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, times: np.ndarray, values: np.ndarray, at: np.ndarray, half_s: float) -> _Sums:
        """Sums of values (A, C) within half_s of each time (N,), and how many there are."""
        below = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
        first = np.searchsorted(times, at - half_s, side="left")
        last = np.searchsorted(times, at + half_s, side="right")
        return cls(below[last] - below[first], last - first)


def _mean_around(
    times: np.ndarray, values: np.ndarray, at: np.ndarray, half_s: float
) -> np.ndarray:
    sums = _Sums.of(times, values, at, half_s)
    mean: np.ndarray = sums.values / np.maximum(sums.counts, 1)[:, None]
    return mean


def mean_direction(directions: np.ndarray) -> tuple[np.ndarray, float]:
    """(mean unit vector (3,), RMS angle to it in degrees) of unit vectors (N, 3)."""
    mean = directions.mean(axis=0)
    mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
    chord = np.linalg.norm(directions - mean, axis=1)
    angles = 2.0 * np.arcsin(np.clip(chord / 2.0, 0.0, 1.0))
    return mean, float(np.degrees(np.sqrt((angles**2).mean())))
