"""Episodes whose pictures carry their number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ego_assets.exports.episode import ExportEpisode, Numbers, Words
from ego_assets.exports.grid import Grid, make_grid
from tests.exports.bars import picture_of

EGO, SIDE = "observation.images.ego", "observation.images.side"


def plain_grid(frames: int, fps: int = 30, first: int = 0) -> Grid:
    """One frame a tick."""
    indices = np.arange(first, first + frames)
    return make_grid(indices, indices / fps, fps=fps)


def episode(name: str, frames: int, first: int, **changes: Any) -> ExportEpisode:
    """An episode whose pictures count from `first` on; the second camera's count down from it.

    The column `number` says the same as the picture of the first camera.
    """
    size = changes.pop("size", (192, 108))
    grid = changes.pop("grid", None) or plain_grid(frames, changes.pop("fps", 30))
    cameras = changes.pop("cameras", (EGO,))
    numbers = {EGO: first + grid.rows, SIDE: 65535 - first - grid.rows}

    def show(key: str) -> Iterator[np.ndarray]:
        return (picture_of(int(n), *size) for n in numbers[key])

    state = np.sin(np.arange(len(grid) * 3).reshape(-1, 3) + first).astype(np.float32)
    values: dict[str, Any] = {
        "episode_id": name,
        "fingerprint": f"{name} {first} {size}",
        "task": f"pick up thing {len(name) % 2}",
        "grid": grid,
        "columns": {
            "observation.state": Numbers(state, ("x", "y", "z")),
            "action": Numbers(np.roll(state, -1, axis=0), ("x", "y", "z")),
            "number": Numbers(numbers[EGO].astype(np.int64)[:, None]),
        },
        "pictures": {key: lambda key=key: show(key) for key in cameras},
        "provenance": {"video_id": f"video of {name}", "frames": [first, first + len(grid)]},
    }
    return ExportEpisode(**(values | changes))


def with_words(made: ExportEpisode) -> dict[str, Any]:
    """Words of both kinds, to be put into an episode."""
    return {
        "persistent": [Words("reach", 0), Words("lift", len(made) // 2)],
        "events": [Words("a cup?", 3, style="vqa", role="user", camera=EGO)],
    }
