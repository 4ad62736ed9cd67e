"""The alert sensor: failing checks and runs become notices, and notices reach people.

Read are the runs that are going on or ended since the last tick, and their check evaluations: the
events' storage ids are no cursor on Dagster's default SQLite, where every run has its own. A minute
is read twice, so that a late commit is not missed; the rules (`alert_rules`) bear that. A tick
reads so much and no more: after a long absence the next ones go on. Delivery comes last and never
stops the rest: what does not get through is tried again.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache

import dagster as dg
from dagster import AssetCheckEvaluation, SensorEvaluationContext

from ego_assets.graph.check_results import FAILS_HERE
from ego_assets.graph.partitions import (
    PARTITION_TAG,
    RANGE_TAGS,
    SHARDS,
    is_range,
    lost_shards,
    shards_of_run,
)
from resources.alerts import Alerts
from resources.delivery import Channel, DeliveryError, send_in_time
from resources.ledger import Ledger
from resources.ledger.alerts import AlertStore
from resources.storage import Storage
from sensors.alert_rules import ALL, TO, Alert, Notice, Severity, Signal, step
from sensors.lost_runs import end_lost_runs

OVERLAP_S = 60.0
RUNS_A_TICK = 1000
LOOK_BUDGET_S = 25.0
"""With delivery, less than the 60 s that Dagster gives a tick."""
DELIVERY_BUDGET_S = 20.0
FIRST_WAIT_S, LONGEST_WAIT_S, GIVE_UP_S = 30.0, 3600.0, 3 * 86_400.0
DETAIL_CHARACTERS = 500
LISTED = 50
"""Rows of a check's table; so many are not all."""
SHARD_KEY = re.compile(r"\d{8}-\d{4,}")
GOING_ON = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
ENDED = {dg.DagsterRunStatus.SUCCESS: True, dg.DagsterRunStatus.FAILURE: False}
SEVERITIES = {
    dg.AssetCheckSeverity.WARN: Severity.WARNING,
    dg.AssetCheckSeverity.ERROR: Severity.ERROR,
}
log = logging.getLogger("ego.alerts")


@dg.sensor(
    name="alert_sensor",
    minimum_interval_seconds=30,
    description="Tells people of failing checks and runs, and of their recovery.",
)
def alert_sensor(
    context: SensorEvaluationContext, storage: Storage, alerts: Alerts
) -> dg.SkipReason:
    now = time.time()
    span = _span(context.cursor, now)
    # As it is: people are also told while the lake is away, which a lost ledger would be read from.
    ledger = storage.ledger()
    store, channels = AlertStore(ledger), alerts.channels()
    end_lost_runs(context.instance, ledger)
    least = Severity.WARNING if alerts.warnings else Severity.ERROR
    found, reached = signals(context.instance, span, ledger)
    before = [Alert.from_dict(state) for state in store.states()]
    found += deleted(context.instance, before)
    chosen = [s for s in found if s.ok or s.severity >= least]
    after, notices = step(before, chosen, now, alerts.cool_down_s)
    if notices or after != before:
        states = {a.subject: a.to_dict() for a in after}
        store.save(states, [_plain(n) for n in notices], list(channels), now)
    context.update_cursor(str(now) if reached is None else json.dumps([reached, span.events]))
    sent, failed = deliver(store, channels, now)
    return dg.SkipReason(
        f"{len(notices)} notices; {sent} messages delivered, {failed} to be tried again"
    )


@dataclass(frozen=True)
class Span:
    """What is yet to be read: of runs that changed since `runs`, what happened since `events`."""

    runs: float
    events: float


def _span(cursor: str | None, now: float) -> Span:
    """The cursor is a time; or two, while the sensor has more behind it than a tick can read."""
    if not cursor:
        return Span(now, now)
    known = json.loads(cursor)
    if isinstance(known, list):
        return Span(*known)
    since = min(known, now) - OVERLAP_S
    return Span(since, since)


def signals(
    instance: dg.DagsterInstance,
    span: Span,
    ledger: Ledger | None = None,
    budget_s: float = LOOK_BUDGET_S,
) -> tuple[list[Signal], float | None]:
    """What happened in its order; and until when, if there was no time for all of it.

    What ended long ago goes before what goes on: a daemon that was away, or a sensor that was
    off, for a week has thousands of runs behind it. ledger: knows of which shards clips are.
    """
    began = time.monotonic()
    after = datetime.fromtimestamp(span.runs, UTC)
    changed = instance.get_run_records(
        dg.RunsFilter(updated_after=after),
        limit=RUNS_A_TICK,
        order_by="update_timestamp",
        ascending=True,
    )
    found: list[Signal] = []
    reached: float | None = None
    for number, record in enumerate(changed, start=1):
        found += _of_run(instance, record, span.events, ledger)
        if number == RUNS_A_TICK or time.monotonic() - began > budget_s:
            # Another one may have changed at the very same time.
            reached = record.update_timestamp.timestamp() - 1e-6
            break
    else:
        read = {r.dagster_run.run_id for r in changed}
        for record in instance.get_run_records(dg.RunsFilter(statuses=GOING_ON)):
            if record.dagster_run.run_id not in read:
                found += _of_run(instance, record, span.events, ledger)
    return sorted(found, key=lambda signal: signal.at), reached


def deleted(instance: dg.DagsterInstance, alerts: Sequence[Alert]) -> list[Signal]:
    """Shards that fail and whose partition was deleted: no run of theirs will ever pass."""
    named = [(a.subject, m) for a in alerts for m in a.failing if SHARD_KEY.fullmatch(m)]
    known = set(instance.get_dynamic_partitions(SHARDS)) if named else set()
    return [Signal(subject, m, ok=True) for subject, m in named if m not in known]


