"""Runs the whole graph over shards, several at once, for `ego run` and the commands like it.

Each shard is a Dagster run like that of a sensor or a backfill, in a process of its own, with the
same executor; as many at a time as the run queue allows on this machine. A shard for which a run
would have nothing to do gets none. Here: which runs, and their progress. Not here: a run's process
(`executors.run_process`), the summary (`run_summary`), words on a terminal (`cli`).
"""

from __future__ import annotations

import importlib
import json
import pickle
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_project.executors import run_process
from dagster_project.executors.run_process import RunCommand
from dagster_project.executors.worker import MAIN, Finished, Task, Told
from dagster_project.executors.worker_pool import Died, Worker, WorkerPool
from dagster_project.home import open_instance
from dagster_project.interrupts import Interrupts
from dagster_project.run_progress import Progress, Tell, Watch
from dagster_project.run_queue import runs_at_once
from dagster_project.run_summary import (
    Summary,
    add_gone,
    add_known_checks,
    add_replaced,
    add_run,
    contents,
    fill,
)
from dagster_project.startup import pictures_served
from dagster_project.unfinished import find_unfinished
from ego_assets.catalog import STAGES_OF_A_SHARD
from ego_assets.galleries.files import GalleryFiles
from ego_assets.graph.backends import Backends
from ego_assets.graph.partitions import SHARDS
from ego_assets.intake.forgotten import pass_over
from ego_assets.intake.moves import recognize
from ego_assets.intake.shards import find_files, register_files, shards_of
from ego_assets.upkeep.recovery.rebuild import ready
from resources.devices.gpu import find_gpus
from resources.environment import degrade_after_s
from resources.lake import Lake, LakeError
from resources.ledger import Ledger
from resources.processes.fork_server import server_ready
from resources.raw.places import files_of, known_files

JOB = "whole_graph"
LOOK_S = 0.5
StageSettings = Mapping[str, Mapping[str, Any]]
"""{op: {setting: value}}, as of the launchpad."""


@dataclass(frozen=True)
class Options:
    """How shards are run.

    degrade_after_s: a step that gets no GPU within this time goes on without; None: it waits.
    settings: of stages. overrides: resources by name, as of `build_defs`.
    """

    force: bool = False
    workers: int = 0
    verbose: bool = False
    degrade_after_s: float | None = None
    settings: StageSettings = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def forces(self) -> bool:
        """Whether something that is done is to be done again."""
        return self.force or any(given.get("force") for given in self.settings.values())

    def run_config(self, lake: Lake) -> dict[str, Any]:
        """What the launchpad would say."""
        level = "INFO" if self.verbose else "CRITICAL"
        config: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": level}}}}
        given: dict[str, Any] = {"storage": {"lake_root": lake.location}}
        if self.workers:
            given["compute"] = {"workers": self.workers}
        config["resources"] = {
            n: {"config": c} for n, c in given.items() if n not in self.overrides
        }
        if self.degrade_after_s is not None:
            config["execution"] = {"config": {"degrade_after_s": self.degrade_after_s}}
        ops = {op: dict(given) for op, given in self.settings.items()}
        if self.force:
            ops = {op: ops.get(op, {}) | {"force": True} for op in STAGES_OF_A_SHARD}
        config["ops"] = {op: {"config": given} for op, given in ops.items()}
        return config


def run_paths(
    places: Iterable[str | Path],
    lake_root: str | Path,
    *,
    tell: Tell | None = None,
    **options: Any,
) -> Summary:
    """Run every asset over the videos in folders and `s3://` prefixes, or named one by one.

    options: as of `Options`. A video's failure never raises. Raises FileNotFoundError for a place
    that is not there, ValueError if there is no video, WeightsMissingError before anything is done.
    """
    places = list(places)
    _require_weights(_options(options))
    found = find_files(places)
    if not found.files:
        refused = "".join(f"\n{uri}: {why}" for uri, why in found.refused.items())
        raise ValueError(f"no video files in {', '.join(map(str, places))}{refused}")
    lake = Lake(lake_root)
    ledger = Ledger.of(lake.location)
    ledger.open()
    ready(lake, ledger, _noting(tell))
    passed = pass_over(lake, ledger, found.files, known_files(lake)[0])
    for uri in passed.files:
        del found.files[uri]
    moved = recognize(lake, ledger, found.files)
    register_files(lake, found.files, min_shards=max(1, sum(not g.fault for g in find_gpus())))
    shards = sorted({*shards_of(lake, found.files), *moved.shards})
    summary = run_shards(lake_root, shards, set(found.files), tell=tell, **options)
    summary.moved = [{"uri": m.uri, "was_at": m.source.uri} for m in moved.moves]
    summary.forgotten = passed.new
    summary.rejected.extend(
        {"uri": uri, "reason": "refused", "detail": why} for uri, why in found.refused.items()
    )
    return summary


