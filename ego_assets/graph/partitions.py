"""The partition of every asset: the shard, a fixed batch of videos; and runs over several shards.

A run over a range reports each shard on its own, so that one that cannot be made takes no other
along: steps go on with the others, and the last step of each branch fails and names the bad ones
(docs/adr/0014). Here: which shards a run has, and which of them it has lost. Not here: making them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

SHARDS = "shards"
PARTITION_TAG = "dagster/partition"
"""Of a run over one shard."""
RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
"""Of a run over several: the first and the last of them."""
NOT_MADE = "not made"
"""Metadata of an observation: why a shard of a range could not be made."""
NO_EVENT = "__source_asset_observation__"
"""Metadata of a result for which Dagster writes no materialization (it would write one of every
shard of the range). A name of Dagster's own: a test holds the two to be the same."""
shards_partitions = dg.DynamicPartitionsDefinition(name=SHARDS)


def is_range(tags: Mapping[str, str]) -> bool:
    """Whether these are the tags of a run over a range of shards, be it of one."""
    return PARTITION_TAG not in tags and all(tag in tags for tag in RANGE_TAGS)


def shards_of_run(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> list[str]:
    """The shards of a run with these tags that still are partitions; none without such tags."""
    if not is_range(tags):
        return [tags[PARTITION_TAG]] if PARTITION_TAG in tags else []
    keys = list(instance.get_dynamic_partitions(SHARDS))
    if any(tags[tag] not in keys for tag in RANGE_TAGS):
        return [tags[tag] for tag in RANGE_TAGS if tags[tag] in keys]
    first, last = (keys.index(tags[tag]) for tag in RANGE_TAGS)
    return keys[first : last + 1]


def lost_shards(
    instance: dg.DagsterInstance, run: dg.DagsterRun, tables: Iterable[str] | None = None
) -> dict[str, str]:
    """Shards of a run for which it was to make one of these tables (None: of all), and has not
    (yet): {shard: why, as far as it is known}."""
    planned_type = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    made_type = dg.DagsterEventType.ASSET_MATERIALIZATION
    observed_type = dg.DagsterEventType.ASSET_OBSERVATION
    planned: set[str] = set()
    made: set[tuple[str, str | None]] = set()
    reasons: dict[str, str] = {}
    for entry in instance.all_logs(run.run_id, of_type={planned_type, made_type, observed_type}):
        event = entry.dagster_event
        if event is None or event.asset_key is None:
            continue
        table = event.asset_key.to_user_string()
        if event.event_type is planned_type:
            planned.add(table)
        elif event.event_type is made_type:
            made.add((table, event.partition))
        elif (why := event.asset_observation_data.asset_observation.metadata.get(NOT_MADE)) and (
            event.partition is not None
        ):
            reasons.setdefault(event.partition, f"{table}: {why.value}")
    wanted = sorted(planned if tables is None else planned.intersection(tables))
    return {
        shard: reasons.get(shard, f"{', '.join(missing)} was not made")
        for shard in shards_of_run(instance, run.tags)
        if (missing := [table for table in wanted if (table, shard) not in made])
    }


def is_last_step(context: dg.OpExecutionContext) -> bool:
    """Whether no other step of the run waits for this one."""
    job = context.job_def
    names = {
        above.node
        for inputs in job.dependencies.values()
        for dependency in inputs.values()
        for above in dependency.get_node_dependencies()
    }
    return context.op_handle.name not in names


def fail_for_lost(lost: Mapping[str, str], count: int) -> None:
    """Raises Failure if some of the shards of a range were lost, and names them."""
    if lost:
        some = f"{len(lost)} of {count} shards could not be done, the others are: "
        raise dg.Failure(
            (some if len(lost) < count else f"none of the {count} shards could be done: ")
            + "; ".join(f"{shard}: {why}" for shard, why in lost.items()),
            metadata={NOT_MADE: dg.MetadataValue.json(dict(lost))},
            allow_retries=False,
        )


def version_tags(
    instance: dg.DagsterInstance,
    shard: str,
    deps: Iterable[dg.AssetKey],
    code_version: str | None,
    data_version: str,
) -> dict[str, Any]:
    """Tags of a materialization of a shard, as Dagster sets them where a run has one shard."""
    tags = {
        "dagster/data_version": data_version,
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": code_version or "",
    }
    for key in deps:
        partitions = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[shard])
        found = instance.fetch_materializations(partitions, limit=1).records
        made = found[0].asset_materialization if found else None
        version = (made.tags or {}).get("dagster/data_version") if made else None
        # Of a partitioned input Dagster keeps the hash of its partitions' versions: here of one.
        digest = hashlib.sha256(version.encode()).hexdigest() if version else "INITIAL"
        name = key.to_user_string()
        tags[f"dagster/input_data_version/{name}"] = digest
        tags[f"dagster/input_event_pointer/{name}"] = str(found[0].storage_id) if found else "NULL"
    return tags
