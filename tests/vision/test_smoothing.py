"""Smoothing takes noise away and leaves motion alone, to the first and the last frame."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from ego_assets.vision.smoothing import smoothed_rotations, smoother

FPS = 30.0
TIMES = np.arange(60) / FPS
ALL = np.ones(60, bool)


def jitter(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.diff(values, n=2, axis=0) ** 2)))


def turning(times: np.ndarray, speed: float) -> np.ndarray:
    """(N, 3, 3): constant angular speed, radians a second, about an axis askew."""
    axis = np.array([0.6, -0.48, 0.64])
    return (
        Rotation.from_rotvec(times[:, None] * speed * axis) * Rotation.from_rotvec([1, 2, 0])
    ).as_matrix()


@pytest.mark.parametrize("times", [TIMES, np.cumsum(np.linspace(0.01, 0.06, 60))])
def test_constant_acceleration_is_left_as_it_is(times: np.ndarray) -> None:
    values = np.column_stack([1 + 2 * times, -3 * times**2 + times, np.ones_like(times)])
    found = smoother(times, ALL, 0.08) @ values
    np.testing.assert_allclose(found, values, atol=1e-9)


def test_constant_turning_is_left_as_it_is() -> None:
    rotations = np.stack([turning(TIMES, 5.0), turning(TIMES, -9.0)], axis=1)
    found = smoothed_rotations(smoother(TIMES, ALL, 0.06), rotations)
    np.testing.assert_allclose(found, rotations, atol=1e-9)


def test_noise_goes() -> None:
    rng = np.random.default_rng(0)
    weights = smoother(TIMES, ALL, 0.06)
    clean = np.sin(2 * TIMES)[:, None]
    noisy = clean + rng.normal(0, 0.05, (60, 1))
    found = weights @ noisy
    assert jitter(found) < 0.3 * jitter(noisy)
    assert np.std(found - clean) < 0.7 * np.std(noisy - clean)
    rotations = turning(TIMES, 3.0)
    shaken = rotations @ Rotation.from_rotvec(rng.normal(0, 0.05, (60, 3))).as_matrix()
    smooth = smoothed_rotations(weights, shaken)
    np.testing.assert_allclose(smooth @ np.swapaxes(smooth, 1, 2), [np.eye(3)] * 60, atol=1e-9)

    def off(these: np.ndarray) -> float:
        turns = Rotation.from_matrix(np.swapaxes(rotations, 1, 2) @ these).as_rotvec()
        return float(np.sqrt(np.mean(turns**2)))

    assert off(smooth) < 0.65 * off(shaken)


def test_fast_motion_keeps_its_reach() -> None:
    """A hand that shakes three times a second: a Gaussian that calms noise as well flattens it."""
    motion = np.sin(2 * np.pi * 3 * TIMES)
    weights = smoother(TIMES, ALL, 0.05)
    calm = np.sqrt((weights[30] ** 2).sum())
    deviation = next(d for d in np.arange(0.1, 5, 0.01) if _gaussian_noise(float(d)) <= calm)
    blurred = gaussian_filter1d(motion, deviation)
    kept = np.abs((weights @ motion)[10:-10]).max()
    assert kept > 0.85
    assert kept > np.abs(blurred[10:-10]).max() + 0.05


def _gaussian_noise(deviation: float) -> float:
    return float(np.sqrt((gaussian_filter1d(np.eye(61)[30], deviation) ** 2).sum()))


def test_there_is_no_lag() -> None:
    step = (TIMES > 1.0).astype(float)
    found = smoother(TIMES, ALL, 0.06) @ step
    middle = np.interp(0.5, found[25:36], TIMES[25:36])
    assert middle == pytest.approx(1.0 + 0.5 / FPS, abs=0.005)


def test_what_is_not_trusted_has_no_say_and_stays() -> None:
    values = TIMES.copy()
    values[30] = 100.0
    trusted = ALL.copy()
    trusted[30] = False
    found = smoother(TIMES, trusted, 0.06) @ values
    np.testing.assert_allclose(found, values, atol=1e-9)


def test_a_gap_is_not_bridged_and_few_frames_stay() -> None:
    times = np.concatenate([TIMES[:30], TIMES[30:] + 5])
    weights = smoother(times, ALL, 0.06)
    assert not weights[:30, 30:].any()
    assert not weights[30:, :30].any()
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert np.array_equal(smoother(TIMES[:2], ALL[:2], 0.06), np.eye(2))
    assert np.array_equal(smoother(TIMES, ALL, 0.0), np.eye(60))
