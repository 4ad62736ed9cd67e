"""Packs: the episodes that share one file of rows, one video a camera, and one file of records.

An episode is first encoded by itself, as a pack of one. Packs are joined from stretches of other
packs, without encoding again. The folder of a pack is there whole or not at all. In it are
`rows.parquet` (a row group an episode), `{n}.mp4` of the nth camera, and `records.parquet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ego_assets.exports.files import made_whole, naming
from ego_assets.exports.video import EncodedRange, join

MAX_SECONDS = 1024
"""Of a video file, unless one episode alone is longer. Readers compare times as float32 and to 1e-4
s; from 1,024 s on float32 has no such steps."""
ROWS = "rows"


@dataclass(frozen=True)
class Record:
    """What is kept of an episode beside its rows and pictures.

    sizes: bytes of its pictures by camera, and of its rows, before they were joined with others;
    stats: of columns that do not depend on its place in the data set, and of pictures;
    bins: (3, 256) counts of the pictures' values by camera.
    """

    episode_id: str
    digest: str
    task: str
    frames: int
    provenance: Mapping[str, Any]
    sizes: Mapping[str, int]
    stats: Mapping[str, Any]
    bins: Mapping[str, list[list[int]]]


@dataclass(frozen=True)
class PackFiles:
    """Where the files of a pack lie."""

    rows: Path
    videos: Mapping[str, Path]
    records: Path

    @classmethod
    def within(cls, folder: Path, cameras: Iterable[str]) -> PackFiles:
        videos = {key: folder / f"{n}.mp4" for n, key in enumerate(sorted(cameras))}
        return cls(folder / "rows.parquet", videos, folder / "records.parquet")

    @property
    def are_there(self) -> bool:
        return all(path.exists() for path in (self.rows, self.records, *self.videos.values()))

    def encoded(self) -> list[Encoded]:
        """The episodes of the pack, in order."""
        found, first = [], 0
        for group, record in enumerate(read_records(self.records)):
            stretches = {k: EncodedRange(v, first, record.frames) for k, v in self.videos.items()}
            found.append(Encoded(record, self.rows, group, stretches))
            first += record.frames
        return found


@dataclass(frozen=True)
class Encoded:
    """An episode that is encoded, and where."""

    record: Record
    rows: Path
    row_group: int
    videos: Mapping[str, EncodedRange]

    def read_rows(self) -> pa.Table:
        with naming(self.rows):
            return pq.ParquetFile(self.rows).read_row_group(self.row_group)


def have_room(records: Sequence[Record], limits: Mapping[str, int], fps: int) -> bool:
    """Whether so many episodes may share files. limits: in bytes, of `ROWS` and of all cameras."""
    if len(records) <= 1:
        return True
    sums = {key: sum(r.sizes[key] for r in records) for key in records[0].sizes}
    seconds = sum(r.frames for r in records) / fps
    return seconds <= MAX_SECONDS and all(sums[key] <= limits[key] for key in sums)


def name_of(digests: Sequence[str]) -> str:
    """Name of the folder of a pack of these episodes."""
    return sha256(" ".join(digests).encode()).hexdigest()[:32]


def join_pack(episodes: Sequence[Encoded], folder: Path, fps: int) -> PackFiles:
    """Make a pack of encoded episodes, in order, unless it is there."""
    cameras = list(episodes[0].videos)
    if not PackFiles.within(folder, cameras).are_there:
        with made_whole(folder) as aside:
            files = PackFiles.within(aside, cameras)
            for key, path in files.videos.items():
                join([episode.videos[key] for episode in episodes], path, fps)
            write_rows(files.rows, (episode.read_rows() for episode in episodes))
            write_records(files.records, [episode.record for episode in episodes])
    return PackFiles.within(folder, cameras)


def write_rows(path: Path, tables: Iterator[pa.Table]) -> None:
    """Write a row group a table."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        writer: pq.ParquetWriter | None = None
        try:
            for table in tables:
                writer = writer or pq.ParquetWriter(path, table.schema, compression="snappy")
                writer.write_table(table, row_group_size=max(1, table.num_rows))
        finally:
            if writer is not None:
                writer.close()


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write records as texts of JSON where they are nested."""
    rows = [{n: _as_text(v) for n, v in asdict(record).items()} for record in records]
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def read_records(path: Path) -> list[Record]:
    nested = {f.name for f in fields(Record)} - {"episode_id", "digest", "task", "frames"}
    with naming(path):
        rows = pq.read_table(path).to_pylist()
    return [Record(**{n: json.loads(v) if n in nested else v for n, v in r.items()}) for r in rows]


def _as_text(value: Any) -> Any:
    return value if isinstance(value, str | int) else json.dumps(value, sort_keys=True)
