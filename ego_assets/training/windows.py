"""Windows over episodes: which ticks a sample has, and which of them lie beyond the ends.

Not here: pictures (`samples`), the order of windows (`order`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from ego_assets.exports.episode import ExportEpisode
from ego_assets.exports.lake_episodes import view_of
from ego_assets.settings import Settings


class WindowSettings(Settings):
    """What a sample has. Ticks are those of the episode's grid: `ContentSettings.fps` a second."""

    observation: int = Field(
        default=1, ge=1, description="ticks of pictures and states, the last of them now"
    )
    action: int = Field(default=16, ge=1, description="ticks of actions, the first of them now")
    stride: int = Field(default=1, ge=1, description="ticks from a window to the next")
    size: tuple[int, int] | None = Field(
        default=(224, 224),
        description="height and width of pictures: they are shrunk to fit into it (never enlarged) "
        "and stand in the middle of black; null: no pictures",
    )


@dataclass(frozen=True)
class IndexedEpisode:
    """Where an episode is, and how many ticks it has."""

    episode_id: str
    shard: str
    ticks: int


@dataclass(frozen=True)
class TrainingEpisode:
    """The numbers of an episode of T ticks.

    frames: (T,) raw frame of each tick; columns: {name: (T, n)}, as exports have them; undistort:
    what pictures go through, if that was asked for.
    """

    episode_id: str
    shard: str
    video_id: str
    task: str
    frames: np.ndarray
    columns: Mapping[str, np.ndarray]
    undistort: Callable[[np.ndarray], np.ndarray] | None = None

    @classmethod
    def of(cls, episode: ExportEpisode, shard: str) -> TrainingEpisode:
        columns = {name: numbers.values for name, numbers in episode.columns.items()}
        view = view_of(episode.provenance)
        named = episode.episode_id, shard, episode.provenance["video_id"], episode.task
        return cls(*named, episode.grid.frames, columns, view.picture if view else None)


def window_counts(episodes: list[IndexedEpisode], stride: int) -> np.ndarray:
    """(E,) windows of each episode: one begins at every `stride`-th tick."""
    return np.array([-(-e.ticks // stride) for e in episodes], np.int64)


def ticks_around(tick: int, first: int, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(count,) ticks from `tick + first` on, and which of them are padding.

    Those beyond an end of an episode of `length` ticks are its first or last one instead.
    """
    wanted = np.arange(tick + first, tick + first + count)
    inside = wanted.clip(0, length - 1)
    return inside, wanted != inside
