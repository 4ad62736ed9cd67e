"""Runs the whole graph over files, shard by shard, in this process: what `ego run` does.

Here: the run, its progress, its summary. Not here: words on a terminal (`cli`).
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
from dagster_project.executor import show_prints_without_processes
from dagster_project.home import open_instance
from ego_assets.assets.stage import READ_SLOWLY
from ego_assets.partitions import SHARDS
from ego_assets.schemas import TABLES
from ego_assets.stages.moves import recognize
from ego_assets.stages.rebuild import ready
from ego_assets.stages.shards import find_files, register_files, shards_of
from ego_assets.stages.sources import GONE_WORDS, gone_detail
from resources.compute import Compute
from resources.gpu import find_gpus, go_without_gpu, lending, list_gpus
from resources.gpu_leases import LEASE_VARIABLE, LeaseBook, Request, describe_holders
from resources.lake import Lake
from resources.lake.places import files_of
from resources.ledger import Ledger, State
from resources.ledger.sources import AWAY, DELETED, Sources
from resources.processes import RUN_TAG, run_tag
from resources.processes.run_locks import RunLocks
from resources.storage import Storage

EARLY_TABLES = ("video_manifest", "clips")
CLIP_TABLES = tuple(t for t in TABLES if t not in EARLY_TABLES)
JOB = "whole_graph"
AWAY_NOTE = (
    "{place} is away: no video is there (is its disk mounted?). What is done of its videos stays, "
    "what is not waits for it, and other folders go on"
)


@dataclass
class Summary:
    """What came of the videos of a run. `problems` are sentences for a person.

    waiting_for_gpu: clips by table that have, at most, a result made without one; degraded: why.
    warnings: sentences on what went well, and slowly. moved: raw files that are elsewhere now, the
    same videos as before; replaced: those that hold another video than before; gone: those that are
    not there, each told once.
    """

    lake: str
    shards: list[str]
    videos: dict[str, int] = field(default_factory=dict)
    rejected: list[dict[str, str]] = field(default_factory=list)
    clips: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)
    moved: list[dict[str, str]] = field(default_factory=list)
    replaced: list[dict[str, str]] = field(default_factory=list)
    gone: list[dict[str, str]] = field(default_factory=list)
    waiting_for_gpu: dict[str, int] = field(default_factory=dict)
    degraded: str = ""
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing failed; rejected videos are no failure unless all are."""
        nothing_taken = self.videos.get("total", 0) > 0 and not self.videos.get("accepted")
        return not (self.failures or self.problems or nothing_taken)


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
    before = _contents(summary, lake)
    lend = partial(_one_gpu, degrade_after_s, tell)
    with open_instance(lake.location) as instance, lending(lend):
        instance.add_dynamic_partitions(SHARDS, lake.shards())
        locks = RunLocks(instance.root_directory)
        for shard in summary.shards:
            run_id = str(uuid.uuid4())
            with locks.held(run_id), _Watch(ledger, shard, tell):
                result = job.execute_in_process(
                    partition_key=shard,
                    instance=instance,
                    run_config=run_config,
                    raise_on_error=False,
                    run_id=run_id,
                    tags={RUN_TAG: run_tag(run_id)},
                )
            _add_seconds(summary, instance, result.run_id)
            summary.warnings.extend(_slow_reads(result))
            if not result.success:
                summary.problems.extend(_step_failures(shard, result))
    if uris is None:
        uris = {f.uri for shard in summary.shards for f in files_of(lake, shard)}
    _add_replaced(summary, lake, before)
    _fill(summary, lake, ledger, uris)
    _add_gone(summary, ledger)
    return summary


def _noting(tell: Callable[[Progress], None] | None) -> Callable[[str], None] | None:
    """Tell sentences as notes."""
    return (lambda words: tell(Progress(note=words))) if tell else None


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


def _step_failures(shard: str, result: dg.ExecuteInProcessResult) -> list[str]:
    found = []
    for event in result.all_events:
        if event.event_type is not dg.DagsterEventType.STEP_FAILURE:
            continue
        error = event.step_failure_data.error
        cause = (error.cause or error) if error else None
        found.append(f"{shard} {event.step_key}: {cause.message.strip() if cause else 'failed'}")
    return found or [f"{shard}: the run failed"]


def _slow_reads(result: dg.ExecuteInProcessResult) -> list[str]:
    """What steps said of files that were read slowly."""
    found: list[str] = []
    for event in result.all_events:
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            told = event.materialization.metadata.get(READ_SLOWLY)
            found += str(told.value).split("\n") if told else []
    return found


def _add_seconds(summary: Summary, instance: dg.DagsterInstance, run_id: str) -> None:
    for stats in instance.get_run_step_stats(run_id):
        if stats.start_time and stats.end_time:
            before = summary.seconds.get(stats.step_key, 0.0)
            summary.seconds[stats.step_key] = round(before + stats.end_time - stats.start_time, 2)


def _fill(summary: Summary, lake: Lake, ledger: Ledger, uris: set[str]) -> None:
    """Counts over the videos that were asked for (a shard may hold others)."""
    videos = [
        v
        for shard in summary.shards
        for v in lake.read("video_manifest", shard).to_pylist()
        if v["uri"] in uris
    ]
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
    for shard in summary.shards:
        mine = [e for e in ledger.entries(shard=shard) if e.video_id in accepted or not e.video_id]
        for entry in mine:
            if entry.stage in CLIP_TABLES:
                clips.add(entry.unit_id)
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
                    "unit": entry.unit_id,
                    "state": entry.state.value,
                    "reason": reason,
                }
            )
            if entry.stage in CLIP_TABLES and worst.get(entry.unit_id) is not State.QUARANTINED:
                worst[entry.unit_id] = entry.state
        for table in TABLES:
            rows = lake.read(table, shard, columns=["video_id"])["video_id"].to_pylist()
            counted = sum(v in accepted for v in rows) if table != "video_manifest" else len(videos)
            summary.rows[table] = summary.rows.get(table, 0) + counted
    quarantined = sum(s is State.QUARANTINED for s in worst.values())
    summary.clips = {
        "total": len(clips),
        "done": len(clips) - len(worst),
        "failed": len(worst) - quarantined,
        "quarantined": quarantined,
    }


def _contents(summary: Summary, lake: Lake) -> dict[str, str]:
    """{uri: video_id}, as the manifests say."""
    return {
        row["uri"]: row["video_id"]
        for shard in summary.shards
        for row in lake.read("video_manifest", shard, columns=["uri", "video_id"]).to_pylist()
    }


def _add_replaced(summary: Summary, lake: Lake, before: Mapping[str, str]) -> None:
    for uri, video in _contents(summary, lake).items():
        if before.get(uri, video) != video:
            summary.replaced.append({"uri": uri, "video_id": video, "was": before[uri]})


def _add_gone(summary: Summary, ledger: Ledger) -> None:
    """Tell once what is gone. A place that is away is a problem if work waits for it."""
    sources = Sources(ledger)
    told = []
    for source, units in sources.untold(summary.shards):
        told.append(source.unit_id)
        detail = gone_detail(source.uri, GONE_WORDS[source.gone_why or DELETED])
        summary.gone.append({"uri": source.uri, "shard": source.shard, "detail": detail})
        if units and source.gone_why == AWAY:
            summary.problems.append(f"{units} units of {source.shard} were waited for: {detail}")
    sources.told(told)


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
