"""Seam error: how much two clips of a take disagree about the frames that both have.

Adjacent clips overlap, and each is worked on without knowing the other's result there (but for
what is carried over). Where they disagree one of them is wrong: an accuracy figure without truth.
Here: which frames are compared. Not here: the disagreement of a table (`seam.py` of its room), what
is too much (`common_probes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from ego_assets import catalog
from ego_assets.feature import load

Row = Mapping[str, Any]
Frames = dict[int, dict[str, Row]]
"""Rows by frame and track; the track is "" where a table has none."""
_ROW = ("clip_id", "frame_index", "track_id")


@dataclass(frozen=True)
class Seam:
    """How the rows of two clips disagree.

    columns: what `measure` reads besides clip, frame and track; measure: the rows of the common
    frames, by either clip, to disagreements in `unit`; limit: the threshold, a field of the room's
    probe settings.
    """

    unit: str
    columns: tuple[str, ...]
    measure: Callable[[Frames, Frames], list[float]]
    limit: str


@cache
def seam_of(table: str) -> Seam | None:
    """The seam that a table's room declares, if any."""
    declared = catalog.info(table).seam
    return load(declared) if declared else None


def seam_errors(table: str, rows: pa.Table, clips: pa.Table) -> np.ndarray:
    """(N,) disagreements, one a frame (and track) that both of two adjacent clips have.

    rows: of `table`; clips: of the table `clips`, of the same videos. A mask that only one of them
    has disagrees by 1; a pose that only one has does not count. Raises KeyError for a table
    without a seam error.
    """
    seam = seam_of(table)
    if seam is None:
        raise KeyError(f"{table} has no seam error")
    by_clip: dict[str, Frames] = {}
    columns = [c for c in (*_ROW, *seam.columns) if c in rows.column_names]
    for row in rows.select(columns).to_pylist():
        track = row.get("track_id") or ""
        by_clip.setdefault(row["clip_id"], {}).setdefault(row["frame_index"], {})[track] = row
    takes: dict[str, list[Row]] = {}
    for clip in sorted(clips.to_pylist(), key=lambda c: (c["take_id"], c["index_in_take"])):
        takes.setdefault(clip["take_id"], []).append(clip)
    found: list[float] = []
    for take in takes.values():
        for before, after in pairwise(take):
            common = range(after["start_frame"], before["end_frame"])
            first, second = (by_clip.get(c["clip_id"], {}) for c in (before, after))
            found += seam.measure(
                {i: first.get(i, {}) for i in common}, {i: second.get(i, {}) for i in common}
            )
    return np.array(found, np.float64)
