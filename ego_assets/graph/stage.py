"""What every asset does around its stage: settings in, one stage over the shard, metadata out.

Here: the bridge from Dagster to `ego_assets.stages`. Not here: any computing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ego_assets.catalog import TABLES
from ego_assets.engine import plan
from ego_assets.engine import provisional as without_gpu
from ego_assets.engine.choices import Choice, Choices, Part, share_out
from ego_assets.engine.concurrency import Concurrency, concurrency
from ego_assets.engine.outcome import StageReport
from ego_assets.engine.plan import ShardInputs, StageSpec
from ego_assets.engine.runner import run_stage
from ego_assets.graph.backends import Backends
from ego_assets.graph.lineage import column_lineage
from ego_assets.graph.partitions import (
    NO_EVENT,
    NOT_MADE,
    fail_for_lost,
    is_last_step,
    is_range,
    lost_shards,
    shards_partitions,
    version_tags,
)
from ego_assets.graph.previews import preview_metadata
from ego_assets.graph.spec import RunConfig, Stage, choice_of, parts_of, stage_spec
from ego_assets.upkeep.recovery.rebuild import ready
from ego_assets.upkeep.staleness import data_versions
from resources.compute import Compute
from resources.devices.gpu import borrowed_device, list_gpus, why_without_gpu
from resources.environment import check_environment
from resources.lake import Lake
from resources.ledger.sources import Sources
from resources.processes import machine
from resources.storage import Storage

LISTED_FAILURES = 50
READ_SLOWLY = "read slowly"
"""Name of metadata: files whose storage is slow."""
BACKENDS = "backends"
"""Name of the resource."""
GPUS_TAG = "ego/gpus"
LISTED_VIDEOS = 100
_condition = dg.AutomationCondition
FOLLOWS = (
    _condition.any_deps_updated().since_last_handled()
    & ~_condition.any_deps_missing()
    & ~_condition.any_deps_in_progress()
    & ~_condition.in_progress()
).with_label("follows what it is made from")
"""Of the tables of clips: what `follow_sensor` goes by, if a person has started it. As `eager()`,
which also keeps a list of every shard that is missing: a cursor of 1.5 MB with 10,000 shards."""


@dataclass(frozen=True)
class StageRun:
    """A stage as one run does it, shard by shard. choice: what the run says of it itself."""

    context: dg.AssetExecutionContext
    stage: Stage
    config: RunConfig
    storage: Storage
    compute: Compute
    backends: Backends | None
    choice: Choice | None

    def parts(self, shard: str) -> list[Part]:
        """The stage as the takes of a shard are to be made: as this run says, else as was chosen
        for them before, else by default. Raises ChoiceError."""
        stage, only = self.stage, tuple(self.config.only)
        lake, key = self.storage.lake(), stage.carried_stage
        choices = Choices(lake)
        known = choices.of(key, shard) if self.choice is None else []
        if not known:
            spec = stage_spec(stage, self.config, self.storage, self.backends)
            if self.choice is not None and self.config.redo_stale:
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                made = replace(self.choice, run_id=self.context.run_id, made_at=now)
                choices.keep(key, shard, made)
            return [Part(spec, only, self.config.settings())]
        parts = parts_of(stage, type(self.config), self.storage, self.backends, known)
        found = []
        for part, groups in share_out(parts, ShardInputs(lake, self.storage.ledger(), shard)):
            mine = [g for g in groups if not only or g.has_any(only)]
            units = tuple(u.unit_id for g in mine for u in g.units)
            if units:
                found.append(replace(part, units=units))
        return found or [replace(parts[0], units=only)]

    def spec_of(self, part: Part, shard: str) -> StageSpec:
        config, compute = self.config, self.compute
        return replace(
            part.spec,
            shard=shard,
            run_id=self.context.run_id,
            max_attempts=compute.max_attempts,
            max_deaths=compute.max_deaths,
            max_lost=compute.max_lost,
            backoff_s=compute.backoff_s,
            bytes_in_flight=compute.bytes_in_flight,
            hardware_decoding=compute.hardware_decoding,
            force=config.force,
            redo_stale=config.redo_stale,
            units=part.units,
        )


def materialize_stage(
    context: dg.AssetExecutionContext,
    stage: Stage,
    config: RunConfig,
    storage: Storage,
    compute: Compute,
    backends: Backends | None = None,
) -> Iterator[dg.MaterializeResult]:
    """Run a stage over the shard of this run and report each of its selected tables.

    Raises EnvironmentVariableError before anything is done.

    A run over a range of shards does them one after another, tries them all, and reports each as
    soon as it is made. What is below goes on with those; the last step fails and names the others.
    """
    check_environment()
    ready(storage.lake(), storage.ledger(), context.log.warning)
    chosen = context.selected_asset_keys
    stage = replace(stage, tables=tuple(t for t in stage.tables if dg.AssetKey(t) in chosen))
    said = context.run.run_config
    choice = choice_of_run(said, context.job_def.resource_defs, stage, config, backends)
    run = StageRun(context, stage, config, storage, compute, backends, choice)
    if is_range(context.run.tags):
        yield from _materialize_range(run)
        return
    (shard,) = context.partition_keys
    metadata, made = run_shard(run, shard)
    for table in stage.tables:
        yield dg.MaterializeResult(
            asset_key=table, data_version=dg.DataVersion(made[table]), metadata=metadata[table]
        )


def choice_of_run(
    run_config: Mapping[str, Any],
    resource_defs: Mapping[str, dg.ResourceDefinition],
    stage: Stage,
    config: RunConfig,
    backends: Backends | None,
) -> Choice | None:
    """What a run says itself of a stage, as of `choice_of`."""
    schema = resource_defs[BACKENDS].config_schema if backends else None
    deployed: Any = schema.default_value if schema and schema.default_provided else {}
    given: Any = run_config.get("resources") or {}
    named = (given.get(BACKENDS) or {}).get("config") or {}
    return choice_of(named, stage, config, backends, deployed)


def needs_device(operator: str, backend: str, compute: Compute) -> bool:
    """Whether a stage by that backend has any use of a device, to compute or to decode."""
    return compute.hardware_decoding or plan.uses_device(operator, backend)


def _materialize_range(run: StageRun) -> Iterator[dg.MaterializeResult]:
    context, tables = run.context, run.stage.tables
    shards = context.partition_keys
    deps = context.assets_def.asset_deps
    above = {key.to_user_string() for t in tables for key in deps[dg.AssetKey(t)]}
    lost = lost_shards(context.instance, context.run, above - set(tables))
    for shard in (s for s in shards if s not in lost):
        try:
            metadata, made = run_shard(run, shard)
        except Exception as error:  # whatever it is, it is of this shard: the others go on
            lost[shard] = why = str(getattr(error, "description", None) or error)
            context.log.error(f"shard {shard}: {type(error).__name__}: {why}")
            for table in tables:
                context.log_event(
                    dg.AssetObservation(table, partition=shard, metadata={NOT_MADE: why})
                )
            continue
        for table in tables:
            key = dg.AssetKey(table)
            code = context.assets_def.code_versions_by_key.get(key)
            tags = version_tags(context.instance, shard, deps[key], code, made[table])
            context.log_event(
                dg.AssetMaterialization(table, partition=shard, metadata=metadata[table], tags=tags)
            )
    if len(lost) == len(shards) or is_last_step(context.op_execution_context):
        fail_for_lost(lost, len(shards))
    for table in tables:
        yield dg.MaterializeResult(asset_key=table, metadata={NO_EVENT: True})


def run_shard(run: StageRun, shard: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Run a stage: (metadata, data version) of each table. Raises Failure if nothing was done."""
    context, lake = run.context, run.storage.lake()
    parts = run.parts(shard)
    chosen = [f"{p.choice} (run {p.choice.run_id})" for p in parts if not p.choice.is_default]
    if chosen:
        context.log.info(f"shard {shard}: with what was chosen for it: {'; '.join(chosen)}")
    done = [run_part(run, part, shard) for part in parts]
    report = merged([report for report, _ in done])
    metadata = report_metadata(report)
    if chosen:
        metadata["chosen before"] = "; ".join(chosen)
    for _, more in done:
        metadata |= more
    if run.stage.task == "probe":
        metadata["raw videos"] = raw_videos_table(lake, shard)
    for why in report.outdone:
        context.log.warning(f"made again: {why}")
    for old, new in report.moved_files.items():
        context.log.info(f"{old} is at {new} now: the same video, nothing is computed again")
    for why in report.gone_files.values():
        context.log.warning(why)
    for failure in report.failures:
        context.log.warning(f"{failure.unit_id} {failure.state}: {failure.reason}")
    if report.units and report.failed == report.units:
        raise dg.Failure(
            f"none of the {report.units} units of shard {shard} could be done; "
            f"the first: {report.failures[0].unit_id}: {report.failures[0].reason}",
            metadata=metadata,
            allow_retries=False,
        )
    inputs = ShardInputs(lake, run.storage.ledger(), shard)
    if not report.units and (above := plan.not_made(run.stage.task, inputs)):
        raise dg.Failure(
            f"{above} of shard {shard} has not been made: materialize it first",
            metadata=metadata,
            allow_retries=False,
        )
    made_by = {f"{p.spec.backend or p.spec.task} {p.spec.operator_version}": None for p in parts}
    sources = Sources(run.storage.ledger())
    described = {
        table: preview_metadata(lake, table, shard, context.log, sources)
        | {
            "dagster/row_count": report.rows[table],
            "file": dg.MetadataValue.path(lake.storage.uri(f"{table}/{shard}.parquet")),
            "dagster/column_lineage": column_lineage(table),
            "backend": ", ".join(made_by),
        }
        | metadata
        for table in run.stage.tables
    }
    return described, data_versions(run.storage.ledger(), run.stage.tables, shard)


