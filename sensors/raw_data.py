"""The raw-data sensor: new videos become shards, partitions and runs.

Here: the bridge from `ego_assets.intake.arrivals` to Dagster. A run that a shard needs is asked
for at every tick until it exists; its run key lets it exist once. So neither a daemon that dies
between registering and requesting nor a tick that happens twice loses or doubles anything. The
cursor holds where listing goes on if a tick had no time to list everything, and which news the
tick told: Dagster keeps it only with them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster import SensorEvaluationContext

from ego_assets.graph.partitions import SHARDS, shards_partitions
from ego_assets.intake.arrivals import Arrivals, ScanReport
from ego_assets.intake.batches import Limits
from ego_assets.upkeep.recovery.rebuild import ready
from resources.ledger.raw_files import (
    GONE,
    MOVED,
    REFUSED,
    SUPERSEDED,
    News,
    RawFiles,
    RunRequest,
)
from resources.raw_lake import RawLake
from resources.storage import Storage

REQUESTS_A_TICK = 100
NEWS_A_TICK = 50
BUDGET_S = 40.0
"""Of the 60 s that Dagster gives a tick."""
RUN_KEY_TAG = "dagster/run_key"


def build_raw_data_sensor(job: Any) -> dg.SensorDefinition:
    """The sensor that asks for runs of `job`, one a shard, those with the most footage first."""

    @dg.sensor(
        name="raw_data_sensor",
        job=job,
        minimum_interval_seconds=30,
        description="Finds new raw videos, puts them into shards, and asks for their runs.",
    )
    def raw_data_sensor(
        context: SensorEvaluationContext, storage: Storage, raw_lake: RawLake
    ) -> dg.SensorResult:
        lake = storage.lake()
        ledger = ready(lake, storage.ledger(), context.log.warning)
        arrivals = Arrivals(lake, ledger, limits_of(raw_lake))
        cursor = json.loads(context.cursor) if context.cursor else {}
        # Until there were news, all of the cursor was the place.
        resume = cursor if "place" in cursor else cursor.get("resume")
        look = arrivals.look(raw_lake.places(), resume, BUDGET_S)
        report(context, look)
        files = RawFiles(ledger)
        if told := cursor.get("told"):
            files.told(told)
        news = files.news(NEWS_A_TICK)
        files.confirm(existing(context.instance, files.open_requests(REQUESTS_A_TICK)))
        todo = files.open_requests(REQUESTS_A_TICK)
        keys = sorted({r.shard for r in todo})
        runs = [run_of(r) for r in todo if r.wants_run]
        nothing = f"{look.listed} files listed, {look.new} new, {look.waiting} wait"
        return dg.SensorResult(
            run_requests=runs,
            dynamic_partitions_requests=[shards_partitions.build_add_request(keys)] if keys else [],
            asset_events=observations(news),
            cursor=json.dumps({"resume": look.resume, "told": news[-1].id if news else 0}),
            skip_reason=None if runs else "; ".join([nothing, *look.missing]),
        )

    return raw_data_sensor


def limits_of(raw_lake: RawLake) -> Limits:
    return Limits(
        settle_s=raw_lake.settle_s,
        files=raw_lake.shard_files,
        byte_size=int(raw_lake.shard_gb * 1e9),
        duration_s=raw_lake.shard_minutes * 60,
        wait_s=raw_lake.wait_s,
    )


def existing(instance: dg.DagsterInstance, requests: Sequence[RunRequest]) -> list[str]:
    """Keys of the requests that are fulfilled."""
    done = [
        r.run_key
        for r in requests
        if not r.wants_run and instance.has_dynamic_partition(SHARDS, r.shard)
    ]
    wanted = [r.run_key for r in requests if r.wants_run]
    if wanted:
        found = instance.get_run_records(dg.RunsFilter(tags={RUN_KEY_TAG: wanted}))
        done += [r.dagster_run.tags[RUN_KEY_TAG] for r in found]
    return done


def run_of(request: RunRequest) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=request.run_key,
        partition_key=request.shard,
        tags={"dagster/priority": str(request.priority)},
    )


def report(context: SensorEvaluationContext, look: ScanReport) -> None:
    for missing in look.missing:
        context.log.warning(missing)
    for uri, why in look.refused.items():
        context.log.warning(f"{uri}: {why}")
    for old_uri, new_uri in look.moved.items():
        context.log.info(
            f"{old_uri} is at {new_uri} now: the same video, nothing is computed again"
        )
    for gone in look.gone.values():
        context.log.warning(gone)
    for old in look.superseded:
        context.log.warning(f"{old.uri} was written over: shard {old.shard} runs again")
    if look.forgotten:
        context.log.info(
            f"{look.forgotten} new files hold videos that were forgotten: they are passed over"
        )
    if look.shards:
        context.log.info(f"{len(look.shards)} new shards: {', '.join(look.shards)}")


def observations(news: Sequence[News]) -> list[dg.AssetObservation]:
    """What a person should see at the asset `raw_videos`."""
    found = [
        dg.AssetObservation(
            "raw_videos",
            partition=old.shard,
            description="written over: its earlier content is superseded",
            metadata={"superseded file": old.uri, "superseded videos": old.detail},
        )
        for old in news
        if old.kind == SUPERSEDED
    ]
    for kind, words, detail in (
        (REFUSED, "refused", "why"),
        (MOVED, "moved", "is at"),
        (GONE, "gone", "why"),
    ):
        rows = [dg.TableRecord({"file": n.uri, detail: n.detail}) for n in news if n.kind == kind]
        if rows:
            found.append(
                dg.AssetObservation(
                    "raw_videos",
                    description=f"{len(rows)} files {words}",
                    metadata={words: dg.MetadataValue.table(rows)},
                )
            )
    return found
