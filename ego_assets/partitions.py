"""The partition of every asset: the shard, a fixed batch of videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

SHARDS = "shards"
PARTITION_TAG = "dagster/partition"
"""Of a run over one shard."""
RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
"""Of a run over several: the first and the last of them."""
shards_partitions = dg.DynamicPartitionsDefinition(name=SHARDS)


def shards_of_run(tags: Mapping[str, str], known: Sequence[str]) -> list[str]:
    """The shards that a run is over, by its tags; none if it is over no shard in particular.

    known: all partitions in their order, of which a range names the first and the last.
    """
    if PARTITION_TAG in tags:
        return [tags[PARTITION_TAG]]
    ends = [tags.get(tag) for tag in RANGE_TAGS]
    if not all(end in known for end in ends):
        return []
    first, last = (known.index(str(end)) for end in ends)
    return list(known[first : last + 1])
