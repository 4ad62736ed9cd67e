"""What a lake needs now and then: left-over fragments merged, litter of killed writers removed.

Not here: the search for damage (`audit`), work on videos.
"""

from __future__ import annotations

from ego_assets.catalog import TABLES
from resources.lake import Lake
from resources.ledger import Ledger, State

LITTER_AGE_S = 86_400.0


def compact_leftovers(lake: Lake, ledger: Ledger) -> dict[str, int]:
    """Merge the fragments that killed runs left: {shard/table: rows}.

    Shards somebody works on are left alone: their run ends with a compaction. Nothing is dropped:
    which items a shard has is for its next run to say.
    """
    done: dict[str, int] = {}
    for shard in lake.shards():
        for table in TABLES:
            if not lake.newest_fragments(table, shard):
                lake.storage.drop_empty(f"{table}/_fragments/{shard}")
                continue
            entries = ledger.entries(stage=table, shard=shard)
            if entries and not any(e.state is State.RUNNING for e in entries):
                done[f"{shard}/{table}"] = lake.compact(table, shard, None)
    return done


def sweep(lake: Lake) -> int:
    """Remove half-written files that are over a day old. Returns how many."""
    return lake.storage.sweep_aside(LITTER_AGE_S)
