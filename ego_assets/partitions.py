"""The partition of every asset: the shard, a fixed batch of videos."""

from __future__ import annotations

import dagster as dg

SHARDS = "shards"
PARTITION_TAG = "dagster/partition"
"""Of a run over one shard."""
RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
"""Of a run over several: the first and the last of them."""
shards_partitions = dg.DynamicPartitionsDefinition(name=SHARDS)
