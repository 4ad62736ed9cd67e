"""Earlier versions of a shard's table: kept when a compaction replaces rows, and brought back.

Layout: `{table}/_history/{shard}/{name}.parquet`, the file as it was, and beside it
`{name}.json`, its checksums. A version is never written again: keeping and bringing back are links
in a folder and copies inside the server on S3. Not here: the ledger (`ego_assets.upkeep.rollback`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from resources.environment import keep_count
from resources.lake.parquet import open_parquet
from resources.lake.provenance import Provenance
from resources.lake.table import TABLES

if TYPE_CHECKING:
    from resources.lake.lake import Lake

CURRENT = "current"
FLOOR = ".floor"
"""`{item}.{token}.floor` among fragments: the item's attempts up to this token are void."""


@dataclass(frozen=True)
class Version:
    """A shard's table as it was once: where the rows of each item came from."""

    name: str
    items: Mapping[str, Provenance]

    @cached_property
    def token(self) -> int:
        """Of its newest rows."""
        return max((p.token for p in self.items.values()), default=0)

    @cached_property
    def made_at(self) -> str:
        """When its newest rows were made."""
        return max((p.created_at for p in self.items.values()), default="")

    @cached_property
    def runs(self) -> Mapping[str, int]:
        """{run id: items that it made}."""
        return Counter(p.run_id for p in self.items.values())


def versions(lake: Lake, table: str, shard: str) -> list[Version]:
    """The current one and those that are kept, the newest rows first."""
    names = [CURRENT] if lake.storage.exists(key_of(table, shard, CURRENT)) else []
    names += kept(lake, table, shard)
    found = []
    for name in names:
        # A compaction may make room for a newer version between our listing and our reading.
        with (
            suppress(FileNotFoundError),
            open_parquet(lake.storage, key_of(table, shard, name)) as file,
        ):
            found.append(Version(name, file.provenances))
    return sorted(found, key=lambda v: (-v.token, v.name != CURRENT))


def kept(lake: Lake, table: str, shard: str) -> list[str]:
    """Names of the earlier versions, the newest rows first."""
    keys = lake.storage.list(f"{table}/_history/{shard}")
    names = [k.rpartition("/")[2].removesuffix(".parquet") for k in keys if k.endswith(".parquet")]
    return sorted(names, reverse=True)


def key_of(table: str, shard: str, name: str) -> str:
    return (
        f"{table}/{shard}.parquet"
        if name == CURRENT
        else f"{table}/_history/{shard}/{name}.parquet"
    )


def left_by(found: list[Version], run_id: str) -> Version | None:
    """The version that holds most of what a run made; of equals, the newest. None: it has none."""
    mine = [v for v in found if run_id in v.runs]
    return max(mine, key=lambda v: (v.runs[run_id], v.token, v.name == CURRENT), default=None)


def archive(
    lake: Lake, table: str, shard: str, items: Mapping[str, dict[str, Any]], spare: str = ""
) -> None:
    """Keep the compacted file, which holds `items`; the caller has the compaction's lock.

    spare: an earlier version that does not make room for it.
    """
    if not keep_count():
        return
    name = _name(items)
    target = key_of(table, shard, name)
    if lake.storage.exists(target):
        return
    sums = checksums(lake, table, shard, CURRENT)
    lake.storage.write(_sums_key(table, shard, name), json.dumps(sums).encode())
    lake.storage.copy(key_of(table, shard, CURRENT), target)
    for old in kept(lake, table, shard)[keep_count() :]:
        if old == spare:
            continue
        delete_version(lake, table, shard, old)


def checksums(lake: Lake, table: str, shard: str, name: str) -> list[dict[str, Any]]:
    """[{"sha256", "bytes"}] that a version's file may have."""
    if name == CURRENT:
        return [json.loads(lake.storage.read(k)) for k in _checksum_keys(lake, table, shard)]
    try:
        text = lake.storage.read(_sums_key(table, shard, name))
    except FileNotFoundError:
        return []
    sums: list[dict[str, Any]] = json.loads(text)
    return sums


