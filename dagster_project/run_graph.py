"""Runs the whole graph over files, shard by shard, in this process: what `ego run` does.

Here: the run and its progress. Not here: its summary (`run_summary`), words on a terminal (`cli`).
"""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_project.definitions import build_defs
from dagster_project.executors.step import show_prints_without_processes
from dagster_project.home import open_instance
from dagster_project.interrupts import WORDS, Interrupts, cancelled_by
from dagster_project.run_summary import (
    CLIP_TABLES,
    EARLY_TABLES,
    Summary,
    add_gone,
    add_replaced,
    add_seconds,
    contents,
    failed_checks,
    fill,
    slow_reads,
    step_failures,
)
from ego_assets.partitions import SHARDS
from ego_assets.schemas import TABLES
from ego_assets.stages.moves import recognize
from ego_assets.stages.rebuild import ready
from ego_assets.stages.shards import find_files, register_files, shards_of
from resources.compute import Compute
from resources.gpu import find_gpus, go_without_gpu, lending, list_gpus
from resources.gpu_leases import LEASE_VARIABLE, LeaseBook, Request, describe_holders
from resources.lake import Lake
from resources.lake.places import files_of
from resources.ledger import Ledger, State
from resources.ledger.sources import Sources
from resources.processes import RUN_TAG, run_tag
from resources.processes.run_locks import RunLocks
from resources.storage import Storage

JOB = "whole_graph"
AWAY_NOTE = (
    "{place} is away: no video is there (is its disk mounted?). What is done of its videos stays, "
    "what is not waits for it, and other folders go on"
)


@dataclass(frozen=True)
class Progress:
    """Where a run stands: units ended and expected (None until it is known), stage by stage.

    note: a sentence for a person, in place of all that: why nothing goes on.
    """

    shard: str = ""
    stage: str = ""
    ended: int = 0
    total: int | None = None
    stages: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    note: str = ""


