"""Finds what there is of a video: its shards, its files, and how much of everything.

Here: looking. A manifest names each video that a shard ever had, as far back as versions are kept;
the ledger names those shards, too. Not here: erasing (`erase`), the proof (`traces`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ego_assets.catalog import TABLES
from resources.lake import Lake, LakeError, erasure, file_item_id, history
from resources.lake.holdings import item_and_token
from resources.ledger import Ledger, State
from resources.ledger.adoption import Adoption
from resources.ledger.contents import Contents, Tombstone
from resources.ledger.sources import STAGE, Sources
from resources.raw import tombstones
from resources.raw.places import item_of, known_files
from resources.raw.presence import RawAwayError, RawGoneError, RawRefusedError
from resources.raw.reader import RawReader, is_remote, look, uri_of
from resources.raw.tombstones import Left

READERS = 8


class UnknownVideoError(ValueError):
    """Neither the lake nor the ledger knows a video, and no file of that name is there."""


@dataclass(frozen=True)
class Survey:
    """What there is of a video. counts: {what, as one of it is called: how many}; is_known: whether
    anything knows it."""

    tombstone: Tombstone
    left: Left
    counts: dict[str, int]
    is_known: bool


def find_videos(lake: Lake, ledger: Ledger, named: Iterable[str]) -> list[Tombstone]:
    """The videos that are named, by their ids or by their raw files, each once.

    A file that the lake does not know is read: its content is forgotten before it comes in. Raises
    UnknownVideoError.
    """
    found: dict[str, Tombstone] = {}
    for name in named:
        tombstone = _of_id(lake, ledger, name) or _of_file(lake, ledger, name)
        if tombstone is None:
            raise UnknownVideoError(
                f"{name} is no video of {lake.location}, nor a raw file: `ego status` counts its "
                "videos, and `ego sql` names them (SELECT video_id, uri FROM video_manifest)"
            )
        found[tombstone.video_id] = tombstone
    return list(found.values())


def survey(lake: Lake, ledger: Ledger, tombstone: Tombstone) -> Survey:
    """Look for all that there is of a video."""
    video_id = tombstone.video_id
    known = tombstones.read(lake, video_id)
    left = _left(lake, ledger, video_id)
    if known is not None and known[1] is not None:
        left |= known[1]
    counts: Counter[str] = Counter()
    for shard, files in left.shards.items():
        counts["file"] += len(files)
        for table in TABLES:
            with suppress(LakeError):
                counts["row"] += _rows(lake, table, shard, video_id)
                counts["earlier version"] += _versions(lake, table, shard, video_id)
            arrays = lake.storage.list(f"{table}/_arrays/{shard}", begin=video_id)
            counts["array"] += len(arrays)
    is_known = bool(left.shards) or known is not None
    return Survey(known[0] if known else tombstone, left, dict(counts), is_known)


def at_work(ledger: Ledger, shards: Iterable[str]) -> dict[str, str]:
    """{shard: run} of those that a worker which may live is working on."""
    found = {}
    for shard in shards:
        for entry in ledger.entries(shard=shard, states=[State.RUNNING]):
            if entry.item_id in Adoption(ledger).at_work(entry.stage, shard):
                found[shard] = entry.run_id or ""
    return found


def _of_id(lake: Lake, ledger: Ledger, name: str) -> Tombstone | None:
    if len(name) != 16 or set(name) - set("0123456789abcdef"):
        return None
    if (known := tombstones.read(lake, name)) is not None:
        return known[0]
    contents = Contents(ledger)
    if (buried := contents.tombstones().get(name)) is not None:
        return buried
    for shard in sorted(contents.shards_of(name)) or lake.shards():
        for row in _manifest_rows(lake, shard):
            if row["video_id"] == name:
                return _tombstone(name, row["sha256"] or "", row["byte_size"])
    sources = [
        s for shard in contents.shards_of(name) for s in Sources(ledger).of_shard(shard).values()
    ]
    mine = next((s for s in sources if s.video_id == name), None)
    return _tombstone(name, mine.sha256 or "", mine.byte_size) if mine else None


def _of_file(lake: Lake, ledger: Ledger, name: str) -> Tombstone | None:
    """By where its file is, or was; a file that no shard holds is read."""
    uri = name if is_remote(name) else uri_of(Path(name).expanduser().absolute())
    uris, _ = known_files(lake)
    if uri in uris:
        for row in _manifest_rows(lake, uris[uri]):
            if row["uri"] == uri:
                return _tombstone(row["video_id"], row["sha256"] or "", row["byte_size"])
    with suppress(RawAwayError, RawGoneError, RawRefusedError):
        state = look(uri)
        sha256 = RawReader().sha256(uri)
        return _tombstone(sha256[:16], sha256, state.byte_size)
    return None


def _tombstone(video_id: str, sha256: str, byte_size: int) -> Tombstone:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Tombstone(video_id, sha256, byte_size, now)


def _left(lake: Lake, ledger: Ledger, video_id: str) -> Left:
    """The shards and files of a video, by all manifests that are kept and by the ledger."""
    named = {shard: set[str]() for shard in Contents(ledger).shards_of(video_id)}
    uris: set[str] = set()
    others: set[str] = set()
    shards = lake.shards()

    def look_into(shard: str) -> tuple[set[str], set[str]] | None:
        return _in_manifest(lake, shard, video_id)

    with ThreadPoolExecutor(READERS, thread_name_prefix="survey") as readers:
        for shard, found in zip(shards, readers.map(look_into, shards), strict=True):
            if found is not None:
                named.setdefault(shard, set()).update(found[0])
                uris |= found[1]
    for shard in named.keys() & set(shards):
        sources = Sources(ledger).of_shard(shard)
        rows = lake.rows_of_files(shard)
        for entry in lake.read_shard(shard)["files"]:
            item = item_of(entry)
            source, row = sources.get(item), rows.get(item)
            # What the file holds now decides whose it is.
            now = (source.video_id if source else None) or (row and row["video_id"])
            places = {
                entry["uri"],
                *([source.uri] if source else []),
                *([row["uri"]] if row else []),
            }
            if now == video_id or (now is None and item in named[shard]):
                named[shard].add(item)
                uris |= places
            else:
                named[shard].discard(item)
                others |= places
    return Left({s: sorted(files) for s, files in sorted(named.items())}, sorted(uris - others))


def _in_manifest(lake: Lake, shard: str, video_id: str) -> tuple[set[str], set[str]] | None:
    """The (files, uris) of a video in any version of a shard's manifest; None if it is in none."""
    items: set[str] = set()
    uris: set[str] = set()
    for row in _manifest_rows(lake, shard):
        if row["video_id"] == video_id:
            items.add(row["item"])
            uris.add(row["uri"])
    return (items, uris) if items else None


