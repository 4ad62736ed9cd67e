"""Schedules: unfinished work is tried again at night, then the lake is tidied and verified.

They are stopped until a person starts them (UI: Automation). Not here: what the jobs do.
"""

from __future__ import annotations

from typing import Any

import dagster as dg
from dagster import ScheduleEvaluationContext

from resources.storage import Storage

RETRY_CRON = "0 1 * * *"
UPKEEP_CRON = "0 5 * * *"
RETRIES_A_NIGHT = 500
PARTITION_TAG = "dagster/partition"
ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def build_schedules(retry_unfinished: Any, upkeep: Any) -> list[dg.ScheduleDefinition]:
    """The schedules over these jobs."""

    @dg.schedule(
        name="nightly_retry_schedule",
        job=retry_unfinished,
        cron_schedule=RETRY_CRON,
        description="Runs the shards with failed or released clips; what is done is not redone, "
        "what is in quarantine stays there.",
    )
    def nightly_retry_schedule(
        context: ScheduleEvaluationContext, storage: Storage
    ) -> list[dg.RunRequest] | dg.SkipReason:
        active = context.instance.get_run_records(dg.RunsFilter(statuses=ACTIVE))
        busy = {r.dagster_run.tags.get(PARTITION_TAG) for r in active}
        shards = [s for s in storage.ledger().unfinished_shards() if s not in busy]
        night = context.scheduled_execution_time.strftime("%Y%m%d")
        requests = [
            dg.RunRequest(
                run_key=f"retry:{night}:{shard}",
                partition_key=shard,
                tags={"dagster/priority": "-1", "ego/reason": "retry"},
            )
            for shard in shards[:RETRIES_A_NIGHT]
        ]
        return requests or dg.SkipReason("every shard is finished, or being worked on")

    upkeep_schedule = dg.ScheduleDefinition(
        name="nightly_upkeep_schedule",
        job=upkeep,
        cron_schedule=UPKEEP_CRON,
        description="Compacts, sweeps and verifies the lake.",
    )
    return [nightly_retry_schedule, upkeep_schedule]
