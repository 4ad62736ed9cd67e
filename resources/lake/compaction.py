"""Merges what attempts published of a shard's table into one file, and drops what that replaces.

Safe to kill at any point: the new file appears at once, and fragments that outlive it have tokens
that it has, too. Not here: earlier versions (`history`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from resources.lake import history
from resources.lake.holdings import item_and_token, keys_of
from resources.lake.parquet import ITEMS, OWN, PROVENANCE, SCHEMA, open_parquet, token_of
from resources.lake.storage import file_sha256
from resources.lake.table import SCHEMA_VERSION, TABLES, ContractError

if TYPE_CHECKING:
    from resources.lake.lake import Lake

MANIFEST = "video_manifest"
SWEEP_AGE_S = 86_400.0

Wanted = Iterable[str] | Callable[[], Iterable[str]] | None
"""Items that a compaction keeps."""


def compact(lake: Lake, table: str, shard: str, items: Wanted, spare: str = "") -> int:
    """As `Lake.compact`, for a caller who has the lock `{table}.{shard}`.

    spare: an earlier version that is kept, however many there are.
    """
    version = lake.storage.version(f"{table}/{shard}.parquet")
    old = lake.compacted_items(table, shard)
    listed = keys_of(lake.storage, f"{table}/_fragments/{shard}", ".parquet")
    newest = lake.newest_fragments(table, shard)
    if callable(items):
        items = items()
    wanted = {*old, *newest} if items is None else set(items)
    key = f"{table}/{shard}.parquet"
    news = {u for u, (token, _) in newest.items() if u in wanted and token > token_of(old, u)}
    if news or set(old) != wanted & (set(old) | set(newest)) or not lake.storage.exists(key):
        if news & set(old) or set(old) - wanted:  # rows are replaced, or go
            history.archive(lake, table, shard, old, spare)
        rows = _write(lake, table, shard, wanted, newest, version)
    else:
        with open_parquet(lake.storage, key) as opened:
            rows = opened.footer.metadata.num_rows
    for fragment in listed:
        lake.storage.delete(fragment)
    _drop_floors(lake, table, shard, wanted)
    lake.storage.drop_empty(f"{table}/_fragments/{shard}")
    lake.storage.sweep_aside(SWEEP_AGE_S)
    return rows


def _write(
    lake: Lake,
    table: str,
    shard: str,
    wanted: set[str],
    newest: dict[str, tuple[int, str]],
    version: str | None,
) -> int:
    # Rows and what is said of them are of one listing: attempts publish all the while.
    batch = lake.read_once(table, shard, wanted, None, newest)
    batch = batch.sort_by([(c, "ascending") for c in TABLES[table].key])
    entries: dict[str, dict[str, Any]] = {}
    shared: list[dict[str, Any]] = []
    files = lake.rows_of_files_once(shard, newest) if table == MANIFEST else {}
    provenances = lake.provenances_once(table, shard, wanted, newest)
    for item, found in sorted(provenances.items()):
        values = dict(vars(found))
        own = {k: values.pop(k) for k in OWN}
        if values not in shared:
            shared.append(values)
        entries[item] = own | {"provenance": shared.index(values)}
        if item in files:
            entries[item]["value"] = files[item]["uri"]
    metadata = {
        ITEMS: json.dumps(entries),
        PROVENANCE: json.dumps(shared),
        SCHEMA: SCHEMA_VERSION,
    }
    # Each row was validated when it was published, some by an older release.
    if problems := TABLES[table].violations(batch):
        raise ContractError(f"{table}: " + "; ".join(problems))
    key = f"{table}/{shard}.parquet"
    with lake.storage.open_aside(key, version=version) as aside:
        pq.write_table(
            batch.replace_schema_metadata(metadata),
            aside.path,
            compression="zstd",
            row_group_size=65_536,
            write_page_checksum=True,
        )
        digest, size = file_sha256(aside.path), aside.path.stat().st_size
        # Before the file it speaks of is there: a file without its checksum is never seen.
        history.write_checksum(lake, table, shard, digest, size)
    history.drop_checksums(lake, table, shard, but=[digest])
    if (arrays := TABLES[table].arrays_column()) is not None:
        used = set(batch[arrays].unique().to_pylist())
        used |= history.arrays_in_use(lake, table, shard)
        _drop_arrays(lake, table, shard, used, {u: e["token"] for u, e in entries.items()})
    return len(batch)


def _drop_floors(lake: Lake, table: str, shard: str, wanted: set[str]) -> None:
    """Delete the floors that compacted rows have passed."""
    floors = keys_of(lake.storage, f"{table}/_fragments/{shard}", history.FLOOR)
    if floors:
        items = lake.compacted_items(table, shard)
        for key in floors:
            item, token = item_and_token(key)
            if item not in wanted or token_of(items, item) > token:
                lake.storage.delete(key)


def _drop_arrays(
    lake: Lake, table: str, shard: str, used: set[str], tokens: dict[str, int]
) -> None:
    """Delete the arrays of attempts that newer ones have replaced."""
    for key in keys_of(lake.storage, f"{table}/_arrays/{shard}", ".npz"):
        item, token = item_and_token(key)
        if key not in used and token <= tokens.get(item, -1):
            lake.storage.delete(key)