def _of_run(
    instance: dg.DagsterInstance, record: dg.RunRecord, since: float, ledger: Ledger | None
) -> Iterator[Signal]:
    run = record.dagster_run
    member = _member_of(run.tags)

    @cache
    def lost_of(table: str) -> Mapping[str, str]:
        return lost_shards(instance, run, [table] if table else None) if is_range(run.tags) else {}

    evaluations = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    )
    for event in evaluations.records:
        if event.timestamp <= since or event.event_log_entry.dagster_event is None:
            continue
        found = event.event_log_entry.dagster_event.asset_check_evaluation_data
        seen = Signal(
            subject=f"check {found.check_name} of {found.asset_key.to_user_string()}",
            member=member,
            ok=found.passed,
            severity=SEVERITIES[found.severity],
            detail=_short(f"{found.description or ''} (shard {member}, run {run.run_id})"),
            at=event.timestamp,
        )
        here = found.metadata.get(FAILS_HERE)
        if here is not None and not here.value:
            seen = replace(seen, ok=True)  # it fails for what other shards have
        if PARTITION_TAG in run.tags:
            yield seen
            continue
        # It says nothing of shards that the run has lost: what failed there before still does.
        lost = lost_of(found.asset_key.to_user_string())
        looked = [s for s in shards_of_run(instance, run.tags) if s not in lost]
        well = [replace(seen, ok=True, member=m) for m in (looked if lost else [member])]
        yield from well if seen.ok else _by_shard(seen, found, ledger, well)
    if run.status in ENDED and (record.end_time or 0.0) > since:
        ok = ENDED[run.status]
        detail = "" if ok else _short(f"{_cause(instance, run.run_id)} (run {run.run_id})")
        at = record.end_time or 0.0
        for one in (not ok and lost_of("")) or [member]:
            yield Signal(f"job {run.job_name}", one, ok, Severity.ERROR, detail, at)


def _member_of(tags: Mapping[str, str]) -> str:
    """The shards of a run, as alerts name them."""
    first, last = (tags.get(tag) for tag in RANGE_TAGS)
    return tags.get(PARTITION_TAG) or (f"{first}{TO}{last}" if first and last else ALL)


def _by_shard(
    seen: Signal, found: AssetCheckEvaluation, ledger: Ledger | None, well: Sequence[Signal]
) -> Iterator[Signal]:
    """A failure over several shards, told of those that the check's tables name. well: that all
    that it looked at are."""
    tables = [v for v in found.metadata.values() if isinstance(v, dg.TableMetadataValue)]
    rows = [r.data for t in tables for r in t.records]
    of_shards = [r for r in rows if "shard" in r]
    looked_at = {one.member for one in well}
    shards = {str(r["shard"]) for r in of_shards}
    if shards & looked_at:
        shards &= looked_at  # of others, what was said when they were looked at holds
    if shards and len(of_shards) < LISTED:
        yield from well  # but for those
    if not shards and ledger is not None:
        clips = [str(r["where"]) for r in rows if "where" in r]
        stage = found.asset_key.to_user_string()
        shards = {e.shard for c in clips for e in ledger.entries(stage=stage, item_id=c)}
    yield from [replace(seen, member=shard) for shard in sorted(shards)] or [seen]


def _cause(instance: dg.DagsterInstance, run_id: str) -> str:
    """The steps that failed, and the first one's message."""
    found = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    events = [e.event_log_entry.dagster_event for e in found.records]
    failed = [e for e in events if e is not None]
    if not failed:
        found = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        ends = [e.event_log_entry.dagster_event for e in found.records]
        why = next((e.message for e in ends if e is not None and e.message), "")
        return f"the run failed outside of its steps: {why}"
    error = failed[0].step_failure_data.error
    cause = (error.cause or error) if error else None
    message = cause.message.strip().split("\n", 1)[0] if cause else "failed"
    return f"{', '.join(str(e.step_key) for e in failed)}: {message}"


def deliver(store: AlertStore, channels: Mapping[str, Channel], now: float) -> tuple[int, int]:
    """Send what is due: how many got through, how many are to be tried again."""
    began = time.monotonic()
    sent = 0
    broken: set[str] = set()
    postponed = 0
    for message in store.due(now, limit=100):
        if time.monotonic() - began > DELIVERY_BUDGET_S:
            break
        channel = channels.get(message.channel)
        if channel is None:
            log.warning("%s is off: an alert for it is dropped", message.channel)
            store.delivered(message)
            continue
        try:
            # A channel that is down is asked once a tick, however much waits for it.
            if message.channel in broken:
                raise DeliveryError("it did not take the message before")
            send_in_time(channel, message.notices)
        except DeliveryError as error:
            broken.add(message.channel)
            if now - message.created_at > GIVE_UP_S:
                log.error("an alert over %s is given up: %s", message.channel, error)
                store.delivered(message)
                continue
            postponed += 1
            wait_s = min(FIRST_WAIT_S * 2 ** min(message.attempts, 20), LONGEST_WAIT_S)
            log.warning("an alert over %s waits for %.0f s: %s", message.channel, wait_s, error)
            store.postpone(message, now + wait_s)
        else:
            sent += 1
            store.delivered(message)
    return sent, postponed


def _plain(notice: Notice) -> dict[str, object]:
    return {
        "kind": notice.kind.value,
        "subject": notice.subject,
        "severity": notice.severity.name.lower(),
        "failing": notice.failing,
        "text": str(notice),
        "detail": notice.detail,
    }


def _short(text: str) -> str:
    # A file name that is not UTF-8 comes as lone surrogates, which no message can carry.
    text = text.encode("utf-8", "backslashreplace").decode().strip()
    return text if len(text) <= DETAIL_CHARACTERS else f"{text[: DETAIL_CHARACTERS - 1]}…"
