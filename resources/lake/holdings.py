"""What a table holds of a shard, told by names and footers: what a ledger has to agree with.

Here: the names of the files of attempts, the highest tokens of items, and a name for the state of
each compacted file, which a listing tells without opening one. Not here: rows (`lake`), the ledger
(`ego_assets.upkeep.recovery.agreement`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from resources.lake import history
from resources.lake.s3.storage import S3Storage
from resources.lake.storage import LocalStorage
from resources.lake.table import TABLES

if TYPE_CHECKING:
    from resources.lake.lake import Lake

READ_TRIES = 5
T = TypeVar("T")
_UNNAMED = "no checksum"
_LONGEST = 64


@dataclass(frozen=True)
class Tokens:
    """The highest tokens in a table of a shard. of: {item: token}; least: of any item, since an
    earlier version of the table is named by the newest token in it."""

    of: Mapping[str, int]
    least: int

    def __getitem__(self, item: str) -> int:
        """What the next attempt at the item must exceed."""
        return max(self.of.get(item, 0), self.least)


def highest_tokens(
    lake: Lake, table: str, shard: str, compacted: Mapping[str, int], carried: str = ""
) -> Tokens:
    """Tokens of all that attempts have left, void or not: rows, arrays, and what they carry on.

    compacted: {item: token} of the compacted rows; carried: stage under whose name clips carry
    state on.
    """
    folders = [f"{table}/_fragments/{shard}"]
    if TABLES[table].arrays_column() is not None:
        folders.append(f"{table}/_arrays/{shard}")
    if carried:
        folders.append(f"_carried/{carried}/{shard}")
    found = dict(compacted)
    for folder in folders:
        for key in lake.storage.list(folder):
            item, token = item_and_token(key)
            found[item] = max(found.get(item, 0), token)
    names = (name.partition("-")[0] for name in history.kept(lake, table, shard))
    return Tokens(found, max((int(n) for n in names if n.isdigit()), default=0))


def item_and_token(key: str) -> tuple[str, int]:
    """Of the file of an attempt, by its key. Files of a release without tokens have token 0."""
    name = key.rpartition("/")[2].rpartition(".")[0]
    item, _, token = name.rpartition(".")
    return (item, int(token)) if item and token.isdigit() else (name, 0)


def file_item_id(uri: str) -> str:
    """Name of a raw file as an item of `video_manifest`, which has a row a file."""
    return hashlib.sha256(uri.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def attempt_name(item: str, token: int) -> str:
    return f"{item}.{token:016d}"


def attempts(storage: LocalStorage | S3Storage, folder: str, item: str) -> dict[str, int]:
    """{key: token} of the files that attempts at an item left in a folder."""
    found = {k: item_and_token(k) for k in storage.list(folder, begin=f"{item}.")}
    return {k: token for k, (other, token) in found.items() if other == item}


def newest(storage: LocalStorage | S3Storage, folder: str) -> dict[str, tuple[int, str]]:
    """{item: (token, key)} of each item's newest attempt in a folder that is not void."""
    found: dict[str, tuple[int, str]] = {}
    for key in storage.list(folder):
        item, token = item_and_token(key)
        # A floor voids what has its token, and what is older.
        is_newer = item not in found or token > found[item][0]
        if is_newer or (token == found[item][0] and key.endswith(history.FLOOR)):
            found[item] = (token, key)
    return {u: f for u, f in found.items() if not f[1].endswith(history.FLOOR)}


def again_if_moved(read: Callable[[], T]) -> T:
    """Read what a listing names; list again if a compaction or a newer attempt removed it."""
    for _ in range(READ_TRIES - 1):
        with suppress(FileNotFoundError):
            return read()
    return read()


def keys_of(storage: LocalStorage | S3Storage, folder: str, suffix: str) -> list[str]:
    return [k for k in storage.list(folder) if k.endswith(suffix)]


def states(lake: Lake, table: str) -> dict[str, str]:
    """{shard: state} of the compacted files of a table. A file has another state when it may have
    been replaced; two listings tell."""
    keys = lake.storage.list(table)
    sums: dict[str, list[str]] = {}
    for shard, digest in _digests(lake.storage.list(f"{table}/_checksums")):
        sums.setdefault(shard, []).append(digest)
    shards = [_name(key).removesuffix(".parquet") for key in keys if key.endswith(".parquet")]
    return {shard: _state(sums.get(shard, [])) for shard in shards}


def state(lake: Lake, table: str, shard: str) -> str | None:
    """As of `states`; None if there is no compacted file."""
    if not lake.storage.exists(f"{table}/{shard}.parquet"):
        return None
    keys = lake.storage.list(f"{table}/_checksums", begin=f"{shard}.")
    return _state([digest for _, digest in _digests(keys)])


def fragments(lake: Lake, table: str) -> dict[str, dict[str, int]]:
    """{shard: {item: token}} of the newest rows that are not compacted, of all shards."""
    found: dict[str, dict[str, int]] = {}
    for key in lake.storage.walk(f"{table}/_fragments"):
        if key.endswith(".parquet"):
            item, token = item_and_token(key)
            mine = found.setdefault(key.rpartition("/")[0].rpartition("/")[2], {})
            mine[item] = max(mine.get(item, 0), token)
    return found


def _digests(keys: list[str]) -> Iterator[tuple[str, str]]:
    """(shard, digest) of checksums, by their keys."""
    for key in keys:
        shard, _, digest = _name(key).removesuffix(".json").rpartition(".")
        yield shard, digest


def _state(digests: list[str]) -> str:
    text = "+".join(sorted(digests)) or _UNNAMED
    return text if len(text) <= _LONGEST else hashlib.sha256(text.encode()).hexdigest()


def _name(key: str) -> str:
    return key.rpartition("/")[2]
