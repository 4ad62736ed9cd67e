"""Finds the camera of one of our models that is nearest to one that is of none of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ego_assets.operator import Intrinsics
from ego_assets.videos.calibration.camera import CalibrationError

MAX_ERROR = 0.0015
"""Of the longer side of the picture: less than hands are found to. The colour cameras of Aria
glasses of both generations come within 0.0012."""
_GRID = 25
_MAX_ANGLE = 0.96
"""Radians off the axis, 55 degrees: so far Aria's cameras see. Polynomials of many coefficients
mean nothing where nothing was calibrated."""


def fitted(
    model: str,
    numbers: list[float],
    project: Callable[[np.ndarray], np.ndarray],
    size: tuple[int, int],
) -> list[float]:
    """Return fx fy cx cy and four coefficients of our `model` that project as `project` does.

    numbers: fx fy cx cy to begin with; project: (N, 2) normalised points to pixels; size: of the
    picture. Raises CalibrationError if no such camera is near enough.
    """
    from scipy.optimize import least_squares

    rays = _rays_in(project, size)
    wanted = project(rays)
    points = np.column_stack([rays, np.ones(len(rays))])

    def off(guess: np.ndarray) -> np.ndarray:
        from ego_assets.vision.cameras import project_points

        fx, fy, cx, cy, *lens = guess.tolist()
        camera = Intrinsics(model, fx, fy, cx, cy, tuple(lens))
        return np.asarray(project_points(camera, points) - wanted).ravel()

    begin = np.array([*numbers, 0.0, 0.0, 0.0, 0.0])
    found = least_squares(off, begin, x_scale=np.array([*np.abs(numbers) + 1.0, *[0.1] * 4]))
    error = np.linalg.norm(found.fun.reshape(-1, 2), axis=1).max()
    limit = MAX_ERROR * max(size)
    if not error <= limit:
        raise CalibrationError(
            f"its lens is {error:.3g} pixels off the nearest camera of model {model}, and "
            f"{limit:.3g} are allowed: calibrate with k1 k2 p1 p2, or as a fisheye with k1 to k4"
        )
    return [float(n) for n in found.x]


def _rays_in(project: Callable[[np.ndarray], np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Return normalised points that fall into the picture, spread over it."""
    angles = np.linspace(0, 2 * np.pi, 2 * _GRID, endpoint=False)
    tangents = np.tan(np.linspace(0, _MAX_ANGLE, 4 * _GRID))
    kept: list[np.ndarray] = [np.zeros((1, 2))]
    for angle in angles:
        way = tangents[1:, None] * [np.cos(angle), np.sin(angle)]
        pixels = project(way)
        out = np.linalg.norm(pixels - project(np.zeros((1, 2))), axis=1)
        inside = ((pixels > -0.5) & (pixels < np.array(size) - 0.5)).all(axis=1)
        # Behind the place where a polynomial turns back, it is no lens any more.
        inside &= np.minimum.accumulate(np.diff(out, prepend=0) > 0)
        inside = np.minimum.accumulate(inside)
        kept.append(way[inside])
    found = np.concatenate(kept)
    if len(found) < 4 * _GRID:
        raise CalibrationError("its lens shows nothing in the picture")
    return found
