"""Smoothing over time that keeps motion: local quadratic fits, for vectors and for rotations.

Here: weights over frames, and what they make of values. Not here: what is smoothed.

Each value becomes that of a parabola fitted to its neighbours by weighted least squares (Savitzky
and Golay, 1964; Cleveland, 1979), so there is no lag, and constant speed and acceleration come out
as they went in, up to the first and the last frame. Rotations are fitted in the tangent space of
each frame's own.
"""

from __future__ import annotations

import numpy as np

_REACH = 3.0
"""A frame sees others up to so many standard deviations away."""


def smoother(times_s: np.ndarray, trusted: np.ndarray, deviation_s: float) -> np.ndarray:
    """(N, N) weights W: `W @ values` is smooth. Rows sum to 1.

    times_s: (N,) ascending; trusted: (N,) bool, others have no say; deviation_s: standard deviation
    of the Gaussian weights. A frame with too few neighbours for a parabola gets a line, or stays.
    """
    weights = np.eye(len(times_s))
    if deviation_s <= 0:
        return weights
    for i, now in enumerate(times_s):
        offset = (times_s - now) / deviation_s
        near = np.nonzero((np.abs(offset) <= _REACH) & trusted)[0]
        # One more than it takes: else the fit goes through the noise.
        degree = min(2, len(near) - 2)
        if degree < 1 or not trusted[i]:
            continue
        powers = offset[near, None] ** np.arange(degree + 1)
        kernel = np.exp(-0.5 * offset[near] ** 2)[:, None]
        weights[i] = 0.0
        weights[i, near] = np.linalg.solve(powers.T @ (kernel * powers), (kernel * powers).T)[0]
    return weights


def smoothed_rotations(weights: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """(N, ..., 3, 3) rotations, smoothed by the (N, N) weights of `smoother`."""
    from scipy.spatial.transform import Rotation

    count, shape = len(rotations), rotations.shape
    each = rotations.reshape(count, -1, 3, 3)
    result = np.empty_like(each)
    for i in range(count):
        used = np.nonzero(weights[i])[0]
        relative = np.swapaxes(each[i], -1, -2) @ each[used]
        turns = Rotation.from_matrix(relative.reshape(-1, 3, 3)).as_rotvec()
        mean = np.einsum("n,njk->jk", weights[i, used], turns.reshape(len(used), -1, 3))
        result[i] = each[i] @ Rotation.from_rotvec(mean).as_matrix()
    return result.reshape(shape)