def write_checksum(lake: Lake, table: str, shard: str, sha256: str, size: int) -> None:
    """Say that the current file may have these bytes (`sha256` hex, `size` in bytes)."""
    content = json.dumps({"sha256": sha256, "bytes": size}).encode()
    lake.storage.write(_checksum_key(table, shard, sha256), content)


def drop_checksums(lake: Lake, table: str, shard: str, but: Iterable[str]) -> None:
    """Forget what the current file might have been, but for these SHA-256."""
    wanted = {_checksum_key(table, shard, sha256) for sha256 in but}
    for key in _checksum_keys(lake, table, shard):
        if key not in wanted:
            lake.storage.delete(key)


def note_checksums(
    lake: Lake, table: str, shard: str, name: str, sums: Iterable[Mapping[str, Any]]
) -> None:
    """Say which bytes a version's file may have, and no others."""
    sums = list(sums)
    if name != CURRENT:
        lake.storage.write(_sums_key(table, shard, name), json.dumps(sums).encode())
        return
    for one in sums:
        write_checksum(lake, table, shard, one["sha256"], one["bytes"])
    drop_checksums(lake, table, shard, but=[one["sha256"] for one in sums])


def delete_version(lake: Lake, table: str, shard: str, name: str) -> None:
    """Delete an earlier version, and what is said of it."""
    lake.storage.delete(key_of(table, shard, name))
    lake.storage.delete(_sums_key(table, shard, name))


def _checksum_key(table: str, shard: str, sha256: str) -> str:
    return f"{table}/_checksums/{shard}.{sha256[:16]}.json"


def _checksum_keys(lake: Lake, table: str, shard: str) -> list[str]:
    return lake.storage.list(f"{table}/_checksums", begin=f"{shard}.")


def _sums_key(table: str, shard: str, name: str) -> str:
    """Of the checksums beside an earlier version."""
    return key_of(table, shard, name).removesuffix("parquet") + "json"


def arrays_in_use(lake: Lake, table: str, shard: str) -> set[str]:
    """Keys of arrays that rows of earlier versions point to."""
    found: set[str] = set()
    arrays = TABLES[table].arrays_column()
    for name in kept(lake, table, shard) if arrays else ():
        with lake.storage.open(key_of(table, shard, name)) as file:
            column = pq.read_table(file, columns=[arrays])[arrays]
        found.update(column.unique().to_pylist())
    return found - {None}


def read_version(lake: Lake, table: str, shard: str, name: str) -> pa.Table:
    """Rows of a version. Raises LakeError."""
    return lake.read_file(table, key_of(table, shard, name), None)


def bring_back(
    lake: Lake, table: str, shard: str, version: Version, tokens: Mapping[str, int]
) -> None:
    """Make a version current again; no attempt up to `tokens` ({item: token}) can replace it.

    The caller has the compaction's lock, and everything is compacted. Killed at any point, either
    the old or the new is current, whole.
    """
    storage = lake.storage
    archive(lake, table, shard, lake.compacted_items(table, shard), spare=version.name)
    for item, token in tokens.items():
        storage.write(f"{table}/_fragments/{shard}/{item}.{token:016d}{FLOOR}", b"")
    known = checksums(lake, table, shard, version.name)
    for sums in known:
        write_checksum(lake, table, shard, sums["sha256"], sums["bytes"])
    storage.copy(key_of(table, shard, version.name), key_of(table, shard, CURRENT))
    if known:
        drop_checksums(lake, table, shard, but=[sums["sha256"] for sums in known])


def _name(items: Mapping[str, dict[str, Any]]) -> str:
    """Of the version that holds these items: sorts by the age of its rows."""
    newest = max((entry.get("token", 0) for entry in items.values()), default=0)
    content = json.dumps({u: e.get("token", 0) for u, e in items.items()}, sort_keys=True)
    return f"{newest:016d}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
