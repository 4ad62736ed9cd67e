"""Tells how far a lake is: what of its footage each table has, and which files wait.

Here: numbers and names, from the shards' files and the ledger. Not here: words on a terminal.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc

from ego_assets.catalog import TABLES, stage_of, tables_of_items
from ego_assets.feature import LAKE
from resources.lake import Lake
from resources.ledger import Entry, Ledger, State
from resources.ledger.adoption import Counts
from resources.ledger.contents import Contents
from resources.raw.places import FOLDER as PLACES
from resources.raw.places import files_of, item_of

READERS = 16
BUDGET_S = 5.0
LOOKED_AT = 5_000
"""Items that wait of which the files are named."""
ENDED = (State.DONE, State.DROPPED)


class ShardFile(NamedTuple):
    """A raw file of a shard: its item in `video_manifest`, where it is, and its length."""

    item: str
    uri: str
    duration_s: float


@dataclass(frozen=True)
class Footage:
    """The raw files of the shards of a lake. not_read: shards for which there was no time."""

    files: Mapping[str, list[ShardFile]]
    not_read: int = 0

    @property
    def seconds(self) -> float:
        return sum(f.duration_s for files in self.files.values() for f in files)

    def weight(self, shard: str) -> float:
        """Return how much of the whole a shard is; a file of unknown length counts as a second."""
        return sum(f.duration_s or 1.0 for f in self.files[shard]) or 1.0


@dataclass(frozen=True)
class TableProgress:
    """How far a table is. states: of its items, those that are sure to come among the pending
    ones; percent: of the footage, 100 only if nothing is left."""

    states: Mapping[State, int]
    percent: float


def read_footage(lake: Lake, budget_s: float = BUDGET_S) -> Footage:
    """Read what the shards hold. Ends soon after `budget_s`, whatever is left to read."""
    until = time.monotonic() + budget_s
    moved = {Path(key).stem for key in lake.storage.list(PLACES)}

    def read(shard: str) -> list[ShardFile] | None:
        if time.monotonic() > until:
            return None
        if shard in moved:
            return [ShardFile(f.item, f.uri, f.duration_s) for f in files_of(lake, shard)]
        entries = lake.read_shard(shard)["files"]
        return [ShardFile(item_of(e), e["uri"], float(e.get("duration_s") or 0.0)) for e in entries]

    shards = lake.shards()
    with ThreadPoolExecutor(READERS) as readers:
        found = dict(zip(shards, readers.map(read, shards), strict=True))
    files = {shard: mine for shard, mine in found.items() if mine is not None}
    return Footage(files, len(found) - len(files))


def progress(lake: Lake, footage: Footage, counts: Counts) -> dict[str, TableProgress]:
    """Tell how far every table is, also those that are not begun."""
    states: dict[str, Counter[State]] = {table: Counter() for table in TABLES}
    done = dict.fromkeys(TABLES, 0.0)
    is_all = dict.fromkeys(TABLES, True)
    total = 0.0
    for table in tables_of_items("lake"):
        states[table].update(counts.get((table, LAKE), {State.PENDING: 1}))
        is_all[table] = _ended(states[table]) > 0
    for shard in {*footage.files, *(shard for _, shard in counts)} - {LAKE}:
        mine = {table: counts.get((table, shard), {}) for table in TABLES}
        expected = _expected(lake, shard, footage, mine)
        weight = footage.weight(shard) if shard in footage.files else 0.0
        total += weight
        for table, found in mine.items():
            if stage_of(table).item == "lake":
                done[table] += weight if is_all[table] else 0.0
                continue
            for state, count in found.items():
                states[table][state] += count
            items = expected[table]
            if items is None:
                is_all[table] = False
                continue
            states[table][State.PENDING] += max(0, items - sum(found.values()))
            ended = _ended(found)
            is_all[table] &= ended >= items
            done[table] += weight * (min(1.0, ended / items) if items else 1.0)
    tables = {}
    for table in TABLES:
        share = done[table] / total if total else 0.0
        percent = 100.0 if is_all[table] and total else min(99.9, int(1000 * share) / 10)
        tables[table] = TableProgress(states[table], percent)
    return tables


def _expected(
    lake: Lake, shard: str, footage: Footage, mine: Mapping[str, Mapping[State, int]]
) -> dict[str, int | None]:
    """Return how many items each table of a shard will have; None: nobody knows yet."""
    items: dict[str, int] = {table: sum(states.values()) for table, states in mine.items()}
    files = max(len(footage.files.get(shard, ())), items["video_manifest"])
    clips = max(items[table] for table in tables_of_items("clip"))
    nothing = None
    if not clips and _ended(mine["video_manifest"]) >= files:
        videos = items["clips"]
        is_dropped = videos and mine["clips"].get(State.DROPPED) == videos
        nothing = 0 if is_dropped or (not videos and _has_no_video(lake, shard)) else None
    of_item = {
        "file": files,
        "video": items["clips"] or nothing,
        "clip": clips or nothing,
        "shard": 1,
        "lake": 0,
    }
    return {table: of_item[stage_of(table).item] for table in TABLES}


def _ended(states: Mapping[State, int]) -> int:
    return sum(states.get(state, 0) for state in ENDED)


def _has_no_video(lake: Lake, shard: str) -> bool:
    """Whether all files of a shard were rejected, so that there is nothing to make of them."""
    accepted = lake.read("video_manifest", shard, columns=["accepted"])["accepted"]
    return len(accepted) > 0 and not pc.any(accepted).as_py()


def files_of_entries(ledger: Ledger, footage: Footage, entries: list[Entry]) -> list[str]:
    """Return the raw file of each entry of the ledger; empty where it is not known."""
    by_item = {f.item: f.uri for files in footage.files.values() for f in files}
    owners = Contents(ledger).owners({e.video_id for e in entries if e.video_id})
    found = []
    for entry in entries:
        owner = owners.get(entry.video_id or "")
        found.append(by_item.get(entry.item_id) or (owner[0] if owner else ""))
    return found


def waiting_files(ledger: Ledger, footage: Footage, counts: Counts) -> list[str]:
    """Return the raw files that wait: those with work that is begun first, then those of shards
    that are not."""
    open_states = (State.PENDING, State.RUNNING)
    entries = ledger.entries(states=open_states, limit=LOOKED_AT)
    begun = {shard for _, shard in counts}
    rest = [f.uri for s, files in footage.files.items() if s not in begun for f in files]
    return list(dict.fromkeys([*filter(None, files_of_entries(ledger, footage, entries)), *rest]))
