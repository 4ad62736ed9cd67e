"""The raw files of a shard, and where each of them is now.

A shard names the files that it was made of and never changes. A file that is moved stays in its
shard: `_places/{shard}.json` says where it is, {item: {"uri", "sha256", "since"}}, for files that
are elsewhere than the shard says, and {item: {"uri": null, …}} for one whose place was taken by
another file of the lake. So the lake alone says where its videos are; the ledger's table `sources`
is an index of it. Not here: how it is found that a file was moved (`ego_assets.intake.moves`).
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resources.lake import Lake, file_item_id

FOLDER = "_places"


@dataclass(frozen=True)
class RawFileOfShard:
    """A raw file of a shard. item: its name as an item of `video_manifest`, for good; uri: where it
    is now; entered_uri: where it was when the shard was made."""

    item: str
    shard: str
    uri: str
    entered_uri: str
    byte_size: int
    duration_s: float


@dataclass(frozen=True)
class FileLocation:
    """Where a file of a shard is now; None: nowhere. sha256: of its bytes."""

    uri: str | None
    sha256: str


def files_of(lake: Lake, shard: str) -> list[RawFileOfShard]:
    """The raw files of a shard, but for those whose place another file has taken."""
    entries = lake.read_shard(shard)["files"]
    known = _read(lake, shard)
    found = []
    for entry in entries:
        item = item_of(entry)
        uri = known[item]["uri"] if item in known else entry["uri"]
        if uri is not None:
            size, duration_s = entry["byte_size"], float(entry.get("duration_s") or 0.0)
            found.append(RawFileOfShard(item, shard, uri, entry["uri"], size, duration_s))
    return found


def accepted_uris(lake: Lake, shard: str) -> dict[str, str]:
    """{video: where its raw file is} of the accepted videos of a shard."""
    rows = lake.read("video_manifest", shard, columns=["video_id", "uri", "accepted"]).to_pylist()
    return {row["video_id"]: row["uri"] for row in rows if row["accepted"]}


def item_of(entry: Mapping[str, Any]) -> str:
    """The item of a file as a shard lists it: named by its uri, unless that name was taken by a
    file that had the uri before it and was moved."""
    return entry.get("unit") or file_item_id(entry["uri"])


def known_files(lake: Lake) -> tuple[dict[str, str], set[str]]:
    """Of all shards: {uri: shard} of where their files are now, and the items that are taken."""
    moved = {Path(key).stem for key in lake.storage.list(FOLDER)}
    uris: dict[str, str] = {}
    items: set[str] = set()
    for shard in lake.shards():
        places = _read(lake, shard) if shard in moved else {}
        for entry in lake.read_shard(shard)["files"]:
            items.add(item := item_of(entry))
            uri = places[item]["uri"] if item in places else entry["uri"]
            if uri is not None:
                uris[uri] = shard
    return uris, items


def free_item(uri: str, taken: Container[str]) -> str:
    """A name for a file that enters a shard; that of its uri, if it can be had."""
    number = 0
    while (item := file_item_id(f"{uri}\n{number}" if number else uri)) in taken:
        number += 1
    return item


def record(lake: Lake, shard: str, places: Mapping[str, FileLocation]) -> None:
    """Say where files of a shard are from now on."""
    key = f"{FOLDER}/{shard}.json"
    since = datetime.now(UTC).isoformat(timespec="milliseconds")
    entered = {item_of(entry): entry["uri"] for entry in lake.read_shard(shard)["files"]}
    with lake.storage.lock(f"{FOLDER}.{shard}"):
        known = _read(lake, shard)
        for item, place in places.items():
            known[item] = {"uri": place.uri, "sha256": place.sha256, "since": since}
        moved = {u: p for u, p in known.items() if p["uri"] != entered.get(u)}
        if moved:
            lake.storage.write(key, json.dumps(moved, ensure_ascii=False, indent=1).encode())
        else:
            lake.storage.delete(key)


def take_out(lake: Lake, shard: str, items: Container[str]) -> None:
    """Take files out of a shard, so that the lake does not name them any more: their videos were
    forgotten. The caller has the lake's lock `shards`."""
    content = lake.read_shard(shard)
    kept = [entry for entry in content["files"] if item_of(entry) not in items]
    with lake.storage.lock(f"{FOLDER}.{shard}"):
        if len(kept) < len(content["files"]):
            data = json.dumps(content | {"files": kept}, ensure_ascii=False, indent=1).encode()
            lake.storage.write(f"shards/{shard}.json", data)
        known = _read(lake, shard)
        left = {item: place for item, place in known.items() if item not in items}
        if left:
            lake.storage.write(
                f"{FOLDER}/{shard}.json", json.dumps(left, ensure_ascii=False, indent=1).encode()
            )
        elif known:
            lake.storage.delete(f"{FOLDER}/{shard}.json")


def _read(lake: Lake, shard: str) -> dict[str, dict[str, Any]]:
    try:
        places: dict[str, dict[str, Any]] = json.loads(lake.storage.read(f"{FOLDER}/{shard}.json"))
        return places
    except FileNotFoundError:
        return {}
