"""The stale sensor: shards that a run would make otherwise than they are get one, when all else is
done.

Here: pages over the shards, a bounded number of runs that wait. Not here: what is stale
(`ego_assets.stages.staleness`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dagster as dg
from dagster import SensorEvaluationContext

from ego_assets.partitions import shards_partitions
from ego_assets.stages.plan import StageSpec
from ego_assets.stages.staleness import find_stale
from resources.models import Backends
from resources.storage import Storage
from sensors.schedules import ACTIVE, PARTITION_TAG, REASON_TAG

BUDGET_S = 40.0
"""Of the 60 s that Dagster gives a tick."""
WAITING_RUNS = 50
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
    ) -> dg.SensorResult:
        began = time.monotonic()
        lake, ledger = storage.lake(), storage.ledger()
        active = [
            r.dagster_run for r in context.instance.get_run_records(dg.RunsFilter(statuses=ACTIVE))
        ]
        busy = {r.tags.get(PARTITION_TAG) for r in active}
        room = WAITING_RUNS - sum(r.tags.get(REASON_TAG) == REASON for r in active)
        shards = [s for s in lake.shards() if s > (context.cursor or "")]
        requests: list[dg.RunRequest] = []
        last, looked = context.cursor or "", 0
        for found in find_stale(lake, ledger, current_specs(storage, backends), shards):
            if len(requests) >= room or time.monotonic() - began > BUDGET_S:
                break  # what was just looked at is looked at again
            last, looked = found.shard, looked + 1
            if found.units and found.shard not in busy:
                requests.append(
                    dg.RunRequest(
                        run_key=f"stale:{found.shard}:{found.state}",
                        partition_key=found.shard,
                        tags={"dagster/priority": "-10", REASON_TAG: REASON},
                    )
                )
        is_over = looked == len(shards)
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[
                shards_partitions.build_add_request([str(r.partition_key) for r in requests])
            ]
            if requests
            else [],
            cursor="" if is_over else last,
            skip_reason=None if requests else f"{looked} shards looked at, nothing stale to do",
        )

    return stale_sensor
