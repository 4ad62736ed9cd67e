"""Metres for a map of arbitrary scale: its depths held against those that a network sees.

Here: which pictures and points are asked, and the robust ratio of the two. Not here: the network,
the map (`mapping`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ego_assets.operator import DepthSource, FrameSource
from ego_assets.rows import ScaleKind
from ego_assets.scene.colmap.mapping import SparseMap
from ego_assets.scene.colmap.point_tracks import TrackTable
from ego_assets.scene.colmap.registration import Registration, depths_in

_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_OUTLIER = 3.0
_ROUNDS = 5
_MIN_SPREAD = 1e-3


class ScaleError(Exception):
    """No scale came out; the message says why."""


class SizedDepthSource(DepthSource, Protocol):
    """A source of depth that says which pictures it can make use of."""

    @property
    def side_px(self) -> int:
        """Longer side of them."""
        ...


@dataclass(frozen=True)
class MetricScale:
    """Metres a unit of the map; `spread`: robust standard deviation of the logarithm of what each
    of `samples` points (or hands) in `frames` pictures says, so about a relative error of one."""

    factor: float
    spread: float
    samples: int
    frames: int
    kind: ScaleKind = "metric"

    def to_carried(self) -> dict[str, Any]:
        return {
            "scale_factor": self.factor,
            "scale_spread": self.spread,
            "scale_samples": self.samples,
            "scale_frames": self.frames,
            "scale_kind": self.kind,
        }

    @staticmethod
    def from_carried(carried: Mapping[str, Any] | None) -> MetricScale | None:
        """None where the clip before is not in metres."""
        if not carried or "scale_factor" not in carried:
            return None
        return MetricScale(
            float(carried["scale_factor"]),
            float(carried["scale_spread"]),
            int(carried["scale_samples"]),
            int(carried["scale_frames"]),
            carried.get("scale_kind", "metric"),
        )

    def __str__(self) -> str:
        return (
            f"{self.factor:.4g} m a unit, spread {100 * self.spread:.0f} %, "
            f"{self.samples} {'hands' if self.kind == 'metric_hands' else 'points'} in "
            f"{self.frames} pictures"
        )


@dataclass(frozen=True)
class View:
    """Mapped points in one picture: `place` (n, 2) in 0 … 1 of width and height, `depth` (n,)
    along z in map units."""

    frame_index: int
    place: np.ndarray
    depth: np.ndarray


def choose_views(
    tracks: TrackTable, scene: SparseMap, found: Sequence[Registration], count: int
) -> list[View]:
    """At most `count` registered pictures, evenly spread over the clip."""
    usable = [
        (int(frame), r)
        for frame, r in zip(tracks.frame_index, found, strict=True)
        if r.pose is not None and r.points is not None and len(r.points)
    ]
    picks = np.unique(np.linspace(0, len(usable) - 1, min(count, len(usable))).round().astype(int))
    views = []
    for frame, r in (usable[i] for i in picks):
        place = (np.asarray(r.xy, np.float64) + 0.5) / tracks.size
        depth = depths_in(np.asarray(r.pose), scene.points[r.points])
        ahead = depth > 1e-9
        views.append(View(frame, place[ahead], depth[ahead]))
    return views


def measure_scale(
    frames: FrameSource,
    views: Sequence[View],
    depth: SizedDepthSource,
    focal_over_width: float | None,
) -> MetricScale:
    """The scale that the views' points agree on. Raises ScaleError if there is none to compare."""
    indices = [v.frame_index for v in views]
    shown = {f.index: f.image for f in frames.read(max_side_px=depth.side_px, indices=indices)}
    views = [v for v in views if v.frame_index in shown]
    depths = depth([shown[v.frame_index] for v in views], focal_over_width)
    ratios = [sample(d, v.place) / v.depth for d, v in zip(depths, views, strict=True)]
    merged = np.concatenate(ratios) if ratios else np.empty(0)
    return robust_scale(merged[np.isfinite(merged) & (merged > 0)], len(views))


def sample(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Values (n,) of a picture (h, w) at places (n, 2) in 0 … 1, each that of its own pixel.

    Not between pixels: at an edge that would be a depth where nothing is.
    """
    size = np.array(picture.shape[::-1])
    column, row = np.clip((place * size).astype(int), 0, size - 1).T
    values: np.ndarray = picture[row, column].astype(np.float64)
    return values


def robust_scale(ratios: np.ndarray, frames: int) -> MetricScale:
    """The ratios' median in logarithms, once those three deviations away have been left out.

    Outliers on one side pull a plain median along: with 30 % of them by over half a deviation.
    """
    if not len(ratios):
        raise ScaleError("no mapped point has a depth")
    logs = np.log(ratios)
    kept = logs
    middle = spread = 0.0
    for _ in range(_ROUNDS):
        middle = float(np.median(kept))
        spread = _SIGMA * float(np.median(np.abs(kept - middle)))
        kept = logs[np.abs(logs - middle) <= _OUTLIER * max(spread, _MIN_SPREAD)]
    everyone = _SIGMA * float(np.median(np.abs(logs - middle)))
    return MetricScale(float(np.exp(middle)), everyone, len(logs), frames)
