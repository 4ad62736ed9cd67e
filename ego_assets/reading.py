"""Reads tables, masks and frames of a lake: what training code needs, without the platform.

Works with what `pip install ego-assets` brings. Here: `open_lake`, and the functions that turn
masks and videos into arrays. Not here: videos, clips and episodes one by one (`stretches`), torch
(`training`), anything that writes, SQL (`ego sql`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.catalog import TABLES
from ego_assets.models.suggestions import did_you_mean
from ego_assets.operator import BadInputError, Frame
from ego_assets.quality.failed import failed_checks
from ego_assets.stretches import (
    ClipReader,
    EpisodeReader,
    RecordingReader,
    VideoReader,
    readers_of,
    recordings_of,
)
from ego_assets.vision.rle import decode_mask, encode_mask
from resources.lake import Lake, LakeError, holdings
from resources.raw.reader import RawReader
from resources.raw.uris import is_remote, path_of

if TYPE_CHECKING:
    import polars as pl

    from ego_assets.media.cursor import FrameCursor

__all__ = [
    "TABLES",
    "BadInputError",
    "ClipReader",
    "EpisodeReader",
    "Frame",
    "LakeError",
    "LakeReader",
    "RecordingReader",
    "VideoReader",
    "array_of",
    "decode_mask",
    "encode_mask",
    "open_lake",
    "read_frames",
]

_CONTEXT = "is_context"


def open_lake(root: str | Path) -> LakeReader:
    """Open a lake for reading: a folder, or `s3://bucket/prefix`.

    Raises FileNotFoundError if there is no lake, ModuleNotFoundError for one on S3 if boto3 is
    not installed (`pip install 'ego-assets[s3]'`).
    """
    lake = Lake(root)
    if not lake.storage.is_lake():
        raise FileNotFoundError(f"there is no lake at {lake.location}")
    return LakeReader(lake)


class LakeReader:
    """The tables of a lake, read only. May be pickled, as data loaders do.

    Every row is read exactly once, also while a run is writing: rows of clips that are done but
    whose shard is still in progress are included.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._raw = RawReader()
        self._files: dict[str, dict[str, tuple[str, int | None]]] = {}

    @property
    def lake(self) -> Lake:
        """The lake that it reads."""
        return self._lake

    @property
    def location(self) -> str:
        """Where the lake is: an absolute path, or an `s3://` prefix."""
        return self._lake.location

    def __repr__(self) -> str:
        return f"open_lake({self.location!r})"

    def tables(self) -> list[str]:
        """Names of the tables that hold something, in the order of the graph."""
        return [name for name in TABLES if self.shards(name)]

    def shards(self, table: str = "clips") -> list[str]:
        """Shards that have rows in a table, sorted. Deal them out to workers or ranks."""
        _check_table(table)
        done = {Path(key).stem for key in self._lake.compacted_files(table)}
        return sorted(done | set(holdings.fragments(self._lake, table)))

    def table(
        self,
        name: str,
        *,
        columns: Sequence[str] | None = None,
        shards: Iterable[str] | None = None,
        context: bool = True,
    ) -> pa.Table:
        """Read a table as a whole, with the types of the data contract.

        Args:
            name: one of `TABLES`, such as `"hand_poses"`.
            columns: names of the columns to read; all of them by default.
            shards: shards to read; all of them by default.
            context: whether to keep the rows in the leading overlap of clips. The clip before has
                rows of its own for these frames, so `False` gives each frame once.

        Raises ValueError for an unknown table or column, LakeError for a damaged file.
        """
        names = _check_columns(name, columns)
        empty = TABLES[name].arrow_schema().empty_table().select(names)
        parts = self.by_shard(name, columns=names, shards=shards, context=context)
        return pa.concat_tables([empty, *parts])

    def by_shard(
        self,
        name: str,
        *,
        columns: Sequence[str] | None = None,
        shards: Iterable[str] | None = None,
        context: bool = True,
    ) -> Iterator[pa.Table]:
        """Read a table shard by shard, for tables that are larger than the memory.

        Takes and raises what `table` does.
        """
        names = _check_columns(name, columns)
        wanted = self.shards(name) if shards is None else shards
        return (self._rows(name, shard, names, context) for shard in wanted)

    def _rows(self, table: str, shard: str, names: list[str], context: bool) -> pa.Table:
        if context or _CONTEXT not in TABLES[table].model_fields:
            return self._lake.read(table, shard, columns=names)
        rows = self._lake.read(table, shard, columns=list(dict.fromkeys([*names, _CONTEXT])))
        return rows.filter(pc.invert(rows[_CONTEXT])).select(names)

    def dataframe(
        self,
        name: str,
        *,
        columns: Sequence[str] | None = None,
        shards: Iterable[str] | None = None,
        context: bool = True,
    ) -> pl.DataFrame:
        """Read a table as a polars DataFrame.

        Takes and raises what `table` does; ModuleNotFoundError if polars is not installed.
        """
        try:
            import polars as pl
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "dataframe() needs polars: pip install polars; table() does without it"
            ) from error
        return pl.DataFrame(self.table(name, columns=columns, shards=shards, context=context))

    def videos(self, *, shards: Iterable[str] | None = None) -> Iterator[VideoReader]:
        """Go through the accepted videos, shard by shard."""
        return readers_of(VideoReader, self, self.shards("video_manifest"), shards)

    def clips(
        self, *, shards: Iterable[str] | None = None, context: bool = True
    ) -> Iterator[ClipReader]:
        """Go through the clips, shard by shard.

        context: whether clips begin with their overlap with the clip before, as in the tables.
        """
        found = readers_of(ClipReader, self, self.shards("clips"), shards)
        return found if context else (clip.without_context() for clip in found)

    def episodes(
        self, *, shards: Iterable[str] | None = None, split: str | None = None
    ) -> Iterator[EpisodeReader]:
        """Go through the episodes, shard by shard; of one split, such as `"train"`, or of all."""
        found = readers_of(EpisodeReader, self, self.shards("episodes"), shards)
        return (e for e in found if split is None or e.row["split"] == split)

    def recordings(self) -> list[RecordingReader]:
        """List the recordings: files that are chapters of one count as one, whatever their
        shards; any other video is a recording of its own."""
        return list(recordings_of(self).values())

    def recording(self, name: str) -> RecordingReader:
        """The recording with a `recording_id`; of a video that is no chapter, its `video_id`.

        Raises ValueError if there is none.
        """
        found = recordings_of(self).get(name)
        if found is None:
            raise ValueError(
                f"{self.location} has no recording {name!r}: `recording_id` of video_manifest "
                "names those of several files, `video_id` all others"
            )
        return found

    def times_of_episode(self, shard: str, episode_id: str) -> dict[int, float]:
        """{frame_index: pts_s} of an episode."""
        columns = ["episode_id", "frame_index", "pts_s"]
        rows = self.table("episode_frames", columns=columns, shards=[shard])
        mine = rows.filter(pc.field("episode_id") == episode_id)
        return dict(zip(*(mine[c].to_pylist() for c in columns[1:]), strict=True))

    def versions(self, table: str, shard: str) -> list[str]:
        """Versions of the operators that made a shard's rows: what changes them changes these."""
        _check_table(table)
        made = self._lake.provenances(table, shard).values()
        return sorted({f"{p.operator} {p.operator_version}" for p in made})

    def arrays(self, uri: str) -> dict[str, np.ndarray]:
        """Read the arrays that a row points to, such as the points at `points_uri`."""
        return self._lake.read_arrays(uri)

    def settings_of(self, table: str, clip: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the rows of a clip were made with; empty if it has none."""
        _check_table(table)
        made = self._lake.provenance(table, clip["shard"], clip["clip_id"])
        settings: dict[str, Any] = json.loads(made.settings) if made else {}
        return settings

    def failed_checks(self, shard: str) -> list[dict[str, str]]:
        """List the quality checks that failed in the last look at a shard, errors first.

        Each has `asset` (its table), `shard`, `check`, `severity` (`error` or `warn`), `reason`.
        """
        return [c for c in failed_checks(self._lake, TABLES) if c["shard"] == shard]

    def frames(
        self, clip: Mapping[str, Any], *, max_side_px: int | None = None, context: bool = True
    ) -> Iterator[Frame]:
        """Decode the frames of a clip from its raw video.

        Args:
            clip: a row of `clips`, as `lake.table("clips").to_pylist()` gives it.
            max_side_px: shrink pictures to this size; `frame.scale` says by how much.
            context: whether to include the leading overlap with the clip before.

        A raw video on S3 is copied to a scratch folder first (`EGO_SCRATCH`). Raises BadInputError
        if the video does not decode, FileNotFoundError if it is gone.
        """
        start = clip["start_frame"] + (0 if context else clip["context_frames"])
        uri, stream = self._file(clip["shard"], clip["video_id"])
        yield from _read(self._raw, uri, start, clip["end_frame"], max_side_px, stream)

    @contextmanager
    def cursor(
        self, shard: str, video_id: str, fit: tuple[int, int] | None = None, kept: int = 1
    ) -> Iterator[FrameCursor]:
        """Open a raw video for frames in any order: `cursor.frame(index)`.

        fit: (height, width) that pictures are shrunk to fit into; kept: pictures that were asked
        for last and need not be decoded again. Raises what `frames` does.
        """
        from ego_assets.media.cursor import FrameCursor

        uri, stream = self._file(shard, video_id)
        open_cursor = partial(FrameCursor, fit=fit, kept=kept, stream_index=stream)
        if is_remote(uri):
            with self._raw.hold(uri) as path, open_cursor(path) as cursor:
                yield cursor
        else:
            with open_cursor(path_of(uri)) as cursor:
                yield cursor

    def _file(self, shard: str, video_id: str) -> tuple[str, int | None]:
        """The uri of a video, and which of its streams was taken."""
        if shard not in self._files:
            columns = ["video_id", "uri", "accepted", "video_stream_index"]
            rows = self._lake.read("video_manifest", shard, columns=columns).to_pylist()
            self._files[shard] = {
                r["video_id"]: (r["uri"], r["video_stream_index"]) for r in rows if r["accepted"]
            }
        try:
            return self._files[shard][video_id]
        except KeyError:
            raise LakeError(
                f"{self.location}: shard {shard} has no accepted video {video_id} in video_manifest"
            ) from None


def read_frames(
    video: str | Path,
    start: int = 0,
    end: int | None = None,
    *,
    max_side_px: int | None = None,
    stream_index: int | None = None,
) -> Iterator[Frame]:
    """Decode frames `start` to `end` (exclusive) of a video: upright RGB pictures, in order.

    Args:
        video: a path, or the `uri` of a row of `video_manifest`.
        start: the first frame, counted in presentation order as `frame_index` is.
        end: one past the last frame; the end of the video by default.
        max_side_px: shrink pictures to this size; `frame.scale` says by how much.
        stream_index: of the video stream in the file, as `video_stream_index` of a row has it; the
            largest by default.

    Decoding runs ahead in a thread, in bounded memory; frames that do not decode, or only with what
    a decoder makes up where the file is damaged, are left out.
    Raises BadInputError if the file is no video or has no such frames.
    """
    uri = video if isinstance(video, str) else str(video.expanduser())
    yield from _read(RawReader(), uri, start, end, max_side_px, stream_index)


def _read(
    raw: RawReader,
    uri: str,
    start: int,
    end: int | None,
    max_side_px: int | None,
    stream: int | None,
) -> Iterator[Frame]:
    if is_remote(uri):
        with raw.hold(uri) as path:
            yield from _decode(path, start, end, max_side_px, stream)
    else:  # not held: that would hash the whole file for each clip
        yield from _decode(path_of(uri), start, end, max_side_px, stream)


def _decode(
    path: Path, start: int, end: int | None, max_side_px: int | None, stream: int | None
) -> Iterator[Frame]:
    # Imported here: libav takes a third of a second, and tables alone do without it.
    from ego_assets.media.decode import ClipFrames
    from ego_assets.media.frame_index import index_frames

    last = len(index_frames(path, stream)) if end is None else end
    yield from ClipFrames(path, start, last, stream_index=stream).read(max_side_px=max_side_px)


def _check_table(name: str) -> None:
    if name not in TABLES:
        raise ValueError(
            f"there is no table {name!r}{did_you_mean(name, TABLES)}; there are {', '.join(TABLES)}"
        )


def _check_columns(table: str, wanted: Sequence[str] | None) -> list[str]:
    _check_table(table)
    known = TABLES[table].arrow_schema().names
    for column in wanted or ():
        if column not in known:
            raise ValueError(f"{table} has no column {column!r}{did_you_mean(column, known)}")
    return known if wanted is None else list(wanted)
