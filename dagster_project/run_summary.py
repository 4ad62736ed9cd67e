"""Gathers what came of a run of `ego run`: from Dagster's events, the ledger and the lake.

Here: the summary and how it is filled. Not here: the run (`runs`), words on a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.catalog import TABLES, stage_of, tables_of_items
from ego_assets.graph.check_results import FAILS_HERE
from ego_assets.graph.metadata import READ_SLOWLY
from ego_assets.intake.sources import GONE_WORDS, gone_detail
from ego_assets.quality.failed import failed_checks
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.ledger.sources import AWAY, DELETED, Sources

CLIP_TABLES = tuple(tables_of_items("clip"))
TOLD = {
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
}
ERROR = "error"
"""Severity of a check whose failure is a failure of the run; the other one is `warn`."""


@dataclass
class Summary:
    """What came of the videos of a run. `problems` are sentences for a person.

    waiting_for_gpu: clips by table that have, at most, a result made without one; degraded: why.
    warnings: sentences on what went well, and slowly. moved: raw files that are elsewhere now, the
    same videos as before; replaced: those that hold another video than before; gone: those that are
    not there, each told once; forgotten: those that are passed over, for a person had their content
    forgotten, each told once. checks: the asset checks that failed, by shard. galleries: {shard:
    where its page is}.
    """

    lake: str
    shards: list[str]
    videos: dict[str, int] = field(default_factory=dict)
    rejected: list[dict[str, str]] = field(default_factory=list)
    clips: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)
    checks: list[dict[str, str]] = field(default_factory=list)
    moved: list[dict[str, str]] = field(default_factory=list)
    replaced: list[dict[str, str]] = field(default_factory=list)
    gone: list[dict[str, str]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    waiting_for_gpu: dict[str, int] = field(default_factory=dict)
    degraded: str = ""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    galleries: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Say whether nothing failed: no clip, no step, no check of severity `error`, and not
        all videos were rejected."""
        nothing_taken = self.videos.get("total", 0) > 0 and not self.videos.get("accepted")
        broken = any(check["severity"] == ERROR for check in self.checks)
        return not (self.failures or self.problems or broken or nothing_taken)


def add_run(
    summary: Summary, instance: dg.DagsterInstance, shard: str, run_id: str, problem: str
) -> None:
    """Add what a shard's run left in Dagster's log. problem: why there is no more of it."""
    run = instance.get_run_by_id(run_id)
    events = [e for e in map(_event, instance.all_logs(run_id, of_type=TOLD)) if e is not None]
    summary.checks.extend(_failed_checks(shard, events))
    summary.warnings.extend(_slow_reads(events))
    if run is None or not run.is_success:
        found = _step_failures(shard, events)
        summary.problems.extend(found or [f"{shard}: {problem or 'the run failed'}"])
    for stats in instance.get_run_step_stats(run_id):
        if stats.start_time and stats.end_time:
            before = summary.seconds.get(stats.step_key, 0.0)
            summary.seconds[stats.step_key] = round(before + stats.end_time - stats.start_time, 2)


def _event(entry: dg.EventLogEntry) -> dg.DagsterEvent | None:
    return entry.dagster_event


def _step_failures(shard: str, events: Iterable[dg.DagsterEvent]) -> list[str]:
    found = []
    for event in events:
        if event.event_type is dg.DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            cause = (error.cause or error) if error else None
            words = cause.message.strip() if cause else "failed"
            found.append(f"{shard} {event.step_key}: {words}")
        elif event.event_type is dg.DagsterEventType.RUN_FAILURE and not found:
            found.append(f"{shard}: {event.message or 'the run failed'}")
    return found


def _failed_checks(shard: str, events: Iterable[dg.DagsterEvent]) -> list[dict[str, str]]:
    """List the asset checks that failed in the run of a shard, errors first."""
    found = []
    for event in events:
        if event.event_type is not dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            continue
        check = event.asset_check_evaluation_data
        here = check.metadata.get(FAILS_HERE)  # a check fails also for what other shards have
        if not check.passed and (here is None or here.value):
            found.append(
                {
                    "check": check.check_name,
                    "asset": check.asset_key.to_user_string(),
                    "shard": shard,
                    "severity": check.severity.value.lower(),
                    "reason": check.description or "",
                }
            )
    return sorted(found, key=lambda check: check["severity"])


def _slow_reads(events: Iterable[dg.DagsterEvent]) -> list[str]:
    """What steps said of files that were read slowly."""
    found: list[str] = []
    for event in events:
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            told = event.materialization.metadata.get(READ_SLOWLY)
            found += str(told.value).split("\n") if told else []
    return found


