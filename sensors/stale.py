"""The stale sensor: shards that a run would make otherwise than they are get one, when all else is
done.

Here: pages over the shards, a bounded number of runs that wait. Not here: what is stale
(`ego_assets.stages.staleness`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import dagster as dg
from dagster import SensorEvaluationContext

from ego_assets.partitions import PARTITION_TAG, shards_partitions
from ego_assets.stages.plan import StageSpec, digest
from ego_assets.stages.staleness import find_stale
from resources.models import Backends
from resources.storage import Storage
from sensors.schedules import ACTIVE, REASON_TAG

BUDGET_S = 40.0
"""Of the 60 s that Dagster gives a tick."""
WAITING_RUNS = 50
REST_S = 3600.0
"""After all shards were looked at, unless what a run would do changes."""
REASON = "stale"


def build_stale_sensor(
    job: Any, current_specs: Callable[[Storage, Backends], list[StageSpec]]
) -> dg.SensorDefinition:
    """The sensor that asks for runs of `job`. current_specs: the stages as they would run now."""

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
        lake, ledger = storage.lake(), storage.ledger()
        specs = current_specs(storage, backends)
        recipe = digest(
            [[s.operator_version, s.weights_hash, s.backend, s.settings] for s in specs]
        )
        cursor = json.loads(context.cursor or "{}")
        if cursor.get("recipe") == recipe and time.time() < cursor.get("rest_until", 0.0):
            return dg.SkipReason("all shards were looked at, and nothing has changed since")

        def active(**tags: str) -> int:
            filters = dg.RunsFilter(statuses=ACTIVE, tags=tags)
            return context.instance.get_runs_count(filters)

        room = WAITING_RUNS - active(**{REASON_TAG: REASON})
        last, looked = str(cursor.get("after", "")), 0
        shards = [s for s in lake.shards() if s > last]
        requests: list[dg.RunRequest] = []
        for found in find_stale(lake, ledger, specs, shards):
            if len(requests) >= room or time.monotonic() - began > BUDGET_S:
                break  # what was just looked at is looked at again
            last, looked = found.shard, looked + 1
            if found.units and not active(**{PARTITION_TAG: found.shard}):
                requests.append(
                    dg.RunRequest(
                        run_key=f"stale:{found.shard}:{found.state}",
                        partition_key=found.shard,
                        tags={"dagster/priority": "-10", REASON_TAG: REASON},
                    )
                )
        if looked == len(shards):
            cursor = {"rest_until": time.time() + REST_S, "recipe": recipe}
        else:
            cursor = {"after": last}
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
