"""Runs that Dagster holds for started, and whose process is gone: its machine was switched off, or
the kernel killed it. They keep their place in the queue and their shard from being retried, and
nobody is told, until somebody ends them; here that is done.

Dagster's run monitoring cannot ask the default launcher's processes whether they live.
"""

from __future__ import annotations

import time

import dagster as dg

from resources.ledger import Ledger, State
from resources.processes import RUN_TAG, is_run_gone, is_run_here

STARTED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
START_LIMIT_S = 900.0
"""So long after it was launched, a run that has not begun never will."""
SILENCE_S = 3600.0
"""So long without a heartbeat of any unit that it was at, a run of another machine is lost."""


def end_lost_runs(instance: dg.DagsterInstance, ledger: Ledger) -> list[str]:
    """Have them failed, or cancelled if that was wanted; their ids."""
    ended = _end_what_never_began(instance)
    runs = instance.get_runs(dg.RunsFilter(statuses=STARTED))
    if not runs:
        return ended
    beats: dict[str, float] = {}
    for entry in ledger.entries(states=[State.RUNNING]):
        beat = entry.heartbeat_at or entry.started_at
        if entry.run_id is not None and beat is not None:
            beats[entry.run_id] = max(beat, beats.get(entry.run_id, 0.0))
    for run in runs:
        tag = run.tags.get(RUN_TAG, "")
        if is_run_gone(run.run_id, tag):
            why = "the process of the run is gone: its machine went down, or it was killed"
        elif is_run_here(run.run_id, tag):
            continue  # a unit without heartbeats may be left of a step of it that was killed
        elif _is_silent(instance, run.run_id, beats.get(run.run_id)):
            why = f"the run has given no sign of life for {SILENCE_S / 60:.0f} min"
        else:
            continue
        if run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, why)
        else:
            instance.report_run_failed(run, why)
        ended.append(run.run_id)
    return ended


def _end_what_never_began(instance: dg.DagsterInstance) -> list[str]:
    """Runs whose process died before it could say that it began."""
    starting = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING])
    ended = []
    for record in instance.get_run_records(starting):
        if time.time() - record.update_timestamp.timestamp() > START_LIMIT_S:
            why = f"the run did not begin within {START_LIMIT_S / 60:.0f} min of its launch"
            instance.report_run_failed(record.dagster_run, why)
            ended.append(record.dagster_run.run_id)
    return ended


def _is_silent(instance: dg.DagsterInstance, run_id: str, beat: float | None) -> bool:
    """Whether a run that had a heartbeat has said nothing since, nor any of its steps."""
    if beat is None or time.time() - beat < SILENCE_S:
        return False
    last = instance.get_records_for_run(run_id, limit=1, ascending=False).records
    return all(time.time() - record.timestamp > SILENCE_S for record in last)
