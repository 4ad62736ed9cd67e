"""The episode that every exporter takes: pictures, numbers and words on one grid of ticks.

Here: the value and what it must fulfil. Not here: where episodes come from, any file format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ego_assets.exports.grid import ExportError, Grid
from resources.raw.presence import RawAwayError

Pictures = Callable[[], Iterable[np.ndarray]]
"""Begins to read; gives one (H, W, 3) uint8 RGB picture a tick. It may be called several times."""
DTYPES = ("float32", "float64", "int64", "bool")


@dataclass(frozen=True)
class Numbers:
    """Numbers of an episode. values: (T, n) of one of `DTYPES`; names: of the n, or None."""

    values: np.ndarray
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Words:
    """A text that holds from a tick on (until another of its style), or that belongs to one tick.

    camera: key of the pictures that it speaks of, for styles that speak of pictures.
    """

    content: str
    tick: int
    style: str = "subtask"
    role: str = "assistant"
    camera: str | None = None


@dataclass(frozen=True)
class ExportEpisode:
    """A stretch of a take, on a grid.

    fingerprint: changes whenever the pictures do (hash of the video, frames, version of the
    decoder); numbers and words need not be in it, they are compared themselves.
    persistent: words that hold from a tick on; events: words of one tick; None: the data set has no
    such column.
    provenance: what a person needs to find the source (video, take, SHA-256, frames), as JSON.
    """

    episode_id: str
    fingerprint: str
    task: str
    grid: Grid
    columns: Mapping[str, Numbers]
    pictures: Mapping[str, Pictures]
    persistent: Sequence[Words] | None = None
    events: Sequence[Words] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.grid)

    def check(self) -> None:
        """Raise ExportError if numbers or words do not fit the grid."""
        if not self.task.strip():
            self._refuse("it has no task: give the text of an instruction")
        if not len(self):
            self._refuse("it has no frames")
        for key, column in self.columns.items():
            self._check_column(key, column)
        for words in (*(self.persistent or ()), *(self.events or ())):
            if not 0 <= words.tick < len(self):
                self._refuse(f"the words {words.content!r} are at tick {words.tick} of {len(self)}")

    def show(self, key: str) -> Iterator[np.ndarray]:
        """Yield the pictures of a camera. Raises ExportError with the reason if they cannot be
        read; RawAwayError is left as it is, since it is not about this episode."""
        try:
            yield from self.pictures[key]()
        except RawAwayError:
            raise
        except (OSError, ValueError) as error:
            raise ExportError(f"episode {self.episode_id}: {key}: {error}") from error

    def digest(self) -> str:
        """Hash of all that an export of it depends on."""
        parts: dict[str, Any] = {
            "id": self.episode_id,
            "pictures": [self.fingerprint, *sorted(self.pictures)],
            "task": self.task,
            "persistent": _as_rows(self.persistent),
            "events": _as_rows(self.events),
            "provenance": self.provenance,
            "columns": {k: [c.names, str(c.values.dtype)] for k, c in self.columns.items()},
            "fps": self.grid.fps,
        }
        found = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        arrays = [self.grid.frames, self.grid.pts_s, self.grid.is_held]
        columns = [self.columns[key].values for key in sorted(self.columns)]
        for values in (*arrays, *columns):
            found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()

    def _check_column(self, key: str, column: Numbers) -> None:
        values = column.values
        if values.ndim != 2 or len(values) != len(self) or not values.shape[1]:
            self._refuse(f"column {key} has shape {values.shape}, not ({len(self)}, n)")
        if str(values.dtype) not in DTYPES:
            self._refuse(f"column {key} is of {values.dtype}: give one of {', '.join(DTYPES)}")
        if column.names is not None and len(column.names) != values.shape[1]:
            self._refuse(f"column {key} has {values.shape[1]} values and {len(column.names)} names")
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            tick = int(np.argmin(finite))
            self._refuse(
                f"column {key} is not finite at tick {tick} (frame {self.grid.frames[tick]}): fill "
                "it, and add a column that says what was filled"
            )

    def _refuse(self, why: str) -> None:
        raise ExportError(f"episode {self.episode_id}: {why}")


def _as_rows(words: Sequence[Words] | None) -> list[list[Any]] | None:
    if words is None:
        return None
    return [[w.content, w.tick, w.style, w.role, w.camera] for w in words]
