"""The tables of a data set: rows, episodes, tasks; and what `info.json` says of their columns.

Facts about the format are in `docs/exports.md`. Here: schemas and tables. Not here: which file they
go to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ego_assets.exports.episode import ExportEpisode, Numbers, Words
from ego_assets.exports.grid import ExportError
from ego_assets.exports.lerobot import statistics
from ego_assets.exports.video import Size

FIXED = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""Columns that every data set has."""
TRUE_TIME, SOURCE_FRAME, IS_HELD = "true_time_s", "source_frame", "is_held"
PERSISTENT, EVENTS = "language_persistent", "language_events"
_RESERVED = {*FIXED, TRUE_TIME, SOURCE_FRAME, IS_HELD, PERSISTENT, EVENTS, "task"}
_PERSISTENT_STYLES = ("subtask", "plan", "memory", "motion", "task_aug")
_EVENT_STYLES = ("interjection", "vqa", "trace")
_OF_A_CAMERA = ("vqa", "trace")
_NEVER_NULL = ("role", "timestamp")
PICTURES = "observation.images."


def features_of(episode: ExportEpisode, sizes: Mapping[str, Size]) -> dict[str, dict[str, Any]]:
    """What `info.json` says of the columns; pictures without `info`."""
    columns = _in_order(episode.columns) | _of_grid(episode)
    features: dict[str, dict[str, Any]] = {
        key: {
            "dtype": str(column.values.dtype),
            "shape": [column.values.shape[1]],
            "names": None if column.names is None else list(column.names),
        }
        for key, column in columns.items()
    }
    for key in sorted(episode.pictures):
        width, height = sizes.get(key, (0, 0))
        shape = [height, width, 3]
        features[key] = {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]}
    features |= {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in FIXED.items()}
    for key, words in ((PERSISTENT, episode.persistent), (EVENTS, episode.events)):
        if words is not None:
            features[key] = {"dtype": "language", "shape": [1], "names": None}
    return features


def check_keys(episode: ExportEpisode) -> None:
    """Raise ExportError for names and styles that the format does not know."""
    for key in (*episode.columns, *episode.pictures):
        if "/" in key or key in _RESERVED:
            raise ExportError(
                f"column {key!r}: LeRobot reserves the name, or cannot have a / in it"
            )
    for key in episode.pictures:
        if not key.startswith(PICTURES):
            raise ExportError(f"pictures {key!r}: LeRobot wants {PICTURES}NAME")
    for words, styles in (
        (episode.persistent, _PERSISTENT_STYLES),
        (episode.events, _EVENT_STYLES),
    ):
        for one in words or ():
            _check_words(one, styles, episode.pictures)


def rows_of(episode: ExportEpisode) -> pa.Table:
    """The rows of an episode that is the first of a data set: `renumbered` makes it another."""
    ticks = np.arange(len(episode), dtype=np.int64)
    zeros = np.zeros(len(episode), np.int64)
    timestamps = (ticks / episode.grid.fps).astype(np.float32)
    columns = {
        key: _array(c.values) for key, c in (_in_order(episode.columns) | _of_grid(episode)).items()
    }
    columns |= {
        "timestamp": pa.array(timestamps),
        "frame_index": pa.array(ticks),
        "episode_index": pa.array(zeros),
        "index": pa.array(ticks),
        "task_index": pa.array(zeros),
    }
    if episode.persistent is not None:
        columns[PERSISTENT] = _words_array([list(episode.persistent)] * len(episode), timestamps)
    if episode.events is not None:
        at: dict[int, list[Words]] = {}
        for one in episode.events:
            at.setdefault(one.tick, []).append(one)
        columns[EVENTS] = _words_array([at.get(tick, []) for tick in range(len(episode))], None)
    return pa.table(columns)