def run_part(run: StageRun, part: Part, shard: str) -> tuple[StageReport, dict[str, Any]]:
    """Run a stage over takes of a shard: what it did, and metadata for a person: how many takes it
    had on a device, what it lacks if it had to do without."""
    spec = run.spec_of(part, shard)
    if spec.operator and needs_device(spec.operator, spec.backend, run.compute):
        with borrowed_device():
            return _run_part(run, part, spec, shard)
    return _run_part(run, part, spec, shard)


def _run_part(
    run: StageRun, part: Part, spec: StageSpec, shard: str
) -> tuple[StageReport, dict[str, Any]]:
    context, compute = run.context, run.compute
    workers, real, chosen = compute.worker_count(), None, None
    if spec.operator:
        lanes, on_device = plan.lanes(spec.operator, spec.backend)
        devices = leased_devices() if on_device else ()
        share = leased_share(context)
        chosen = Concurrency(compute.worker_count(on_device=on_device), lanes, share)
        if devices:
            chosen = on_devices(spec, devices, share, compute)
            context.log.info(f"takes at a time on a device: {chosen.why}")
        spec = replace(
            spec,
            lanes=chosen.lanes,
            devices=devices,
            device_share=chosen.share,
            publish_behind=on_device,
        )
        workers = chosen.workers
        why = why_without_gpu()
        provisional = None
        if why and on_device:
            provisional = without_gpu.stand_in(spec, dict(part.form), why)
        if provisional is not None:
            spec, real, workers = provisional, spec, compute.worker_count()
        elif why:
            context.log.info(f"{spec.backend} needs no GPU: these are its results, nothing waits")

    def warn(words: str) -> None:
        context.log.warning(words)

    report = run_stage(
        spec,
        workers=workers,
        # A number that a person gives holds, and so does one for each device.
        shares_cpus=not (compute.workers or spec.devices),
        isolate=compute.isolate,
        real=real,
        warn=warn,
    )
    metadata: dict[str, Any] = {}
    if chosen is not None and chosen.why:
        metadata["takes on a device"] = chosen.why
    if real is not None:
        metadata |= degraded_metadata(report, spec, real)
        context.log.warning(f"{metadata['degraded']}. {metadata['what brings the real result']}")
    return report, metadata


