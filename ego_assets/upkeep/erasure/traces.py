"""Searches for videos that were forgotten: in names of files, in rows of all versions, in what
files say of themselves, and in every byte that is no column or array.

It reads what it searches, and nothing changes. Not here: what is done about it (`erase`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ego_assets.catalog import TABLES
from resources.lake import Lake, LakeError, erasure
from resources.raw import tombstones

_HEX = re.compile(rb"[0-9a-f]{16,}")
_PARQUET = b"PAR1"
OWN_FOLDERS = (f"{tombstones.FOLDER}/", "_ledger/", ".dagster/")
"""Tombstones; and databases, where a row is known by more than its bytes."""


@dataclass(frozen=True)
class Trace:
    """A file of the lake that holds something of a video. where: its name, its rows, its words."""

    video_id: str
    key: str
    where: str

    @property
    def table(self) -> str:
        folder = self.key.partition("/")[0]
        return folder if folder in TABLES else ""

    @property
    def shard(self) -> str:
        if not self.table:
            return ""
        parts = PurePosixPath(self.key).parts
        return parts[2] if len(parts) > 3 else PurePosixPath(parts[-1]).stem


def find_traces(
    lake: Lake, videos: Collection[str], shards: Collection[str] | None = None
) -> Iterator[Trace]:
    """Search the lake for videos; of tables only these shards, if they are given."""
    wanted = set(videos)
    if not wanted:
        return
    for key in lake.storage.everything():
        if key.startswith(OWN_FOLDERS) or (shards is not None and not _is_of_any(key, shards)):
            continue
        name = key.rpartition("/")[2].encode()
        if found := _ids(name, wanted):
            yield from (Trace(video, key, "its name") for video in sorted(found))
            continue
        with suppress(FileNotFoundError):
            yield from _inside(lake, key, wanted)


def trace_in(lake: Lake, key: str, video: str) -> bool:
    """Whether a file holds something of a video."""
    return any(True for _ in _inside(lake, key, {video}))


def _is_of_any(key: str, shards: Collection[str]) -> bool:
    """Whether a file may be of one of these shards: one of a table says of which it is."""
    trace = Trace("", key, "")
    return not trace.table or trace.shard in shards or trace.shard.partition(".")[0] in shards


def _inside(lake: Lake, key: str, wanted: set[str]) -> Iterator[Trace]:
    if key.endswith(".npz"):
        return  # numbers; of whose they are says the name
    if key.endswith(".parquet"):
        with suppress(LakeError):  # damaged: the audit tells
            found, where = _in_rows(erasure.read(lake, key, texts=True), wanted)
            yield from (Trace(video, key, where) for video in sorted(found))
        return
    data = lake.storage.read(key)
    if data.startswith(_PARQUET):  # written aside by somebody who was killed
        with suppress(pa.ArrowInvalid, OSError):
            found, where = _in_rows(pq.read_table(pa.BufferReader(data)), wanted)
            yield from (Trace(video, key, where) for video in sorted(found))
        return
    yield from (Trace(video, key, "its words") for video in sorted(_ids(data, wanted)))


def _in_rows(batch: pa.Table, wanted: set[str]) -> tuple[set[str], str]:
    metadata = b" ".join((batch.schema.metadata or {}).values())
    if found := _ids(metadata, wanted):
        return found, "what it says of itself"
    for name in batch.column_names:
        column = batch[name]
        while pa.types.is_list(column.type):
            column = pc.list_flatten(column)
        if not pa.types.is_string(column.type):
            continue
        values = [v for v in column.unique().to_pylist() if v]
        if found := _ids(" ".join(values).encode(), wanted):
            return found, f"its column {name}"
    return set(), ""


def _ids(data: bytes, wanted: set[str]) -> set[str]:
    """Those of the videos whose ids are in bytes: also where one is part of a longer hash."""
    runs = (match.group().decode() for match in _HEX.finditer(data))
    return {run[i : i + 16] for run in runs for i in range(len(run) - 15)} & wanted
