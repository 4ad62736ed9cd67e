"""The partition of every asset: the shard, a fixed batch of videos."""

from __future__ import annotations

import dagster as dg

SHARDS = "shards"
PARTITION_TAG = "dagster/partition"
"""Of a run over one shard."""
shards_partitions = dg.DynamicPartitionsDefinition(name=SHARDS)
