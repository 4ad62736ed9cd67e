"""Names of the columns that say where things are, and how formats read them.

Numbers of an episode are finite, so what is not known has a column beside it that says so: the
numbers are then those of the last tick that has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ego_assets.exports.episode import ExportEpisode, Numbers
from ego_assets.exports.grid import Grid
from ego_assets.exports.states import held

CAMERA = "world_from_camera"
OBJECT = "camera_from_object."
_KNOWN = ".known"
_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
_NO_POSE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def hand_in(frame: str, side: str) -> str:
    """The column of a wrist's pose in the frame `camera` or `world`."""
    return f"{frame}_from_{side}_hand"


def joints_in(frame: str, side: str) -> str:
    """The column of the 21 joints of a hand, in MANO order, in the frame `camera` or `world`."""
    return f"{side}_joints_{frame}"


def robot_of(side: str) -> str:
    """The column of a robot hand's joint positions in radians."""
    return f"{side}_robot"


@dataclass(frozen=True)
class KnownNumbers:
    """Numbers (T, n) of an episode; known: (T,) whether they are of this very tick."""

    values: np.ndarray
    known: np.ndarray
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, episode: ExportEpisode, name: str) -> KnownNumbers | None:
        """The numbers of a column; None if the episode has none."""
        if name not in episode.columns:
            return None
        column = episode.columns[name]
        return cls(column.values, episode.columns[name + _KNOWN].values[:, 0], column.names)


def known_columns(
    name: str,
    values: np.ndarray,
    grid: Grid,
    names: Sequence[str] | None = None,
    before: Sequence[float] | float = 0.0,
) -> dict[str, Numbers]:
    """Columns of values (N, n) of the frames of a grid, NaN where they are not known; none where
    they never are. before: what stands there until they are known first."""
    known = np.isfinite(values).all(axis=1)
    if not known.any():
        return {}
    filled = grid.take(held(values, before)).astype(np.float64)
    return {
        name: Numbers(filled, tuple(names) if names else None),
        name + _KNOWN: Numbers(grid.take(known)[:, None] & ~grid.is_held[:, None]),
    }


def pose_columns(name: str, poses: np.ndarray, grid: Grid) -> dict[str, Numbers]:
    """Columns of poses (N, 7): position in metres, quaternion xyzw."""
    return known_columns(name, poses, grid, _POSE, _NO_POSE)


def objects_in(columns: Mapping[str, Numbers]) -> Iterator[str]:
    """The names of the objects whose poses there are."""
    for name in columns:
        if name.startswith(OBJECT) and not name.endswith(_KNOWN):
            yield name.removeprefix(OBJECT)
