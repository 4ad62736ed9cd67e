"""The stale sensor: shards that a run would make otherwise than they are get one, when all else is
done.

Here: pages over the shards, a bounded number of runs that wait. Not here: what is stale
(`ego_assets.upkeep.staleness`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
from dagster import SensorEvaluationContext

from ego_assets.engine.choices import Part
from ego_assets.engine.plan import digest
from ego_assets.graph.backends import Backends
from ego_assets.graph.partitions import PARTITION_TAG, shards_partitions
from ego_assets.graph.recipes import Recipes
from ego_assets.upkeep.recovery.differences import find_differences
from ego_assets.upkeep.recovery.rebuild import ready
from ego_assets.upkeep.staleness import StaleShard, find_stale
from resources.storage import Storage
from sensors.schedules import ACTIVE, REASON_TAG

BUDGET_S = 40.0
"""Of the 60 s that Dagster gives a tick."""
WAITING_RUNS = 50
REST_S = 3600.0
"""After all shards were looked at, unless what a run would do changes."""
REASON = "stale"
STATE_TAG = "ego/stale_state"
"""Tag of a run: what of its shard was stale, and what it is to be."""
TRIES = 3
TRY_AGAIN_S = 86_400.0


def build_stale_sensor(
    job: Any, recipes: Callable[[Storage, Backends], Recipes]
) -> dg.SensorDefinition:
    """The sensor that asks for runs of `job`."""

    @dg.sensor(
        name="stale_sensor",
        job=job,
        minimum_interval_seconds=60,
        description="Finds what another operator version, config or weights would make "
        "differently, and asks for it behind all other runs.",
    )
    def stale_sensor(
        context: SensorEvaluationContext, storage: Storage, backends: Backends
    ) -> dg.SensorResult | dg.SkipReason:
        began = time.monotonic()
        lake = storage.lake()
        ledger = ready(lake, storage.ledger(), context.log.warning)
        known = recipes(storage, backends)
        recipe = recipe_digest(known.default)
        cursor = json.loads(context.cursor or "{}")
        if cursor.get("recipe") == recipe and time.time() < cursor.get("rest_until", 0.0):
            return dg.SkipReason("all shards were looked at, and nothing has changed since")
        waiting = dg.RunsFilter(statuses=ACTIVE, tags={REASON_TAG: REASON})
        room = WAITING_RUNS - context.instance.get_runs_count(waiting)
        last, looked = str(cursor.get("after", "")), 0
        shards = [s for s in lake.shards() if s > last]
        requests: list[dg.RunRequest] = []
        by_lake = set(cursor.get("by_lake", ()))
        if not last:  # all shards are compared once a round
            differences = find_differences(lake, ledger)
            by_lake = differences.shards
            if words := str(differences):
                context.log.warning(words)
        for found in find_stale(lake, ledger, known.of, shards, by_lake):
            is_late = looked > 0 and time.monotonic() - began > BUDGET_S
            if len(requests) >= room or is_late:
                break  # what was just looked at is looked at again
            last, looked = found.shard, looked + 1
            if found.problem:  # a damaged shard must not stop the others
                context.log.warning(f"shard {found.shard} cannot be judged: {found.problem}")
            if found.items and (run_key := run_key_of(context.instance, found)):
                requests.append(
                    dg.RunRequest(
                        run_key=run_key,
                        partition_key=found.shard,
                        tags={
                            "dagster/priority": "-10",
                            REASON_TAG: REASON,
                            STATE_TAG: found.state,
                        },
                    )
                )
        if looked == len(shards):
            cursor = {"rest_until": time.time() + REST_S, "recipe": recipe}
        else:
            cursor = {"after": last, "by_lake": sorted(by_lake)}
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[
                shards_partitions.build_add_request([str(r.partition_key) for r in requests])
            ]
            if requests
            else [],
            cursor=json.dumps(cursor),
            skip_reason=None if requests else f"{looked} shards looked at, nothing stale to do",
        )

    return stale_sensor


def run_key_of(instance: dg.DagsterInstance, found: StaleShard) -> str | None:
    """Of the run that a stale shard is to get now; None: it has one, or it is of no use.

    A run that failed is tried again a day later, a few times. One that ended well, or that a
    person cancelled, is not: what it left is how it is.
    """
    shard = {PARTITION_TAG: found.shard}
    if instance.get_runs_count(dg.RunsFilter(statuses=ACTIVE, tags=shard)):
        return None
    before = dg.RunsFilter(tags=shard | {STATE_TAG: found.state})
    records = instance.get_run_records(before, limit=TRIES)
    if len(records) == TRIES or any(not r.dagster_run.is_failure for r in records):
        return None
    if any(time.time() - (r.end_time or 0.0) < TRY_AGAIN_S for r in records):
        return None
    again = f":{len(records)}" if records else ""
    return f"stale:{found.shard}:{found.state}{again}"


def recipe_digest(recipe: Sequence[Sequence[Part]]) -> str:
    specs = [part.spec for parts in recipe for part in parts]
    return digest([[s.operator_version, s.weights_hash, s.backend, s.settings] for s in specs])