def processes_ready() -> AbstractContextManager[None]:
    """Have runs start sooner: their processes share what this one has loaded.

    For a program that has opened nothing yet. Does nothing where Python has threads: a fork has
    none of them, and may wait for what they hold. Those that libraries start as they are loaded
    (jemalloc, polars) hold nothing then. Nor where somebody has taken over what this process
    prints: its runs would print there.
    """
    if threading.active_count() > 1 or sys.stdout is not sys.__stdout__:
        return nullcontext()
    return server_ready(MAIN, own_group=True)


def _options(given: Mapping[str, Any]) -> Options:
    return Options(**{name: value for name, value in given.items() if value is not None})


def _require_weights(chosen: Options) -> None:
    """Raise WeightsMissingError if a run lacks weights, those of stand-ins included."""
    may_degrade = chosen.degrade_after_s is not None or degrade_after_s() is not None
    chosen.overrides.get("backends", Backends()).require_weights(may_degrade=may_degrade)


def run_shards(
    lake_root: str | Path,
    shards: Iterable[str],
    uris: set[str] | None = None,
    *,
    tell: Tell | None = None,
    **options: Any,
) -> Summary:
    """Run every asset over shards that are registered; the summary is of `uris`, or of all.

    options: as of `Options`. Raises WeightsMissingError before anything is done, and
    KeyboardInterrupt after Ctrl-C, when the runs are canceled.
    """
    chosen = _options(options)
    _require_weights(chosen)
    backends = chosen.overrides.get("backends", Backends())
    lake = Lake(lake_root)
    ledger = Ledger.of(lake.location)
    ledger.open()
    ready(lake, ledger, _noting(tell))
    summary = Summary(lake.location, list(shards))
    with open_instance(lake.location) as instance:
        instance.add_dynamic_partitions(SHARDS, lake.shards())
        todo: Iterable[str] = summary.shards
        if not chosen.forces:
            todo = find_unfinished(
                lake, ledger, instance, summary.shards, backends, chosen.settings
            )
        with Interrupts() as interrupts, pictures_served():
            runs = _Runs(lake, ledger, instance, chosen, tell, interrupts)
            ended = runs.run(todo)
        for shard, run_id in ended.items():
            add_run(summary, instance, shard, run_id, runs.problems.get(shard, ""))
    galleries = GalleryFiles(lake)
    with suppress(Exception):  # whatever ails the storage: the summary is worth more than links
        summary.galleries |= {s: galleries.page(s) for s in ended if galleries.has_page(s)}
    skipped = [shard for shard in summary.shards if shard not in ended]
    if skipped and tell:
        tell(Progress(note=_finished_words(len(skipped))))
    add_known_checks(summary, lake, skipped)
    if uris is None:
        uris = {f.uri for shard in summary.shards for f in files_of(lake, shard)}
    add_replaced(summary, lake, runs.before, ended)
    fill(summary, lake, ledger, uris)
    add_gone(summary, ledger)
    return summary


def _finished_words(count: int) -> str:
    return "1 shard is finished already" if count == 1 else f"{count:,} shards are finished already"


def _noting(tell: Tell | None) -> Callable[[str], None] | None:
    """Tell sentences as notes."""
    return (lambda words: tell(Progress(note=words))) if tell else None


