"""Erases a video from one table of one shard: its rows in the current file and in earlier versions,
what is not compacted, and its arrays. All other rows stay as they are, and so does what is said of
them; no earlier version is kept of what is written here. What is not compacted of an item that is
of several videos goes as a whole: it is to be made again.

Each file is replaced at once, so that whoever is killed in between goes on where he was. Not here:
which shards hold a video, and what else there is of it (`ego_assets.upkeep.erasure`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from resources.lake import history
from resources.lake.holdings import file_item_id, item_and_token
from resources.lake.parquet import ITEMS, LakeError
from resources.lake.storage import ChangedError, file_sha256
from resources.lake.table import TABLES

if TYPE_CHECKING:
    from resources.lake.lake import Lake

VIDEO = "video_id"


def is_of(item: str, video_id: str) -> bool:
    """Whether a work item is a video or one of its clips, by its name."""
    return item == video_id or item.startswith(f"{video_id}-")


def erase(lake: Lake, table: str, shard: str, video_id: str) -> Counter[str]:
    """Erase a video from a table of a shard, and count what was {"rows", "versions", "fragments",
    "arrays"}: rows of the current file. Raises LakeError for a file that is damaged."""
    while True:
        with lake.storage.lock(f"{table}.{shard}"), suppress(ChangedError):
            return _erase(lake, table, shard, video_id)


def _erase(lake: Lake, table: str, shard: str, video_id: str) -> Counter[str]:
    done: Counter[str] = Counter()
    for name in (*history.kept(lake, table, shard), history.CURRENT):
        try:
            found = _rewrite(lake, table, shard, name, video_id)
        except LakeError:
            if name == history.CURRENT:
                raise
            # It cannot be told what is in it, nor be rolled back to.
            history.delete_version(lake, table, shard, name)
            done["versions"] += 1
            continue
        if found is not None:
            done["rows" if name == history.CURRENT else "versions"] += (
                found if name == history.CURRENT else 1
            )
    for key in lake.storage.list(f"{table}/_fragments/{shard}"):
        if _is_fragment_of(lake, key, video_id):
            lake.storage.delete(key)
            done["fragments"] += 1
    for key in lake.storage.list(f"{table}/_arrays/{shard}", begin=video_id):
        if is_of(item_and_token(key)[0], video_id):
            lake.storage.delete(key)
            done["arrays"] += 1
    lake.storage.drop_empty(f"{table}/_fragments/{shard}")
    return done


def holds(batch: pa.Table, video_id: str) -> bool:
    """Whether rows of a file, or what it says of its items, name a video."""
    return any(is_of(item, video_id) for item in items_of(batch)) or bool(
        pc.any(rows_of(batch, video_id)).as_py()
    )


def rows_of(batch: pa.Table, video_id: str) -> pa.ChunkedArray:
    """For each row of a file, whether it is of a video, or names it in any of its texts."""
    found = pa.chunked_array([pa.repeat(pa.scalar(False), len(batch))])
    for column in batch.columns:
        if pa.types.is_string(column.type):
            named = pc.fill_null(pc.match_substring(column, video_id), False)
        elif pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
            texts = (" ".join(map(str, value or ())) for value in column.to_pylist())
            named = pa.chunked_array([pa.array([video_id in text for text in texts], pa.bool_())])
        else:
            continue
        found = pc.or_(found, named)
    return found


def texts_of(schema: pa.Schema) -> list[str]:
    """The columns that may name a video."""
    kinds = {f.name: f.type.value_type if pa.types.is_list(f.type) else f.type for f in schema}
    return [name for name, kind in kinds.items() if pa.types.is_string(kind)]


def read(
    lake: Lake, key: str, columns: list[str] | None = None, *, texts: bool = False
) -> pa.Table:
    """A Parquet file as it is stored; texts: only the columns that may name a video. Raises
    FileNotFoundError, LakeError."""
    with lake.storage.open(key) as file:
        try:
            schema = pq.read_schema(file)
            wanted = texts_of(schema) if texts else columns
            if wanted is not None:
                wanted = [name for name in wanted if name in schema.names]
            return pq.read_table(file, columns=wanted)
        except FileNotFoundError:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            raise LakeError(
                f"{lake.storage.uri(key)} is damaged ({error}), and it cannot be told what is in "
                "it: `ego verify --repair` takes it away; then forget again"
            ) from error


def items_of(batch: pa.Table) -> dict[str, dict[str, Any]]:
    items: dict[str, dict[str, Any]] = json.loads((batch.schema.metadata or {}).get(ITEMS, "{}"))
    return items


def _is_fragment_of(lake: Lake, key: str, video_id: str) -> bool:
    if is_of(item_and_token(key)[0], video_id):
        return True
    return key.endswith(".parquet") and holds(read(lake, key, texts=True), video_id)


def _rewrite(lake: Lake, table: str, shard: str, name: str, video_id: str) -> int | None:
    """Replace one version of a table by itself without the video. Returns the rows that went; None
    if it holds nothing of it."""
    key = history.key_of(table, shard, name)
    version = lake.storage.version(key)
    try:
        if not holds(read(lake, key, texts=True), video_id):
            return None
    except FileNotFoundError:
        return None
    batch = read(lake, key)
    goes = rows_of(batch, video_id)
    metadata = dict(batch.schema.metadata or {})
    if ITEMS in metadata:
        gone = set(_gone_items(batch, goes, table, video_id))
        left = {u: entry for u, entry in items_of(batch).items() if u not in gone}
        metadata[ITEMS] = json.dumps(left).encode()
    rest = batch.filter(pc.invert(goes)).replace_schema_metadata(metadata)
    sums = history.checksums(lake, table, shard, name)
    with lake.storage.open_aside(key, version=version) as aside:
        pq.write_table(
            rest, aside.path, compression="zstd", row_group_size=65_536, write_page_checksum=True
        )
        own = {"sha256": file_sha256(aside.path), "bytes": aside.path.stat().st_size}
        # Before the file is there: one with another checksum than is noted is damaged.
        history.note_checksums(lake, table, shard, name, [*sums, own])
    history.note_checksums(lake, table, shard, name, [own])
    return len(batch) - len(rest)


def _gone_items(batch: pa.Table, goes: Any, table: str, video_id: str) -> Iterator[str]:
    """Items of which no row is left, and clips of the video that have none."""
    column = TABLES[table].item_column
    rows = batch[column].to_pylist() if column in batch.column_names else []
    pairs = list(zip(rows, goes.to_pylist(), strict=True)) if rows else []
    stays = {value for value, is_gone in pairs if not is_gone}
    gone = {value for value, is_gone in pairs if is_gone} - stays
    named = {file_item_id(value) for value in gone if value}
    for item, entry in items_of(batch).items():
        value = entry.get("value", item)
        if is_of(item, video_id) or value in gone or ("value" not in entry and item in named):
            yield item
