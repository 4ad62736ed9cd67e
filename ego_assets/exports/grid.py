"""Brings a stretch of variable rate onto ticks of a whole number of frames a second.

Data sets count time in ticks: tick k is at k / fps. Cameras do not, and at 29.97 frames a second
the two are a frame apart after half a minute. So each tick takes one frame of the source, the
nearest, and numbers come from the same frame as the picture: nothing is interpolated. What a tick
really shows is kept beside it (frame and time).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ego_assets.operator import Frame

NEAR = 0.75
"""A tick is held if no usable frame is within this share of the usual distance between frames."""
GAP = 1.5
"""What is longer than this share of the median distance between frames is a gap, not a rate."""


class ExportError(ValueError):
    """An episode, or a folder, cannot be exported as it is."""


@dataclass(frozen=True)
class Grid:
    """Which frame of the source each of T ticks shows.

    frames: (T,) int64, raw frame indices, never falling; rows: (T,) int64, their places among the
    frames that the grid was made of; pts_s: (T,) float64, their times in the recording;
    is_held: (T,) bool, there was no usable frame near the tick, and the last one before is shown.
    """

    fps: int
    frames: np.ndarray
    rows: np.ndarray
    pts_s: np.ndarray
    is_held: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def needed_frames(self) -> list[int]:
        """Raw indices of the frames that are shown, ascending, each once."""
        return [int(frame) for frame in np.unique(self.frames)]

    def take(self, values: np.ndarray) -> np.ndarray:
        """Values (N, …) of the source's frames as (T, …) of the ticks."""
        return np.asarray(values[self.rows])

    def show(self, frames: Iterable[Frame]) -> Iterator[np.ndarray]:
        """Yield a picture a tick out of the frames of the source, which may be more than needed.

        One picture is in memory at a time. Raises ExportError if one that is needed does not come.
        """
        incoming = iter(frames)
        shown: Frame | None = None
        for frame in self.frames.tolist():
            while shown is None or shown.index < frame:
                shown = next(incoming, None)
                if shown is None:
                    raise ExportError(f"frame {frame} was not decoded: mark it as not usable")
            if shown.index != frame:
                raise ExportError(
                    f"frame {frame} was not decoded, but frame {shown.index} after it"
                )
            yield shown.image


def typical_rate(pts_s: np.ndarray) -> float:
    """Average frames a second of a recording, gaps left out."""
    distances = np.diff(pts_s)
    if not len(distances):
        raise ExportError("a single frame has no rate: give the rate")
    usual = distances[distances <= GAP * np.median(distances)]
    return float(1.0 / usual.mean())


def make_grid(
    frames: np.ndarray,
    pts_s: np.ndarray,
    *,
    fps: int | None = None,
    is_usable: np.ndarray | None = None,
) -> Grid:
    """Lay a grid over a stretch. Its first tick is at its first frame, its last at its last one.

    frames: (N,) raw indices, rising; pts_s: (N,) times, rising; frames that are missing are just
    not there. fps: None takes the whole number next to the typical rate. is_usable: (N,) bool,
    damaged frames are False; None: all are usable.
    """
    frames, pts_s = np.asarray(frames, np.int64), np.asarray(pts_s, np.float64)
    usable = np.ones(len(frames), bool) if is_usable is None else np.asarray(is_usable, bool)
    if not len(frames) == len(pts_s) == len(usable) or not usable.any():
        raise ExportError(
            f"{len(frames)} frames, {len(pts_s)} times, {usable.sum()} usable: no grid"
        )
    if (np.diff(frames) <= 0).any() or (np.diff(pts_s) <= 0).any():
        raise ExportError("frames and their times must rise")
    fps = fps or max(1, round(typical_rate(pts_s)))
    distance = 1 / typical_rate(pts_s) if len(pts_s) > 1 else 1 / fps
    end = pts_s[-1] - pts_s[0] + min(distance, 1 / fps) / 2
    ticks = pts_s[0] + np.arange(int(end * fps) + 1) / fps
    places = np.flatnonzero(usable)
    times = pts_s[places]
    after = np.searchsorted(times, ticks).clip(1, max(1, len(times) - 1))
    before = after - 1
    after = np.minimum(after, len(times) - 1)
    nearest = np.where(ticks - times[before] <= times[after] - ticks, before, after)
    is_held = np.abs(times[nearest] - ticks) > NEAR * max(1 / fps, distance)
    last = (np.searchsorted(times, ticks, side="right") - 1).clip(0)
    # What lies ahead must not be seen before its time, so a hole shows what was before it.
    chosen = np.maximum.accumulate(np.where(is_held, last, nearest))
    rows = places[chosen]
    return Grid(fps, frames[rows], rows, pts_s[rows], is_held)