class _Runs:
    """The runs of one command: so many at a time, each in a process that is forked for it."""

    def __init__(
        self,
        lake: Lake,
        ledger: Ledger,
        instance: dg.DagsterInstance,
        options: Options,
        tell: Tell | None,
        interrupts: Interrupts,
    ) -> None:
        self.lake = lake
        self.interrupts = interrupts
        self.instance = instance
        self.ref = pickle.dumps(instance.get_ref())
        self.config = options.run_config(lake)
        self.job = _job(options.overrides)
        self.watch = Watch(ledger, tell)
        self.limit = runs_at_once()[0]
        self.busy: dict[int, tuple[str, str]] = {}  # worker's process id → shard, run
        self.ended: dict[str, str] = {}
        self.problems: dict[str, str] = {}
        self.before: dict[str, str] = {}
        """{uri: video} of the shards, before they were run."""

    def run(self, shards: Iterable[str]) -> dict[str, str]:
        """Run the shards, in their order. Returns {shard: its run}."""
        todo = iter(shards)
        following = next(todo, None)
        if following is None:
            return {}
        try:
            with self._pool() as pool:
                try:
                    while following is not None or self.busy:
                        while following is not None and pool.ready and len(self.busy) < self.limit:
                            with self.interrupts.held():
                                self._start(pool.take(""), following)
                            following = next(todo, None)
                        with self.interrupts.held():
                            self._listen(pool)
                except KeyboardInterrupt:
                    self._stop(pool)
                    raise
        except BaseException as error:
            self._end_what_is_left(error)
            raise
        self._end_what_is_left()
        return self.ended

    def _pool(self) -> WorkerPool:
        return WorkerPool(
            run_process.STEP,
            [run_process.DEFINITIONS[0]],
            path=[],
            size=self.limit,
            steps_per_worker=1,
            growth_mb=4096,
            own_group=True,  # Ctrl-C is ours to pass on, once the runs are marked
        )

    def _start(self, worker: Worker, shard: str) -> None:
        run_id = str(uuid.uuid4())
        with suppress(LakeError):  # the run says what is wrong
            self.before |= contents(self.lake, [shard])
        visible = run_process.visible_devices()
        self.busy[worker.pid] = shard, run_id
        worker.give(Task(RunCommand(run_id, shard, self.job, self.config, self.ref, visible)))

    def _listen(self, pool: WorkerPool) -> None:
        for worker, message in pool.wait(LOOK_S):
            if (known := self.busy.get(worker.pid)) is None:
                continue
            shard, run_id = known
            if isinstance(message, Told):
                self.problems[shard] = message.what
                continue
            if isinstance(message, Finished):
                pool.put_back(worker, message)
            elif isinstance(message, Died):
                self.problems[shard] = f"the process of the run {message.how}"
            del self.busy[worker.pid]
            self.ended[shard] = run_id
            self.watch.over(shard)
        self.watch.look(dict(self.busy.values()))

    def _stop(self, pool: WorkerPool) -> None:
        """Have what runs canceled, and wait for it; a second Ctrl-C kills it."""
        with suppress(KeyboardInterrupt):
            with self.interrupts.held():
                for worker in list(pool.workers.values()):
                    if worker.pid in self.busy:
                        self._cancel(worker)
            while self.busy:
                with self.interrupts.held():
                    self._listen(pool)

    def _cancel(self, worker: Worker) -> None:
        _, run_id = self.busy[worker.pid]
        run = self.instance.get_run_by_id(run_id)
        # Dagster records an interrupted run as failed, unless it is marked before.
        if run is not None and not run.is_finished:
            self.instance.report_run_canceling(run, run_process.STOPPED)
        worker.interrupt()

    def _end_what_is_left(self, error: BaseException | None = None) -> None:
        """Record the end of runs whose process did not. error: what ended the command."""
        if error is not None and not isinstance(error, KeyboardInterrupt):
            for shard, _ in self.busy.values():
                self.problems[shard] = f"the command ended: {type(error).__name__}: {error}"
        for shard, run_id in [*self.ended.items(), *self.busy.values()]:
            run = self.instance.get_run_by_id(run_id)
            if run is None or run.is_finished:
                continue
            if shard in self.problems and run.status is not dg.DagsterRunStatus.CANCELING:
                self.instance.report_run_failed(run, self.problems[shard])
            else:
                self.instance.report_run_canceled(run, run_process.STOPPED)


def _job(overrides: Mapping[str, Any]) -> Any:
    """The job, as other processes find it; with resources of a test or benchmark, if it has any."""
    if not overrides:
        return run_process.deployed_job(JOB)
    given = {
        name: [own.__module__, own.__qualname__, {f: getattr(made, f) for f in own.model_fields}]
        for name, made in overrides.items()
        for own in [type(made)]
    }
    return dg.build_reconstructable_job(__name__, "job_with", (json.dumps(given),))


def job_with(overrides: str) -> dg.JobDefinition:
    """Build the job with other resources: JSON of {name: [module, class, fields]}."""
    from dagster_project.definitions import build_defs

    made = {
        name: getattr(importlib.import_module(module), own)(**fields)
        for name, (module, own, fields) in json.loads(overrides).items()
    }
    return build_defs(made).resolve_job_def(JOB)
