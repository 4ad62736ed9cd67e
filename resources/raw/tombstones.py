"""Tombstones: what says in the lake that a video was forgotten, and is never to be taken in again.

    _forgotten/{video_id}.json     {"video_id", "sha256", "byte_size", "forgotten_at", "reason"}

As long as its erasure goes on, a tombstone also says what is left to be erased: `left`, with the
shards, the files and the places of the video. At the end it holds no name and no path. The ledger's
table `forgotten` is an index of them; each makes up for what the other has lost. Not here: erasing
(`ego_assets.upkeep.erasure`), passing files over (`ego_assets.intake.forgotten`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from resources.lake import Lake
from resources.ledger import Ledger
from resources.ledger.contents import Contents, Tombstone

FOLDER = "_forgotten"


@dataclass(frozen=True)
class Left:
    """What is to be erased of a video. shards: {shard: its files there (items of video_manifest)};
    uris: of its files, as far as no other video is there by now."""

    shards: dict[str, list[str]] = field(default_factory=dict)
    uris: list[str] = field(default_factory=list)

    def __or__(self, other: Left) -> Left:
        shards = {
            shard: sorted({*self.shards.get(shard, ()), *other.shards.get(shard, ())})
            for shard in sorted({*self.shards, *other.shards})
        }
        return Left(shards, sorted({*self.uris, *other.uris}))


def read(lake: Lake, video_id: str) -> tuple[Tombstone, Left | None] | None:
    """A tombstone, and what is left to be erased (None: nothing); None if there is no tombstone."""
    try:
        content: dict[str, Any] = json.loads(lake.storage.read(_key(video_id)))
    except FileNotFoundError:
        return None
    left = content.pop("left", None)
    return Tombstone(**content), None if left is None else Left(**left)


def write(lake: Lake, tombstone: Tombstone, left: Left | None) -> None:
    content: dict[str, Any] = asdict(tombstone)
    if left is not None:
        content["left"] = asdict(left)
    data = json.dumps(content, ensure_ascii=False, indent=1).encode()
    lake.storage.write(_key(tombstone.video_id), data)
    lake.storage.purge(_key(tombstone.video_id))


def in_lake(lake: Lake) -> set[str]:
    """The videos that have a tombstone in the lake, by a listing."""
    return {Path(key).stem for key in lake.storage.list(FOLDER) if key.endswith(".json")}


def agree(lake: Lake, ledger: Ledger) -> set[str]:
    """Let the lake and the ledger know each other's tombstones. Returns all videos that have one.

    The lake learns of one whose ledger was there alone as of one whose erasure is not over.
    """
    contents = Contents(ledger)
    known, there = contents.tombstones(), in_lake(lake)
    found = [read(lake, video_id) for video_id in sorted(there - known.keys())]
    contents.bury(each[0] for each in found if each is not None)
    for video_id in known.keys() - there:
        write(lake, known[video_id], Left())
    return known.keys() | there


def unfinished(lake: Lake, video_ids: Iterable[str]) -> dict[str, Left]:
    """{video_id: what is left} of those whose erasure is not over."""
    found = {video_id: read(lake, video_id) for video_id in video_ids}
    return {v: each[1] for v, each in found.items() if each is not None and each[1] is not None}


def _key(video_id: str) -> str:
    return f"{FOLDER}/{video_id}.json"