def _manifest_rows(lake: Lake, shard: str) -> Iterator[dict[str, Any]]:
    """Rows of all versions of a manifest, the current ones first, each with its `item`."""
    columns = ["video_id", "uri", "sha256", "byte_size"]
    keys = [f"{STAGE}/{shard}.parquet"]
    keys += [k for k in lake.storage.list(f"{STAGE}/_fragments/{shard}") if k.endswith(".parquet")]
    keys += [history.key_of(STAGE, shard, name) for name in history.kept(lake, STAGE, shard)]
    for key in keys:
        with suppress(FileNotFoundError, LakeError):
            batch = erasure.read(lake, key, columns)
            named = {e["value"]: u for u, e in erasure.items_of(batch).items() if "value" in e}
            own = item_and_token(key)[0] if "/_fragments/" in key else ""
            for row in batch.to_pylist():
                yield row | {"item": own or named.get(row["uri"]) or file_item_id(row["uri"])}


def _rows(lake: Lake, table: str, shard: str, video_id: str) -> int:
    if erasure.VIDEO not in TABLES[table].model_fields:
        return 0
    ids = lake.read(table, shard, columns=[erasure.VIDEO])[erasure.VIDEO].to_pylist()
    return int(ids.count(video_id))


def _versions(lake: Lake, table: str, shard: str, video_id: str) -> int:
    """How many earlier versions of a table hold a video."""
    keys = [history.key_of(table, shard, name) for name in history.kept(lake, table, shard)]
    read = (erasure.read(lake, key, texts=True) for key in keys)
    return sum(erasure.holds(batch, video_id) for batch in read)
