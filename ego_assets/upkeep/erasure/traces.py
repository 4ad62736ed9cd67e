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
from ego_assets.galleries.files import FOLDER as GALLERIES
from ego_assets.media.pictures import FOLDER as PREVIEWS
from ego_assets.media.pictures import LATEST
from resources.lake import Lake, LakeError, erasure
from resources.lake.storage import UnsafeKeyError, is_safe
from resources.raw import tombstones
from resources.words import ErasedWords

_HEX = re.compile(rb"[0-9a-f]{16,}")
_PARQUET = b"PAR1"
_BLOCK = 2**22
_LONGEST = 2**15
"""Of a path, in bytes, also where it is quoted."""
_OVERLAP = 15
"""Bytes of an id that may end one block while the rest of it begins the next."""
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
    """Search the lake for videos; of tables, pictures and carried state only these shards, if they
    are given."""
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
        with suppress(FileNotFoundError, UnsafeKeyError):  # `find_unsafe` tells of these
            yield from _inside(lake, key, wanted)


def find_words(lake: Lake, words: ErasedWords, shards: Collection[str]) -> Iterator[str]:
    """Search what `find_traces` does for words: keys of the files that have any."""
    for key in lake.storage.everything():
        if key.startswith(OWN_FOLDERS) or not _is_of_any(key, shards):
            continue
        with suppress(FileNotFoundError, UnsafeKeyError, LakeError, pa.ArrowInvalid):
            if any(map(words.are_in, _texts(lake, key))):
                yield key


def _texts(lake: Lake, key: str) -> Iterator[str]:
    if key.endswith((".npz", ".mp4")):
        return
    if key.endswith(".parquet"):
        batch = erasure.read(lake, key, texts=True)
        yield b"\n".join((batch.schema.metadata or {}).values()).decode(errors="replace")
        for column in batch.columns:
            while pa.types.is_list(column.type):
                column = pc.list_flatten(column)
            yield "\n".join(str(value) for value in column.unique().to_pylist())
        return
    with lake.storage.open(key) as file:
        end = b""
        while block := file.read(_BLOCK):
            yield (end + block).decode(errors="replace")
            end = block[-_LONGEST:]


def find_unsafe(lake: Lake) -> list[str]:
    """Files whose names cannot be used, so that they are not searched."""
    return [key for key in lake.storage.everything() if not is_safe(key)]


def trace_in(lake: Lake, key: str, video: str) -> bool:
    """Whether a file holds something of a video."""
    return any(True for _ in _inside(lake, key, {video}))


def _is_of_any(key: str, shards: Collection[str]) -> bool:
    """Whether a file may be of one of these shards: one of a table says of which it is, and so do
    pictures and carried state, which are most of the bytes of a lake."""
    trace = Trace("", key, "")
    if trace.table:
        return trace.shard in shards or trace.shard.partition(".")[0] in shards
    match key.split("/"):
        case [folder, shard, _] if folder == GALLERIES:
            return shard in shards
        case [folder, _, name] if folder == PREVIEWS:
            stem = name.partition(".")[0]
            return stem in shards or stem == LATEST
        case ["_carried", _, shard, _]:
            return shard in shards
    return True


def _inside(lake: Lake, key: str, wanted: set[str]) -> Iterator[Trace]:
    if key.endswith(".npz"):
        return  # numbers; of whose they are says the name
    if key.endswith(".parquet"):
        with suppress(LakeError):  # damaged: the audit tells
            found, where = _in_rows(erasure.read(lake, key, texts=True), wanted)
            yield from (Trace(video, key, where) for video in sorted(found))
        return
    with lake.storage.open(key) as file:
        block = file.read(_BLOCK)
        if block.startswith(_PARQUET):  # written aside by somebody who was killed
            with suppress(pa.ArrowInvalid, OSError):
                file.seek(0)
                found, where = _in_rows(pq.read_table(file), wanted)
                yield from (Trace(video, key, where) for video in sorted(found))
            return
        found = set[str]()
        end = b""
        while block:
            found |= _ids(end + block, wanted)
            end = (end + block)[-_OVERLAP:]
            block = file.read(_BLOCK)
    yield from (Trace(video, key, "its words") for video in sorted(found))


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
