"""Runs the operators of the graph on one video, without Dagster, lake or worker.

Here: probing, splitting, feeding each operator with what those before it made, clip by clip
with what a take carries. Not here: truth and metrics.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.catalog import TABLES
from ego_assets.media.decode import ClipFrames
from ego_assets.models import registry
from ego_assets.operator import Carried, ClipInput, Rows, intrinsics_of
from ego_assets.videos.clips import ClipSplitter
from ego_assets.videos.inspection import probe_file
from ego_assets.videos.settings import ClipSettings, ManifestSettings

SHARD = "20260101-0000"
OPERATORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "segmenter": ("landmarks", ()),
    "hand_estimator": ("landmarks", ("hand_masks",)),
    "reconstructor": ("pycolmap", ("object_masks", "hand_masks")),
    "object_pose_estimator": ("baseline", ("object_masks", "hand_masks", "scene_reconstruction")),
    "movement_estimator": (
        "baseline",
        ("object_masks", "hand_masks", "object_poses", "scene_reconstruction"),
    ),
    "retargeter": ("gauss_newton", ("hand_poses",)),
}
"""Backend and inputs of each operator, in the order of the graph."""

Upstream = Callable[[str, Mapping[str, Any]], Rows]
"""(table, clip row) → true rows, where an operator is to be fed with the truth."""


@dataclass
class GraphRun:
    """rows by table (all clips, context included), seconds and failures by operator."""

    video: dict[str, Any]
    clips: Rows
    tables: dict[str, Rows] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def cuts(self) -> list[int]:
        """First frame of each clip that a cut begins."""
        return [c["start_frame"] for c in self.clips if c["split_reason"] in ("cut", "transition")]

    def rows(self, table: str) -> Rows:
        """Rows of a table with each frame once."""
        return [r for r in self.tables.get(table, []) if not r.get("is_context", False)]


def probe(path: Path) -> dict[str, Any]:
    """The row of `video_manifest` of one file. Raises ValueError if it is rejected."""
    sha256, size, columns = probe_file(path, ManifestSettings())
    row = {
        "video_id": sha256[:16],
        "shard": SHARD,
        "uri": str(path),
        "byte_size": size,
        "sha256": sha256,
    } | columns
    if not row["accepted"]:
        raise ValueError(f"{path.name} is rejected: {row['reject_reason']} {row['reject_detail']}")
    return row


def split(path: Path, **settings: Any) -> GraphRun:
    """Probe and split only."""
    video = probe(path)
    began = time.perf_counter()
    clips = ClipSplitter(ClipSettings(**settings)).split(video, path)
    return GraphRun(video, clips, seconds={"clips": time.perf_counter() - began})


class _Feeder:
    """Makes an operator's input for a clip out of what is there, or out of the truth."""

    def __init__(self, run: GraphRun, path: Path, upstream: Upstream | None) -> None:
        self.run = run
        self.path = path
        self.upstream = upstream
        self.arrays: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def clip_input(self, clip: Mapping[str, Any], inputs: tuple[str, ...]) -> ClipInput:
        tables = {name: TABLES[name].from_rows(self._rows(name, clip)) for name in inputs}
        arrays: dict[str, Mapping[str, np.ndarray]] = {}
        if self.upstream is None:
            arrays = {n: self.arrays.get((n, clip["clip_id"]), {}) for n in inputs}
        frames = ClipFrames(self.path, clip["start_frame"], clip["end_frame"])
        video = self.run.video
        return ClipInput(clip, video, frames, intrinsics_of(video), tables, arrays)

    def _rows(self, table: str, clip: Mapping[str, Any]) -> Rows:
        if self.upstream is not None:
            rows = self.upstream(table, clip)
        else:
            rows = [r for r in self.run.tables[table] if r["clip_id"] == clip["clip_id"]]
        return sorted(rows, key=lambda r: r["frame_index"])


def run_graph(
    path: Path,
    *,
    backends: Mapping[str, str] | None = None,
    settings: Mapping[str, dict[str, Any]] | None = None,
    only: Iterable[str] | None = None,
    upstream: Upstream | None = None,
    max_clips: int | None = None,
    clip_settings: dict[str, Any] | None = None,
) -> GraphRun:
    """Run the operators in order. An operator that raises is noted; those that need it too.

    backends and settings override by operator; `only` picks operators; `upstream` feeds truth.
    """
    run = split(path, **(clip_settings or {}))
    run.clips = run.clips[:max_clips]
    feeder = _Feeder(run, path, upstream)
    wanted = set(OPERATORS if only is None else only)
    for operator, (default, inputs) in OPERATORS.items():
        if operator not in wanted:
            continue
        lacking = [n for n in inputs if upstream is None and n not in run.tables]
        if lacking:
            run.failures[operator] = f"no {', '.join(lacking)}"
            continue
        began = time.perf_counter()
        try:
            _run_operator(
                run,
                feeder,
                registry.build(
                    operator,
                    (backends or {}).get(operator, default),
                    (settings or {}).get(operator, {}),
                ),
                inputs,
            )
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            run.failures[operator] = (
                f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
            )
        run.seconds[operator] = time.perf_counter() - began
    return run


def _run_operator(run: GraphRun, feeder: _Feeder, operator: Any, inputs: tuple[str, ...]) -> None:
    carried: Carried | None = None
    take = None
    made: dict[str, Rows] = {}
    for clip in run.clips:
        if clip["take_id"] != take:
            carried, take = None, clip["take_id"]
        output = operator.process(feeder.clip_input(clip, inputs), carried)
        carried = output.carried
        for name, rows in output.tables.items():
            TABLES[name].from_rows(rows)
            made.setdefault(name, []).extend(rows)
        for name, arrays in output.arrays.items():
            feeder.arrays[name, clip["clip_id"]] = arrays
    # Only once all clips are through: a half-filled table would feed those that come after.
    run.tables.update(made)
