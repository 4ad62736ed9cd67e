"""What is shown: clips of one video, the rows of every table on them, and their pictures.

Here: reading. Not here: drawing, and which clips a name stands for (`dagster_project.cli.names`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ego_assets.media.sheets import Rows
from ego_assets.operator import BadInputError, Frame, Intrinsics, intrinsics_of
from ego_assets.reading import LakeReader
from ego_assets.viewing.shown import SHOWN
from ego_assets.vision import draw


@dataclass(frozen=True)
class ClipRows:
    """A clip and its rows. frames, seconds: (F,) of the frames that are shown of it.

    tables: rows by table, ordered by frame; without those of the overlap with a clip that is shown,
    too.
    """

    clip: dict[str, Any]
    frames: np.ndarray
    seconds: np.ndarray
    tables: dict[str, Rows]
    is_continued: bool

    @property
    def name(self) -> str:
        found: str = self.clip["clip_id"]
        return found

    def timed(self, times: Mapping[int, float]) -> ClipRows:
        """The clip with the times that its frames turned out to have, where they are known."""
        seconds = self.seconds.copy()
        for frame, at in times.items():
            seconds[frame - self.frames[0]] = at
        return replace(self, seconds=seconds)

    def by_track(self, table: str) -> dict[str, dict[int, dict[str, Any]]]:
        """{track: {frame: row}} of a table; of several rows (robots, methods), the first."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for row in self.tables[table]:
            found.setdefault(row["track_id"], {}).setdefault(row["frame_index"], row)
        return found

    def by_frame(self, table: str) -> dict[int, Rows]:
        """{frame: its rows} of a table."""
        found: dict[int, Rows] = {}
        for row in self.tables[table]:
            found.setdefault(row["frame_index"], []).append(row)
        return found


@dataclass(frozen=True)
class ShownClips:
    """Clips of one video, in order. name: what a person asked for; max_side_px: of the pictures."""

    lake: LakeReader
    name: str
    video: dict[str, Any]
    clips: Sequence[dict[str, Any]]
    max_side_px: int
    _tables: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, lake: LakeReader, name: str, clips: Sequence[dict[str, Any]], max_side_px: int
    ) -> ShownClips:
        """The clips of a video, rows of `clips`. Raises BadInputError if there is no such video."""
        shard, video_id = clips[0]["shard"], clips[0]["video_id"]
        videos = lake.table("video_manifest", shards=[shard]).filter(
            (pc.field("video_id") == video_id) & pc.field("accepted")
        )
        if not videos.num_rows:
            raise BadInputError(f"shard {shard} has no accepted video {video_id}")
        ordered = sorted(clips, key=lambda clip: clip["start_frame"])
        return cls(lake, name, videos.to_pylist()[0], ordered, max_side_px)

    @property
    def file(self) -> str:
        return Path(self.video["uri"]).name

    @property
    def scale(self) -> float:
        """Width of the pictures that are shown over that of the video."""
        return self.size[0] / float(self.video["width_px"])

    @cached_property
    def size(self) -> tuple[int, int]:
        """(width, height) of the pictures that are shown."""
        width, height = self.video["width_px"], self.video["height_px"]
        share = min(1.0, self.max_side_px / max(width, height))
        return max(1, round(width * share)), max(1, round(height * share))

    @cached_property
    def intrinsics(self) -> Intrinsics:
        return intrinsics_of(self.video)

    def pictures(self, clip: ClipRows) -> Iterator[Frame]:
        """The frames of a clip that are shown, without those that do not decode.

        Raises BadInputError, FileNotFoundError.
        """
        return self.lake.frames(
            clip.clip, max_side_px=self.max_side_px, context=not clip.is_continued
        )

    def objects(self) -> dict[str, str]:
        """{track: name} of every object in the clips."""
        found: dict[str, str] = {}
        for shard in dict.fromkeys(clip["shard"] for clip in self.clips):
            rows = self._table("object_masks", shard).select(["track_id", "label"])
            for row in rows.group_by(["track_id", "label"]).aggregate([]).to_pylist():
                found.setdefault(row["track_id"], object_name(row))
        return found

    def read(self) -> Iterator[ClipRows]:
        """The clips one after another, with their rows."""
        shown_until = 0
        for clip in self.clips:
            continued = clip["context_frames"] > 0 and clip["start_frame"] < shown_until
            shown_until = clip["end_frame"]
            yield self._rows_of(clip, continued)

    def _rows_of(self, clip: dict[str, Any], continued: bool) -> ClipRows:
        tables = {}
        for name in SHOWN:
            rows = self._table(name, clip["shard"]).filter(pc.field("clip_id") == clip["clip_id"])
            if continued and "is_context" in rows.column_names:
                rows = rows.filter(pc.invert(rows["is_context"]))
            if "frame_index" in rows.column_names:
                at = pc.field("frame_index")
                inside = (at >= clip["start_frame"]) & (at < clip["end_frame"])
                rows = rows.filter(inside).sort_by("frame_index")
            tables[name] = rows.to_pylist()
        first = clip["start_frame"] + (clip["context_frames"] if continued else 0)
        frames = np.arange(first, clip["end_frame"])
        return ClipRows(clip, frames, _seconds(clip, frames, tables), tables, continued)

    def columns_of(self, name: str, columns: tuple[str, ...], shard: str) -> Any:
        """Columns of a table of a shard (none given: all of them), read once for all clips."""
        key = "columns", name, shard, *columns
        if key not in self._tables:
            self._tables[key] = self.lake.table(name, columns=columns or None, shards=[shard])
        return self._tables[key]

    def _table(self, name: str, shard: str) -> Any:
        key = name, shard
        if key not in self._tables:
            shown = pc.field("clip_id").isin([clip["clip_id"] for clip in self.clips])
            self._tables[key] = self.lake.table(name, shards=[shard]).filter(shown)
        return self._tables[key]


