"""Tells a camera that stands still, from the points of the background that stay in place.

Here: the evidence, frame by frame, and the one pose that follows from it. Not here: tracking
(`colmap.point_tracks`), cameras that move (`colmap.mapping`).

Under a camera on a stand the points of the background stay where they are, however much moves in
front of them; under a moving one only marks of the picture itself do (a vignette, a logo), which
are few and lie in one place. Short-lived tracks stay in place under a slow pan, too, so only those
that are seen for a while count, and what all of them move together is summed over the clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ego_assets.scene.colmap.point_tracks import CELLS, TrackTable, cells_of
from ego_assets.scene.colmap.registration import Registration
from ego_assets.scene.settings import ReconstructSettings

_STILL_PX = 0.7
"""Off its own place a point of the background is by less, in pixels of the shrunken picture."""
_LIFE_S = 0.4
_MAX_DRIFT_PX = 1.5
"""What the background moves together over a clip; a slow pan adds up to more."""
_MIN_SHARED = 8


@dataclass(frozen=True)
class StaticCamera:
    """The frames in which the camera stood where it stood in most of the clip.

    still, seen: (F,) points of the background in place, and points that were asked; error: (F,)
    RMS of how far they are off, pixels of the shrunken picture; in_place: (F,) bool.
    """

    still: np.ndarray
    seen: np.ndarray
    error: np.ndarray
    in_place: np.ndarray
    drift_px: float

    def __str__(self) -> str:
        share = np.median(self.still / np.maximum(self.seen, 1))
        return f"{100 * share:.0f} % of the background stays in place, drift {self.drift_px:.1f} px"

    @property
    def share(self) -> float:
        """Return the share of the clip's frames in which it stood there."""
        return float(self.in_place.mean())

    def registrations(self, pose: np.ndarray) -> list[Registration]:
        """Return one registration per frame. pose: world_from_camera (4, 4) of the camera."""
        nothing: dict[str, Any] = {"points": np.empty(0, np.int64), "xy": np.empty((0, 2))}
        found = []
        for still, seen, error, there in zip(
            self.still.tolist(), self.seen.tolist(), self.error.tolist(), self.in_place, strict=True
        ):
            evidence = {"inliers": still, "matches": seen, "error": error}
            found.append(
                Registration(pose, "static", **nothing, **evidence)
                if there
                else Registration(None, reason="camera moved from its place", **evidence)
            )
        return found


def find_static(tracks: TrackTable, settings: ReconstructSettings) -> StaticCamera | None:
    """Return where the camera stood still; None if it moved, or nothing tells.

    Most frames of the clip must say that it did, each by `min_static_share` of its points.
    """
    if len(tracks) < settings.min_keyframes or not len(tracks.track):
        return None
    frame = np.repeat(np.arange(len(tracks)), np.diff(tracks.starts))
    places, life_s, of = _places(tracks, frame)
    off = np.linalg.norm(tracks.xy - places[of], axis=1)
    lasting = (life_s >= _life_s(tracks))[of]
    still = lasting & (off < _STILL_PX)
    count, seen = (np.bincount(frame[w], minlength=len(tracks)) for w in (still, lasting))
    squares = np.bincount(frame[still], off[still] ** 2, minlength=len(tracks))
    share = count / np.maximum(seen, 1)
    is_typical = np.median(share) >= settings.min_static_share
    enough = (count >= settings.min_inliers) & (share >= settings.min_static_share / 2)
    calm = enough & (_cells(tracks, frame, still) >= settings.min_inlier_cells)
    rest, drift_px = _longest_rest(tracks, still, calm)
    in_place = np.zeros(len(tracks), bool)
    in_place[rest] = calm[rest]
    if not is_typical or in_place.mean() < 0.5:
        return None
    error = np.sqrt(squares / np.maximum(count, 1))
    return StaticCamera(count, seen, error, in_place, drift_px)


def _life_s(tracks: TrackTable) -> float:
    """Return how long a track must be seen to count: in a very short clip, half of it."""
    return min(_LIFE_S, 0.5 * float(tracks.pts_s[-1] - tracks.pts_s[0]))


def _places(tracks: TrackTable, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the median place (T, 2) of each track, for how long it is seen (T,), and which track
    (M,) each observation is of."""
    order = np.argsort(tracks.track, kind="stable")
    _, first, of = np.unique(tracks.track[order], return_index=True, return_inverse=True)
    ends = np.append(first[1:], len(order))
    xy, times = tracks.xy[order], tracks.pts_s[frame[order]]
    places = np.array([np.median(xy[a:b], axis=0) for a, b in zip(first, ends, strict=True)])
    back = np.empty(len(order), np.int64)
    back[order] = of
    return places, times[ends - 1] - times[first], back


def _cells(tracks: TrackTable, frame: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Return the number of parts of the picture in which points are in place, (F,): marks of the
    picture lie in few."""
    filled = np.zeros((len(tracks), CELLS), bool)
    filled[frame[still], cells_of(tracks.xy[still], tracks.size)] = True
    count: np.ndarray = filled.sum(axis=1)
    return count


def _longest_rest(tracks: TrackTable, still: np.ndarray, calm: np.ndarray) -> tuple[slice, float]:
    """Return the longest stretch in which the points in place do not drift together, and how far
    they do in it. Steps of half a second are chained, for few tracks live through a whole clip."""
    names = np.unique(tracks.track[still])
    positions = np.flatnonzero(calm).tolist()
    best, furthest_px = slice(0, 0), 0.0
    begin, at, drift_px, last = 0, np.zeros(2), 0.0, -1
    for position in positions:
        if last < 0:
            begin = last = position
            continue
        if tracks.pts_s[position] - tracks.pts_s[last] < _LIFE_S and position != positions[-1]:
            continue
        step = _step_px(tracks, names, last, position)
        last = position
        if step is None or np.linalg.norm(at + step) > _MAX_DRIFT_PX:
            begin, at, drift_px = position, np.zeros(2), 0.0
            continue
        at = at + step
        drift_px = max(drift_px, float(np.linalg.norm(at)))
        if position + 1 - begin > best.stop - best.start:
            best, furthest_px = slice(begin, position + 1), drift_px
    return best, furthest_px


def _step_px(tracks: TrackTable, names: np.ndarray, first: int, second: int) -> np.ndarray | None:
    """Return the median motion of the named points between two frames; None if few are in both."""
    ids, a, b = tracks.common(first, second)
    shared = np.isin(ids, names, assume_unique=True)
    return np.median((b - a)[shared], axis=0) if shared.sum() >= _MIN_SHARED else None
