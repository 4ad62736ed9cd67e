"""What Dagster's events say of a span of time, for the report. Not here: the report itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from ego_assets.graph.check_results import FAILS_HERE
from ego_assets.graph.partitions import PARTITION_TAG
from ego_assets.upkeep.reports.gather import Events, Written
from resources.lake import Lake

DRIFT_CHECK = "shard_is_like_those_before"
PAGE = 100
LONGEST_DRIFT = 2000
"""Points of a table that are kept, the newest."""


def events_between(instance: dg.DagsterInstance, since: float, until: float) -> Events:
    """Runs that ended in the span or go on, and check evaluations of the span, a page at a time."""
    found = Events()
    for record in _runs(instance, since):
        run = record.dagster_run
        # One that ended before may have been given a tag since; one that goes on has checks, too.
        if record.end_time is None or since <= record.end_time < until:
            found.runs[run.status.value.lower()] += 1
        evaluations = instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        )
        for event in evaluations.records:
            if not since <= event.timestamp < until or event.event_log_entry.dagster_event is None:
                continue
            check = event.event_log_entry.dagster_event.asset_check_evaluation_data
            table = check.asset_key.to_user_string()
            here = check.metadata.get(FAILS_HERE)
            if not check.passed and (here is None or here.value):
                shard = run.tags.get(PARTITION_TAG, "all")
                key = (table, check.check_name)
                found.failing[key] += 1
                found.sentence.setdefault(key, f"{shard}: {check.description or 'failed'}")
            value = check.metadata.get("worst value")
            if check.check_name == DRIFT_CHECK and isinstance(value, dg.FloatMetadataValue):
                points = found.drift.setdefault(table, [])
                if len(points) < LONGEST_DRIFT:
                    points.append((event.timestamp, value.value or 0.0))
    return found


def shown(lake: Lake, written: Written) -> dg.AssetMaterialization:
    """A report as the asset `reports` shows it."""
    metadata = written.facts | {
        "report": dg.MetadataValue.md(written.markdown),
        "page": dg.MetadataValue.path(lake.storage.uri(written.html_key)),
    }
    return dg.AssetMaterialization("reports", metadata=metadata)


def _runs(instance: dg.DagsterInstance, since: float) -> Iterator[dg.RunRecord]:
    """The newest first."""
    filters = dg.RunsFilter(updated_after=datetime.fromtimestamp(since, UTC))
    cursor = None
    while page := instance.get_run_records(filters, limit=PAGE, cursor=cursor):
        yield from page
        cursor = page[-1].dagster_run.run_id
