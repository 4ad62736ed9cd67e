"""Confidence against how often it is right."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.calibration import (
    Judged,
    calibration_error,
    fitted,
    left_out_error,
    reliability,
    reliability_table,
)


def judged(confidence: float, right: int, wrong: int) -> list[Judged]:
    return [Judged(confidence, n < right, True, "v") for n in range(right + wrong)]


def test_what_is_right_as_often_as_it_says_is_calibrated() -> None:
    said = judged(0.3, 3, 7) + judged(0.95, 19, 1)
    bins = reliability(said)
    assert [(b.low, b.high, b.count) for b in bins] == [(0.25, 0.5, 10), (0.9, 1.0, 20)]
    assert calibration_error(bins) == pytest.approx(0)


def test_one_that_is_too_sure_is_off_by_the_difference_weighed_by_rows() -> None:
    bins = reliability(judged(1.0, 5, 5) + judged(0.6, 6, 4) + judged(0.6, 12, 8))
    assert calibration_error(bins) == pytest.approx(0.5 * 10 / 40)
    assert reliability_table(bins).splitlines()[-1].split() == [
        "0.90",
        "to",
        "1.00",
        "10",
        "1.00",
        "0.50",
    ]
    assert math.isnan(calibration_error(reliability([])))


def test_a_curve_is_fitted_to_the_other_videos() -> None:
    """Half as sure as it is right, in three videos alike: the curve takes that back."""
    said = [
        replace(one, source=str(n))
        for n in range(3)
        for one in [*judged(0.4, 16, 4), *judged(0.1, 4, 16)]
    ]
    assert calibration_error(reliability(said)) == pytest.approx(0.25)
    assert left_out_error(said) < 0.06
    slope, *_ = fitted(said)
    assert slope > 1
    # A video of another kind is not told by the others.
    assert left_out_error([*said, *(replace(j, source="odd", is_right=False) for j in said)]) > 0.2
