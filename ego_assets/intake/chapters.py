"""Chapters of one recording in several shards: whose rows wait for one, and who wears the camera.

Not here: what a chapter is (`ego_assets.videos.recordings`), how a row is judged (`sources`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow.compute as pc

from ego_assets.videos.recordings.names import chapter_of
from resources.lake import Lake
from resources.ledger import Ledger
from resources.ledger.sources import STAGE, Sources


def waiting_shards(lake: Lake, ledger: Ledger, arrived: Iterable[str]) -> set[str]:
    """Shards with rows that do not know when in their recording they begin, and may now, since
    files have come that are chapters before them. arrived: uris."""
    named = [name for uri in arrived if (name := chapter_of(uri)) is not None]
    found: set[str] = set()
    for source in Sources(ledger).at(each.uri for name in named for each in name.after()):
        rows = lake.read(STAGE, source.shard, items=[source.item_id])
        is_later = pc.greater(rows["chapter_index"], 0)
        if pc.any(pc.and_(is_later, pc.is_null(rows["recording_start_s"]))).as_py():
            found.add(source.shard)
    return found


def wearers_elsewhere(
    lake: Lake, ledger: Ledger, shard: str, rows: Iterable[Mapping[str, Any]]
) -> dict[str, str]:
    """{recording: who wears the camera in it, as other shards say}, of the recordings that a shard
    has chapters of without that word. rows: accepted ones of the shard's manifest.

    Where they name several, the last in the order of letters counts, whichever shard asks.
    """
    wanted: dict[str, set[str]] = {}
    for row in rows:
        if row["recording_id"] and not row["person"]:
            name = chapter_of(row["uri"])
            near = [*name.before(), *name.after()] if name is not None else []
            wanted.setdefault(row["recording_id"], set()).update(each.uri for each in near)
    items: dict[str, set[str]] = {}
    for source in Sources(ledger).at(uri for uris in wanted.values() for uri in uris):
        if source.shard != shard:
            items.setdefault(source.shard, set()).add(source.item_id)
    found: dict[str, str] = {}
    for other, those in items.items():
        for row in lake.read(STAGE, other, items=those).to_pylist():
            recording, person = row["recording_id"], row["person"]
            if row["accepted"] and person and recording in wanted:
                found[recording] = max(found.get(recording, ""), person)
    return found