def _seconds(clip: dict[str, Any], frames: np.ndarray, tables: dict[str, Rows]) -> np.ndarray:
    """(F,) times of frames: as rows have it, and evenly spread in between where there is none."""
    known = {
        row["frame_index"]: row["pts_s"]
        for rows in tables.values()
        for row in rows
        if "frame_index" in row
    }
    known.setdefault(clip["start_frame"], clip["start_pts_s"])
    known.setdefault(clip["end_frame"], clip["end_pts_s"])
    at = sorted(known)
    seconds: np.ndarray = np.interp(frames, at, [known[index] for index in at])
    return seconds


def parts_of_episode(
    episode: Mapping[str, Any], clips: Iterable[dict[str, Any]], times: Mapping[int, float]
) -> list[dict[str, Any]]:
    """The clips (rows of `clips`, of any) that an episode is made of, in order, each from its first
    to its last frame in it. times: `pts_s` of the episode's frames."""
    start, end = episode["start_frame"], episode["end_frame"]
    parts: list[dict[str, Any]] = []
    for clip in sorted(clips, key=lambda clip: int(clip["start_frame"])):
        first = clip["start_frame"] + clip["context_frames"]
        if clip["take_id"] != episode["take_id"] or clip["end_frame"] <= start or first >= end:
            continue
        part = clip | {"start_frame": max(first, start), "context_frames": 0}
        part["end_frame"] = min(clip["end_frame"], end)
        part["start_pts_s"] = times.get(part["start_frame"], episode["start_pts_s"])
        part["end_pts_s"] = times.get(part["end_frame"], episode["end_pts_s"])
        parts.append(part)
    return parts


def hand_name(row: dict[str, Any]) -> str:
    """What a hand is called, by a row of a table of hands."""
    return f"{row['side']} {draw.short_track(row['track_id'])}"


def object_name(row: dict[str, Any]) -> str:
    """What an object is called, by a row of its masks."""
    return f"{row['label']} {draw.short_track(row['track_id'])}"
