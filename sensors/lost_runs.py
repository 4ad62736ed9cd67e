"""Ends runs that Dagster holds for started, and whose process is gone: its machine or container was
restarted, or the kernel killed it. They keep their place in the queue and their shard from being
retried, and nobody is told, until somebody ends them. This module does.

A run is ended if its process is surely gone: its lock in DAGSTER_HOME is free, or no process has
its name. A run that neither tells of is ended if nothing was heard of it for long, and nothing is
while we listen, since clocks may be stepped. Dagster's run monitoring cannot ask the default
launcher's processes whether they live.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import dagster as dg

from resources.ledger import Ledger
from resources.processes import RUN_TAG, Life, life_of_run
from resources.processes.run_locks import RunLocks
from resources.processes.silence import GRACE_S, WATCH_S, AwakeClock, Silence

STARTED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
START_LIMIT_S = 900.0
"""A run that we have seen waiting to begin for so long never will."""
SILENCE_S = 3600.0
"""So long without a heartbeat of any item that it was at, a run of another machine is lost."""
LOOK_S = 60.0
"""Longest time that passes between two looks, or two ticks of the sensor: a longer gap is one in
which we were stopped, and those that we watch most likely were, too."""
_starting = Silence(AwakeClock(LOOK_S))
"""From tick to tick: of the runs that have not begun."""


def end_lost_runs(instance: dg.DagsterInstance, ledger: Ledger) -> list[str]:
    """Have them failed, or cancelled if that was wanted; their ids."""
    _sweep(instance)
    ended = _end_what_never_began(instance)
    runs = instance.get_runs(dg.RunsFilter(statuses=STARTED))
    if not runs:
        return ended
    beats = ledger.beats_of_runs()
    lost: list[tuple[str, str]] = []
    silent: list[str] = []
    for run in runs:
        _, age_s = beats.get(run.run_id, (0.0, None))
        life = _life_of(instance, run)
        if life is Life.GONE and (age_s is None or abs(age_s) > GRACE_S):
            why = (
                "the process of the run is gone: its machine or container went down, or it was "
                "killed"
            )
            lost.append((run.run_id, why))
        elif life is Life.UNKNOWN and age_s is not None and age_s >= SILENCE_S:
            # An item without heartbeats may be left of a step of it that was killed.
            last = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
            if all(time.time() - record.timestamp > SILENCE_S for record in last):
                silent.append(run.run_id)
    why = f"the run has given no sign of life for {SILENCE_S / 60:.0f} min"
    lost += [(run_id, why) for run_id in _still_silent(instance, ledger, silent)]
    for run_id, why in lost:
        # It may have ended by itself, just before its process did.
        now = instance.get_run_by_id(run_id)
        if now is None or now.status not in STARTED:
            continue
        if now.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(now, why)
        else:
            instance.report_run_failed(now, why)
        ended.append(run_id)
    return ended


def count_lost_runs(instance: dg.DagsterInstance) -> int:
    """Count the runs that Dagster holds for in progress and that surely are not."""
    started = instance.get_runs(dg.RunsFilter(statuses=STARTED))
    lives = [_life_of(instance, run) for run in started]
    return lives.count(Life.GONE) + len(_never_began(instance))


def _end_what_never_began(instance: dg.DagsterInstance) -> list[str]:
    locks = _locks(instance)
    made = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED]))
    killed = [run for run in made if locks.life_of(run.run_id) is Life.GONE]
    for run in killed:  # of an `ego run`, which makes its runs itself
        instance.report_run_failed(run, "the process of the run was killed before the run began")
    found = _never_began(instance)
    for run in found:
        why = f"the run did not begin within {START_LIMIT_S / 60:.0f} min of its launch"
        instance.report_run_failed(run, why)
    return [run.run_id for run in [*killed, *found]]


def _locks(instance: dg.DagsterInstance) -> RunLocks:
    """Return the locks of the instance's runs, as far as they are on this machine."""
    return RunLocks(instance.root_directory)


def _life_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Life:
    found = _locks(instance).life_of(run.run_id)
    return (
        found if found is not Life.UNKNOWN else life_of_run(run.run_id, run.tags.get(RUN_TAG, ""))
    )


def _sweep(instance: dg.DagsterInstance) -> None:
    """Remove the locks of runs that ended, or were deleted, and whose process was killed."""
    locks = _locks(instance)
    locks.sweep()
    for run_id in locks.run_ids():
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            locks.forget(run_id)


def _never_began(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs whose process died before it could say that it began, or just after."""
    statuses = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    return [
        record.dagster_run
        for record in instance.get_run_records(dg.RunsFilter(statuses=statuses))
        if record.dagster_run.status is dg.DagsterRunStatus.STARTING
        or _did_nothing(instance, record.dagster_run)
        if _starting.of(record.dagster_run.run_id, [record.update_timestamp]) > START_LIMIT_S
    ]


def _did_nothing(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a run has begun, and its executor has not: each tells of itself at once."""
    if run.tags.get(RUN_TAG, "").startswith(run.run_id):
        return False
    last = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    began = dg.DagsterEventType.RUN_START
    is_start = bool(last) and last[0].event_log_entry.dagster_event_type is began
    return is_start and _locks(instance).life_of(run.run_id) is Life.UNKNOWN


def _still_silent(
    instance: dg.DagsterInstance, ledger: Ledger, run_ids: Sequence[str]
) -> list[str]:
    """Those of the runs that say nothing for some beats' time, now."""
    if not run_ids:
        return []

    def signs() -> list[tuple[float | None, int | None]]:
        beats = ledger.beats_of_runs()
        return [(beats.get(r, (None, 0.0))[0], _last_event(instance, r)) for r in run_ids]

    before = signs()
    time.sleep(WATCH_S)
    return [r for r, old, new in zip(run_ids, before, signs(), strict=True) if old == new]


def _last_event(instance: dg.DagsterInstance, run_id: str) -> int | None:
    last = instance.get_records_for_run(run_id, limit=1, ascending=False).records
    return last[0].storage_id if last else None
