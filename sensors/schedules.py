"""Schedules: unfinished work is tried again at night, then the lake is tidied and verified, then
the reports are written.

They are stopped until a person starts them (UI: Automation). Not here: what the jobs do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from dagster import ScheduleEvaluationContext

from ego_assets.engine.plan import digest
from ego_assets.feature import LAKE
from ego_assets.graph.partitions import PARTITION_TAG, is_range, lost_shards, shards_of_run
from ego_assets.intake.sources import revive
from ego_assets.upkeep.recovery.rebuild import ready
from resources.storage import Storage
from sensors.lost_runs import end_lost_runs

RETRY_CRON = "0 1 * * *"
UPKEEP_CRON = "0 5 * * *"
DAILY_CRON = "0 6 * * *"
WEEKLY_CRON = "30 6 * * 1"
RETRIES_A_NIGHT = 500
REASON_TAG = "ego/reason"
RETRY = "retry"
ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def failed_shards(context: ScheduleEvaluationContext, since: datetime) -> Iterator[str]:
    """Shards whose last run failed since then: it may have ended before the ledger knew of clips.

    A retry that failed itself is left to a person.
    """
    seen: set[str] = set()
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    for record in context.instance.get_run_records(filters):
        run = record.dagster_run
        for shard in lost_or_own(context.instance, run):
            if shard in seen:
                continue
            seen.add(shard)
            alone = context.instance.get_run_records(
                dg.RunsFilter(tags={PARTITION_TAG: shard}), limit=1
            )
            newest = max([record, *alone], key=lambda r: r.storage_id).dagster_run
            if newest.is_failure and newest.tags.get(REASON_TAG) != RETRY:
                yield shard


def lost_or_own(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterable[str]:
    """The shard of a run that failed; of a range, those that it was to make and has not."""
    return lost_shards(instance, run) if is_range(run.tags) else shards_of_run(instance, run.tags)


def build_schedules(
    retry_unfinished: Any, upkeep: Any, write_report: Any
) -> list[dg.ScheduleDefinition]:
    """The schedules over these jobs."""

    @dg.schedule(
        name="nightly_retry_schedule",
        job=retry_unfinished,
        cron_schedule=RETRY_CRON,
        description="Runs the shards with failed or released clips, and those whose last run "
        "failed; what is done is not redone, what is in quarantine stays there.",
    )
    def nightly_retry_schedule(
        context: ScheduleEvaluationContext, storage: Storage
    ) -> list[dg.RunRequest] | dg.SkipReason:
        ledger = ready(storage.lake(), storage.ledger(), context.log.warning)
        end_lost_runs(context.instance, ledger)
        revive(storage.lake(), ledger)
        active = context.instance.get_run_records(dg.RunsFilter(statuses=ACTIVE))
        busy = {s for r in active for s in shards_of_run(context.instance, r.dagster_run.tags)}
        since = context.scheduled_execution_time - timedelta(days=1)
        unfinished = {*ledger.unfinished_shards(), *failed_shards(context, since)}
        night = context.scheduled_execution_time.strftime("%Y%m%d")
        # In another order every night: what stays unfinished must not keep the rest from a turn.
        # What is made of the whole lake is no partition.
        shards = sorted(unfinished - busy - {LAKE}, key=lambda shard: digest(night, shard))
        requests = [
            dg.RunRequest(
                run_key=f"retry:{night}:{shard}",
                partition_key=shard,
                tags={"dagster/priority": "-1", REASON_TAG: RETRY},
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
    reports = [
        _report_schedule(name, write_report, cron, days)
        for name, cron, days in (("daily", DAILY_CRON, 1), ("weekly", WEEKLY_CRON, 7))
    ]
    return [nightly_retry_schedule, upkeep_schedule, *reports]


def _report_schedule(name: str, job: Any, cron: str, days: int) -> dg.ScheduleDefinition:
    """Up to the time it is due, whenever its run begins: each hour is in one daily report."""

    @dg.schedule(
        name=f"{name}_report_schedule",
        job=job,
        cron_schedule=cron,
        description=f"The report of the last {days} days." if days > 1 else "The daily report.",
    )
    def report_schedule(context: ScheduleEvaluationContext) -> dg.RunRequest:
        until = context.scheduled_execution_time.isoformat()
        config = {"days": days, "until": until}
        return dg.RunRequest(run_config={"ops": {"gather_report": {"config": config}}})

    return report_schedule