_SUMMED = (
    *("units", "done", "skipped", "retried", "quarantined", "blocked", "gone", "taken_over"),
    *("worker_deaths", "seconds", "video_s", "failures", "outdone"),
)


def merged(reports: Sequence[StageReport]) -> StageReport:
    """Of the parts of a stage, one after another."""
    first, *others = reports
    total = replace(first)
    for other in others:
        for name in _SUMMED:
            setattr(total, name, getattr(total, name) + getattr(other, name))
        total.waiting = max(total.waiting, other.waiting)  # each counts those of the shard
        total.peak_rss_bytes = max(total.peak_rss_bytes, other.peak_rss_bytes)
        total.rows = other.rows
        total.notes = total.notes | other.notes
        total.slow = total.slow | other.slow
        total.moved_files = total.moved_files | other.moved_files
        total.gone_files = total.gone_files | other.gone_files
    return total


def leased_devices() -> tuple[str, ...]:
    """The devices that the executor gave to this step."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return tuple(d.strip() for d in given.split(",") if d.strip())


def on_devices(
    spec: StageSpec, devices: Sequence[str], share: float, compute: Compute
) -> Concurrency:
    """How many takes of a stage go at a time on the devices that its step leased."""
    kinds = [gpu.name for gpu in list_gpus()]
    takes = compute.takes_per_device
    return concurrency(spec, devices, kinds, share, takes, machine.cpus())


def leased_share(context: dg.AssetExecutionContext) -> float:
    """What this step has of each of its devices, as its tag says; 1 on a machine without any."""
    share = float(context.op_execution_context.op.tags.get(GPUS_TAG) or 1)
    return min(share, 1.0) if share > 0 else 1.0


def report_metadata(report: StageReport) -> dict[str, Any]:
    """What a stage did, as a person reads it at the UI."""
    metadata: dict[str, Any] = {
        "units": report.units,
        "done": report.done,
        "already done": report.skipped,
        "retried": report.retried,
        "quarantined": report.quarantined,
        "blocked": report.blocked,
        "raw file gone": report.gone,
        "worker deaths": report.worker_deaths,
        "seconds": round(report.seconds, 2),
        "units per minute": round(report.units_per_minute, 1),
        "video seconds per second": round(report.video_s_per_s, 2),
        "peak memory of a worker, MiB": round(report.peak_rss_bytes / 2**20),
    }
    if report.taken_over:
        metadata["taken over from the lake"] = report.taken_over
    for what in ("decoded by", "mapped on"):
        if found := Counter(n[what] for n in report.notes.values() if what in n):
            metadata[what] = "; ".join(f"{name} ({n} clips)" for name, n in found.items())
    if report.slow:
        metadata[READ_SLOWLY] = "\n".join(list(report.slow.values())[:LISTED_FAILURES])
    if report.moved_files:
        metadata["moved files"] = files_table(report.moved_files, "was at", "is at")
    if report.gone_files:
        metadata["files that are gone"] = files_table(report.gone_files, "file", "why")
    if report.failures:
        records = [
            dg.TableRecord({"unit": f.unit_id, "state": f.state, "reason": f.reason[:300]})
            for f in report.failures[:LISTED_FAILURES]
        ]
        metadata["failed units"] = dg.MetadataValue.table(records)
    return metadata


def files_table(files: Mapping[str, str], name: str, value: str) -> dg.TableMetadataValue:
    rows = [dg.TableRecord({name: n, value: v}) for n, v in [*files.items()][:LISTED_VIDEOS]]
    schema = dg.TableSchema([dg.TableColumn(name, "string"), dg.TableColumn(value, "string")])
    return dg.MetadataValue.table(rows, schema=schema)


def degraded_metadata(report: StageReport, spec: StageSpec, real: StageSpec) -> dict[str, Any]:
    """What a person must know of a stage that went on without a GPU."""
    return {
        "degraded": f"made by {spec.backend} in place of {real.backend}: {spec.provisional}",
        "waiting for a GPU": report.waiting,
        "what brings the real result": f"{report.waiting} units of shard {spec.shard} are pending "
        "in the ledger: materialize this partition again when a GPU is free (`ego status` lists "
        "them; nightly_retry_schedule and `ego retry` do it, too)",
    }


def raw_videos_table(lake: Lake, shard: str) -> dg.TableMetadataValue:
    """Where the videos of a shard lie, and why some were rejected; those come first."""
    columns = ["uri", "video_id", "duration_s", "accepted", "reject_reason", "reject_detail"]
    rows = lake.read("video_manifest", shard, columns=columns).to_pylist()
    names = ("file", "video", "seconds", "rejected")
    records = [
        dg.TableRecord(
            {
                "file": r["uri"],
                "video": r["video_id"] or "",
                "seconds": "" if r["duration_s"] is None else f"{r['duration_s']:.1f}",
                "rejected": ""
                if r["accepted"]
                else f"{r['reject_reason']}: {r['reject_detail'] or ''}"[:300],
            }
        )
        for r in sorted(rows, key=lambda r: (r["accepted"], r["uri"]))
    ]
    schema = dg.TableSchema([dg.TableColumn(name, "string") for name in names])
    return dg.MetadataValue.table(records[:LISTED_VIDEOS], schema=schema)


def table_schema(table: str) -> dg.TableSchema:
    """The table's columns for the UI, from the contract."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=c.name,
                type=str(c.type),
                description=f"{c.description} [{c.unit}]" if c.unit else c.description,
                constraints=dg.TableColumnConstraints(nullable=c.nullable),
            )
            for c in TABLES[table].columns()
        ]
    )