def renumbered(rows: pa.Table, episode: int, first_index: int, task: int) -> pa.Table:
    """The same episode at another place of a data set."""
    count = rows.num_rows
    numbers = {
        "episode_index": np.full(count, episode, np.int64),
        "index": np.arange(first_index, first_index + count, dtype=np.int64),
        "task_index": np.full(count, task, np.int64),
    }
    for name, values in numbers.items():
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    return rows


def numbers_of(rows: pa.Table) -> dict[str, np.ndarray]:
    """Columns that have statistics, as (T, n)."""
    found: dict[str, np.ndarray] = {}
    for name in rows.column_names:
        if name in (PERSISTENT, EVENTS):
            continue
        column = rows[name].combine_chunks()
        width = column.type.list_size if pa.types.is_fixed_size_list(column.type) else 1
        flat = column.flatten() if width > 1 else column
        found[name] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
    return found


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """A pandas frame with the task as its index, which is how LeRobot finds it."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": tasks})

    def column(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
        return {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_kind,
            "metadata": None,
        }

    description = {
        "index_columns": ["task"],
        "column_indexes": [column_of_names := column("", "unicode", "object")],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    column_of_names |= {"name": None, "field_name": None, "metadata": {"encoding": "UTF-8"}}
    return table.replace_schema_metadata({"pandas": json.dumps(description)})


def episodes_table(rows: Sequence[dict[str, Any]], stats: Sequence[dict[str, Any]]) -> pa.Table:
    """One row an episode, with its statistics as `stats/{column}/{name}`."""
    columns: dict[str, pa.Array] = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    for key in stats[0]:
        for name in statistics.NAMES:
            columns[f"stats/{key}/{name}"] = pa.array([each[key][name] for each in stats])
    return pa.table(columns)


def _in_order(columns: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """Sort columns, so that episodes may bring them in any order."""
    return dict(sorted(columns.items()))


def _of_grid(episode: ExportEpisode) -> dict[str, Numbers]:
    """What a tick really shows. Not named `observation`: policies would take it for a state."""
    grid = episode.grid
    return {
        TRUE_TIME: Numbers(grid.pts_s.astype(np.float64)[:, None]),
        SOURCE_FRAME: Numbers(grid.frames.astype(np.int64)[:, None]),
        IS_HELD: Numbers(grid.is_held.astype(bool)[:, None]),
    }


def _array(values: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values).ravel())
    width = values.shape[1]
    return flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)


def _check_words(words: Words, styles: Sequence[str], cameras: Mapping[str, Any]) -> None:
    if words.style not in styles:
        raise ExportError(f"words of style {words.style!r} here: LeRobot has {', '.join(styles)}")
    if words.style in _OF_A_CAMERA and words.camera not in cameras:
        raise ExportError(f"words of style {words.style} name pictures: {', '.join(cameras)}")
    if words.style not in _OF_A_CAMERA and words.camera is not None:
        raise ExportError(f"words of style {words.style} name no pictures")


def _words_array(rows: Sequence[Sequence[Words]], timestamps: np.ndarray | None) -> pa.Array:
    """A list of words a row. timestamps: of all ticks, for words that say when they begin."""
    words = [one for row in rows for one in row]
    fields: dict[str, pa.Array] = {
        "role": pa.array([one.role for one in words], pa.string()),
        "content": pa.array([one.content for one in words], pa.string()),
        "style": pa.array([one.style for one in words], pa.string()),
    }
    if timestamps is not None:
        fields["timestamp"] = pa.array(timestamps[[one.tick for one in words]], pa.float32())
    fields["camera"] = pa.array([one.camera for one in words], pa.string())
    fields["tool_calls"] = pa.nulls(len(words), pa.list_(pa.json_(pa.string())))
    ends = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int32)
    nullable = [pa.field(n, a.type, nullable=n not in _NEVER_NULL) for n, a in fields.items()]
    each = pa.StructArray.from_arrays(list(fields.values()), fields=nullable)
    return pa.ListArray.from_arrays(pa.array(ends), each)