def add_known_checks(summary: Summary, lake: Lake, shards: Iterable[str]) -> None:
    """Add the checks that failed when shards were last run, of those that were not run now."""
    known = set(shards)
    if known:
        summary.checks.extend(c for c in failed_checks(lake, TABLES) if c["shard"] in known)


def fill(summary: Summary, lake: Lake, ledger: Ledger, uris: set[str]) -> None:
    """Count over the videos that were asked for (a shard may hold others)."""
    asked = {shard: _manifest(lake, shard, uris) for shard in summary.shards}
    videos = [video for of_shard in asked.values() for video in of_shard]
    accepted = {v["video_id"] for v in videos if v["accepted"]}
    summary.videos = {
        "total": len(uris),
        "accepted": len(accepted),
        "rejected": sum(not v["accepted"] for v in videos),
    }
    summary.rejected = [
        {"uri": v["uri"], "reason": v["reject_reason"], "detail": v["reject_detail"] or ""}
        for v in videos
        if not v["accepted"]
    ]
    worst: dict[str, State] = {}
    clips: set[str] = set()
    summary.rows = dict.fromkeys(TABLES, 0) | {"video_manifest": len(videos)}
    with ledger.joint_reading():
        for shard in summary.shards:
            known = ledger.entries(shard=shard)
            mine = [e for e in known if e.video_id in accepted or not e.video_id]
            for entry in mine:
                if entry.stage in CLIP_TABLES:
                    clips.add(entry.item_id)
                if entry.state in {State.DONE, State.DROPPED}:
                    continue
                if entry.waits_for_gpu:
                    waiting = summary.waiting_for_gpu
                    waiting[entry.stage] = waiting.get(entry.stage, 0) + 1
                    summary.degraded = entry.error or ""
                    continue
                reason = (entry.error or "not reached").split("\n", 1)[0]
                summary.failures.append(
                    {
                        "stage": entry.stage,
                        "unit": entry.item_id,
                        "state": entry.state.value,
                        "reason": reason,
                    }
                )
                if entry.stage in CLIP_TABLES and worst.get(entry.item_id) is not State.QUARANTINED:
                    worst[entry.item_id] = entry.state
            for table in summary.rows.keys() - {"video_manifest"}:
                units = {e.item_id for e in mine if e.stage == table and e.video_id}
                summary.rows[table] += _rows(lake, table, shard, units, accepted)
    quarantined = sum(s is State.QUARANTINED for s in worst.values())
    summary.clips = {
        "total": len(clips),
        "done": len(clips) - len(worst),
        "failed": len(worst) - quarantined,
        "quarantined": quarantined,
    }


def _manifest(lake: Lake, shard: str, uris: set[str]) -> list[dict[str, Any]]:
    columns = ["uri", "video_id", "accepted", "reject_reason", "reject_detail"]
    rows = lake.read("video_manifest", shard, columns=columns).to_pylist()
    return [row for row in rows if row["uri"] in uris]


def _rows(lake: Lake, table: str, shard: str, units: set[str], videos: set[str]) -> int:
    """Count the rows of some videos, whose units these are; of a table that is made of shards as
    a whole, all of them."""
    is_of_videos = stage_of(table).item not in ("shard", "lake")
    counted = lake.count(table, shard)
    if counted is not None and (not is_of_videos or counted[0] <= units):
        return counted[1]
    if not is_of_videos:
        return len(lake.read(table, shard, columns=[]))
    ids = lake.read(table, shard, columns=["video_id"])["video_id"]
    mine = pc.is_in(ids, value_set=pa.array(sorted(videos), pa.string()))
    return pc.sum(mine).as_py() or 0


def contents(lake: Lake, shards: Iterable[str]) -> dict[str, str]:
    """{uri: video_id}, as the manifests say."""
    return {
        row["uri"]: row["video_id"]
        for shard in shards
        for row in lake.read("video_manifest", shard, columns=["uri", "video_id"]).to_pylist()
    }


def add_replaced(
    summary: Summary, lake: Lake, before: Mapping[str, str], shards: Iterable[str]
) -> None:
    """Add the raw files of the shards that hold another video than before."""
    for uri, video in contents(lake, shards).items():
        if before.get(uri, video) != video:
            summary.replaced.append({"uri": uri, "video_id": video, "was": before[uri]})


def add_gone(summary: Summary, ledger: Ledger) -> None:
    """Tell once what is gone. A place that is away is a problem if work waits for it."""
    sources = Sources(ledger)
    told = []
    for source, units in sources.untold(summary.shards):
        told.append(source.item_id)
        detail = gone_detail(source.uri, GONE_WORDS[source.gone_why or DELETED])
        summary.gone.append({"uri": source.uri, "shard": source.shard, "detail": detail})
        if units and source.gone_why == AWAY:
            summary.problems.append(f"{units} units of {source.shard} were waited for: {detail}")
    sources.told(told)