def asset_spec(
    table: str, stage: Stage, group: str, deps: Sequence[str] | None = None
) -> dg.AssetSpec:
    """The asset of a table, described by the contract. A clip stage depends on its inputs,
    and follows them."""
    follows = deps is None
    if deps is None:
        deps = ["clips", *stage.inputs]
    return dg.AssetSpec(
        table,
        deps=list(deps),
        description=(TABLES[table].__doc__ or "").strip(),
        group_name=group,
        kinds={"python", "parquet"},
        code_version=plan.code_version(stage.task, stage.operator),
        metadata={
            "dagster/column_schema": table_schema(table),
            "dagster/column_lineage": column_lineage(table),
        },
        partitions_def=shards_partitions,
        automation_condition=FOLLOWS if follows else None,
        skippable=False,
    )


@dataclass(frozen=True)
class Needs:
    """What a step takes of a machine, as op tags that executors read.

    degrades: it has something to do without the GPU, too, if it may not wait for one.
    """

    gpus: float = 0
    gpu_memory_gb: float = 0
    cpus: int = 1
    degrades: bool = False

    def tags(self) -> dict[str, str]:
        return {
            **({"ego/degrades": "true"} if self.degrades else {}),
            GPUS_TAG: f"{self.gpus:g}",
            "ego/gpu_memory_gb": f"{self.gpu_memory_gb:g}",
            "ego/cpus": str(self.cpus),
        }
