"""Ticks take the frames that are nearest to them, and say which."""

from __future__ import annotations

import numpy as np
import pytest

from ego_assets.exports.grid import ExportError, Grid, make_grid, typical_rate
from ego_assets.operator import Frame


def grid_of(pts: np.ndarray, first: int = 0, **options: object) -> Grid:
    return make_grid(np.arange(first, first + len(pts)), pts, **options)  # type: ignore[arg-type]


def test_a_whole_rate_is_taken_as_it_is() -> None:
    made = grid_of(5.0 + np.arange(90) / 30, first=100)
    assert made.fps == 30
    assert made.frames.tolist() == list(range(100, 190))
    assert made.rows.tolist() == list(range(90))
    assert not made.is_held.any()


@pytest.mark.parametrize("rate", [30000 / 1001, 24000 / 1001, 59.94, 15.02, 25.0])
def test_ticks_never_stray_from_the_frames_of_an_odd_rate(rate: float) -> None:
    pts = 3.0 + np.arange(5000) / rate
    made = grid_of(pts)
    assert made.fps == round(rate)
    ticks = 3.0 + np.arange(len(made)) / made.fps
    assert np.abs(made.pts_s - ticks).max() <= 0.5 / rate + 1e-9
    assert (made.frames[0], made.frames[-1]) == (0, 4999)
    assert not made.is_held.any()


def test_a_variable_rate_takes_the_nearest_frame_and_its_numbers() -> None:
    random = np.random.default_rng(1)
    pts = np.cumsum(random.uniform(0.02, 0.05, 400))
    made = grid_of(pts, fps=30)
    ticks = pts[0] + np.arange(len(made)) / 30
    assert made.rows.tolist() == [int(np.abs(pts - t).argmin()) for t in ticks]
    values = random.normal(size=(400, 3))
    assert (made.take(values) == values[made.rows]).all()
    assert (np.diff(made.frames) >= 0).all()


def test_a_hole_shows_what_was_before_it_and_says_so() -> None:
    frames = np.r_[0:30, 60:90]
    made = make_grid(frames, frames / 30)
    assert (made.fps, len(made)) == (30, 90)
    assert np.flatnonzero(made.is_held).tolist() == list(range(30, 60))
    assert set(made.frames[30:60]) == {29}
    assert made.frames[60:].tolist() == list(range(60, 90))


def test_damaged_frames_are_not_shown() -> None:
    usable = np.ones(20, bool)
    usable[[0, 7, 8, 9]] = False
    made = grid_of(np.arange(20) / 10, is_usable=usable)
    assert made.frames.tolist() == [1, 1, 2, 3, 4, 5, 6, 6, 6, 6, *range(10, 20)]
    assert np.flatnonzero(made.is_held).tolist() == [0, 7, 8, 9]


def test_fewer_ticks_than_frames_are_asked_for() -> None:
    made = grid_of(np.arange(60) / 60, fps=10)
    assert made.frames.tolist() == list(range(0, 60, 6))
    assert made.needed_frames == list(range(0, 60, 6))


def test_gaps_do_not_lower_the_rate() -> None:
    pts = np.r_[np.arange(100) / 30, 10 + np.arange(100) / 30]
    assert typical_rate(pts) == pytest.approx(30)


def picture(index: int) -> Frame:
    return Frame(index, index / 10, np.full((2, 2, 3), index, np.uint8), 1.0)


def test_pictures_are_shown_as_they_come_one_at_a_time() -> None:
    made = grid_of(np.arange(5) / 10, fps=20)
    shown = [int(p[0, 0, 0]) for p in made.show(picture(n) for n in range(5))]
    assert shown == made.frames.tolist()
    assert len(shown) == 9
    needed = [picture(n) for n in made.needed_frames]
    assert len(list(made.show(needed))) == 9


def test_a_picture_that_does_not_come_is_named() -> None:
    made = grid_of(np.arange(5) / 10)
    with pytest.raises(ExportError, match=r"frame 2 was not decoded, but frame 3"):
        list(made.show(picture(n) for n in (0, 1, 3, 4)))
    with pytest.raises(ExportError, match=r"frame 4 was not decoded"):
        list(made.show(picture(n) for n in range(4)))


def test_what_makes_no_grid_is_refused() -> None:
    with pytest.raises(ExportError, match="must rise"):
        grid_of(np.array([0.0, 0.1, 0.1]))
    with pytest.raises(ExportError, match="no grid"):
        grid_of(np.array([0.0, 0.1]), is_usable=np.zeros(2, bool))
    with pytest.raises(ExportError, match="single frame"):
        grid_of(np.array([0.0]))