def run_paths(
    places: Iterable[str | Path],
    lake_root: str | Path,
    *,
    force: bool = False,
    workers: int = 0,
    verbose: bool = False,
    degrade_after_s: float | None = None,
    tell: Callable[[Progress], None] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Summary:
    """Run every asset over the videos in folders and `s3://` prefixes, or named one by one.

    A video's failure never raises. Raises FileNotFoundError for a place that is not there,
    ValueError if there is no video.
    """
    places = list(places)
    found = find_files(places)
    if not found.files:
        refused = "".join(f"\n{uri}: {why}" for uri, why in found.refused.items())
        raise ValueError(f"no video files in {', '.join(map(str, places))}{refused}")
    lake = Lake(lake_root)
    ledger = Ledger.of(lake.location)
    ledger.open()
    moved = recognize(lake, ready(lake, ledger, _noting(tell)), found.files)
    register_files(lake, found.files, min_shards=max(1, sum(not g.fault for g in find_gpus())))
    summary = run_shards(
        lake_root,
        sorted({*shards_of(lake, found.files), *moved.shards}),
        set(found.files),
        force=force,
        workers=workers,
        verbose=verbose,
        degrade_after_s=degrade_after_s,
        tell=tell,
        overrides=overrides,
    )
    summary.moved = [{"uri": m.uri, "was_at": m.source.uri} for m in moved.moves]
    summary.rejected.extend(
        {"uri": uri, "reason": "refused", "detail": why} for uri, why in found.refused.items()
    )
    return summary


def run_shards(
    lake_root: str | Path,
    shards: Iterable[str],
    uris: set[str] | None = None,
    *,
    force: bool = False,
    workers: int = 0,
    verbose: bool = False,
    degrade_after_s: float | None = None,
    tell: Callable[[Progress], None] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Summary:
    """Run every asset over shards that are registered; the summary is of `uris`, or of all.

    degrade_after_s: a run that gets no GPU within this time goes on without; None: it waits.
    overrides: resources by name, as of `build_defs`.
    """
    show_prints_without_processes()
    lake = Lake(lake_root)
    ledger = Ledger.of(lake.location)
    ledger.open()
    ready(lake, ledger, _noting(tell))
    resources = {"storage": Storage(lake_root=lake.location), "compute": Compute(workers=workers)}
    job = build_defs(resources | dict(overrides or {})).resolve_job_def(JOB)
    run_config = _run_config(job, force, verbose)
    summary = Summary(lake.location, list(shards))
    before = contents(summary, lake)
    lend = partial(_one_gpu, degrade_after_s, tell)
    with open_instance(lake.location) as instance, lending(lend):
        instance.add_dynamic_partitions(SHARDS, lake.shards())
        locks = RunLocks(instance.root_directory)
        for shard in summary.shards:
            with _Watch(ledger, shard, tell):
                result = _run_shard(job, instance, locks, shard, run_config)
            add_seconds(summary, instance, result.run_id)
            summary.warnings.extend(slow_reads(result))
            summary.checks.extend(failed_checks(shard, result))
            if not result.success:
                summary.problems.extend(step_failures(shard, result))
    if uris is None:
        uris = {f.uri for shard in summary.shards for f in files_of(lake, shard)}
    add_replaced(summary, lake, before)
    fill(summary, lake, ledger, uris)
    add_gone(summary, ledger)
    return summary


def _noting(tell: Callable[[Progress], None] | None) -> Callable[[str], None] | None:
    """Tell sentences as notes."""
    return (lambda words: tell(Progress(note=words))) if tell else None


def _run_shard(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    locks: RunLocks,
    shard: str,
    run_config: dict[str, Any],
) -> dg.ExecuteInProcessResult:
    """Run the job over a shard. Raises KeyboardInterrupt after Ctrl-C, when the run is canceled."""
    run_id, interrupts = str(uuid.uuid4()), Interrupts()
    with locks.held(run_id), interrupts.noted(), cancelled_by(interrupts, instance):
        try:
            result = job.execute_in_process(
                partition_key=shard,
                instance=instance,
                run_config=run_config,
                raise_on_error=False,
                run_id=run_id,
                tags={RUN_TAG: run_tag(run_id)},
            )
        finally:
            run = instance.get_run_by_id(run_id)
            if interrupts.came and run is not None and not run.is_finished:  # it had hardly begun
                instance.report_run_canceled(run, WORDS)
    if interrupts.came:
        raise KeyboardInterrupt
    return result


@contextmanager
def _one_gpu(
    degrade_after_s: float | None = None, tell: Callable[[Progress], None] | None = None
) -> Iterator[None]:
    """A GPU for a stage that computes on one, leased as the executor does; nothing on a machine
    without one, or if none is free in time."""
    gpus = list_gpus()
    if not gpus:
        yield
        return
    book = LeaseBook()
    lease = book.ask(Request(1, run_id="ego-run", step_key="a stage"), gpus)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    deadline = math.inf if degrade_after_s is None else time.monotonic() + degrade_after_s
    try:
        granted = lease.poll()
        if not granted and tell:
            tell(Progress(note=f"waits for a GPU: {describe_holders(book, gpus)}"))
        while not granted and time.monotonic() < deadline:
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))
            granted = lease.poll()
        if granted:
            os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            os.environ["CUDA_VISIBLE_DEVICES"] = str(lease.devices[0].index)
            os.environ[LEASE_VARIABLE] = lease.path
        else:
            lease.release()
            go_without_gpu(
                f"no GPU was free within {degrade_after_s:g} s (--degrade-after); "
                f"{describe_holders(book, gpus)}"
            )
        yield
    finally:
        lease.release()
        go_without_gpu("")
        for name in ("CUDA_VISIBLE_DEVICES", LEASE_VARIABLE):
            os.environ.pop(name, None)
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _run_config(job: dg.JobDefinition, force: bool, verbose: bool) -> dict[str, Any]:
    level = "INFO" if verbose else "CRITICAL"
    config: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": level}}}}
    if force:
        stages = [n.name for n in job.nodes if not n.name.endswith("_checks")]
        config["ops"] = {name: {"config": {"force": True}} for name in stages}
    return config


class _Watch:
    """Tells how a shard stands, from the ledger, twice a second."""

    def __init__(self, ledger: Ledger, shard: str, tell: Callable[[Progress], None] | None) -> None:
        self.ledger = ledger
        self.shard = shard
        self.tell = tell
        self.away: set[str] = set()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Watch:
        if self.tell:
            self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        if self.tell:
            self.thread.join()
            self.tell(self._progress())

    def _watch(self) -> None:
        assert self.tell is not None
        while not self.over.wait(0.5):
            self.tell(self._progress())
            away = Sources(self.ledger).places_away(self.shard)
            for place in sorted(away - self.away):
                self.tell(Progress(self.shard, note=AWAY_NOTE.format(place=place)))
            self.away = away

    def _progress(self) -> Progress:
        counts = self.ledger.counts([self.shard])
        return progress_of(self.shard, counts)


def progress_of(shard: str, counts: dict[str, dict[State, int]]) -> Progress:
    """Progress from the ledger's counts of a shard; a stage to come counts every clip."""
    stages: dict[str, tuple[int, int, int]] = {}
    for table in TABLES:
        mine = Counter(counts.get(table, {}))
        bad = mine[State.FAILED] + mine[State.QUARANTINED] + mine[State.DROPPED]
        stages[table] = (mine[State.DONE], bad, sum(mine.values()))
    ended = sum(done + bad for done, bad, _ in stages.values())
    clips = stages["detections"][2]
    total = None
    if clips:
        total = sum(stages[t][2] for t in EARLY_TABLES) + clips * len(CLIP_TABLES)
    current = next((t for t in TABLES if stages[t][0] + stages[t][1] < max(stages[t][2], 1)), "")
    return Progress(shard, current, ended, total, stages)
