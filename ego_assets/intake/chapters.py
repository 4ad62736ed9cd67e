"""Chapters that arrive after later ones of their recording: whose rows wait for them.

Not here: what a chapter is (`ego_assets.videos.recordings`), how a row is judged (`sources`).
"""

from __future__ import annotations

from collections.abc import Iterable

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
