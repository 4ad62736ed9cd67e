"""What every asset does around its stage: settings in, one stage over the shard, metadata out.

Here: the bridge from Dagster to `ego_assets.engine`. Not here: any computing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ego_assets.engine import provisional as without_gpu
from ego_assets.engine.choices import Choice, Choices, Part, share_out
from ego_assets.engine.concurrency import Concurrency, concurrency
from ego_assets.engine.outcome import StageReport, merged
from ego_assets.engine.plan import ShardInputs, StageSpec, not_made
from ego_assets.engine.runner import run_stage
from ego_assets.environment import check_environment
from ego_assets.feature import LAKE, Stage
from ego_assets.graph.backends import Backends
from ego_assets.graph.lineage import column_lineage
from ego_assets.graph.metadata import (
    clips_table,
    degraded_metadata,
    raw_videos_table,
    report_metadata,
)
from ego_assets.graph.partitions import (
    NO_EVENT,
    NOT_MADE,
    fail_for_lost,
    is_last_step,
    is_range,
    lost_shards,
    version_tags,
)
from ego_assets.graph.previews import preview_metadata
from ego_assets.graph.spec import RunConfig, as_launched, choice_of, parts_of, stage_spec
from ego_assets.models import registry
from ego_assets.upkeep.recovery.rebuild import ready
from ego_assets.upkeep.staleness import data_versions
from resources.compute import Compute
from resources.devices.gpu import list_gpus
from resources.environment import leased_devices, why_without_gpu
from resources.ledger.sources import Sources
from resources.processes import machine
from resources.storage import Storage

BACKENDS = "backends"
"""Name of the resource."""
GPUS_TAG = "ego/gpus"


@dataclass(frozen=True)
class StageRun:
    """A stage as one run does it, shard by shard. choice: what the run says of it itself."""

    context: dg.AssetExecutionContext
    stage: Stage
    config: RunConfig
    storage: Storage
    compute: Compute
    backends: Backends
    choice: Choice | None

    def parts(self, shard: str) -> list[Part]:
        """The stage as the takes of a shard are to be made: as this run says, else as was chosen
        for them before, else by default. Raises ChoiceError."""
        stage, only = self.stage, tuple(self.config.only)
        lake, key = self.storage.lake(), stage.operator
        choices = Choices(lake)
        known = choices.of(key, shard) if self.choice is None else []
        if not known:
            spec = stage_spec(stage, self.config, self.storage, self.backends)
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            made = replace(self.choice or Choice(), run_id=self.context.run_id, made_at=now)
            if self.choice is not None and self.config.redo_stale:
                choices.keep(key, shard, made)
            return [Part(spec, only, self.config.settings(), made)]
        parts = parts_of(stage, self.storage, self.backends, known)
        found = []
        for part, groups in share_out(parts, ShardInputs(lake, self.storage.ledger(), shard)):
            mine = [g for g in groups if not only or g.has_any(only)]
            items = tuple(u.item_id for g in mine for u in g.items)
            if items:
                found.append(replace(part, items=items))
        return found or [replace(parts[0], items=only)]

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
            items=part.items,
            profile=part.choice.name,
        )


def materialize_stage(
    context: dg.AssetExecutionContext,
    stage: Stage,
    config: RunConfig,
    storage: Storage,
    compute: Compute,
    backends: Backends,
) -> Iterator[dg.MaterializeResult[None]]:
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
    config = as_launched(said, stage, config)
    choice = choice_of_run(said, context.job_def.resource_defs, stage, config, backends)
    run = StageRun(context, stage, config, storage, compute, backends, choice)
    if is_range(context.run.tags):
        yield from _materialize_range(run)
        return
    (shard,) = [LAKE] if stage.item == "lake" else context.partition_keys
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
    backends: Backends,
) -> Choice | None:
    """What a run says itself of a stage, as of `choice_of`."""
    schema = resource_defs[BACKENDS].config_schema
    deployed: Any = schema.default_value if schema and schema.default_provided else {}
    given: Any = run_config.get("resources") or {}
    named = (given.get(BACKENDS) or {}).get("config") or {}
    return choice_of(named, stage, config, backends, deployed)


def needs_device(operator: str, backend: str, compute: Compute) -> bool:
    """Whether a stage by that backend has any use of a device, to compute or to decode."""
    return compute.hardware_decoding or registry.uses_device(operator, backend)


def _materialize_range(run: StageRun) -> Iterator[dg.MaterializeResult[None]]:
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
    profiles = [
        f"{p.choice.name}: {p.choice} (run {p.choice.run_id})"
        for p in parts
        if not p.choice.is_default
    ]
    if profiles:
        context.log.info(f"shard {shard} has a profile: {'; '.join(profiles)}")
    done = [run_part(run, part, shard) for part in parts]
    report = merged([report for report, _ in done])
    metadata = report_metadata(report)
    if profiles:
        metadata["profile"] = "; ".join(profiles)
    for _, more in done:
        metadata |= more
    if run.stage.item == "file":
        metadata["raw videos"] = raw_videos_table(lake, shard)
    if "clips" in run.stage.tables:
        metadata["clips of this shard"] = clips_table(lake, shard)
    for why in report.outdone:
        context.log.warning(f"made again: {why}")
    for old, new in report.moved_files.items():
        context.log.info(f"{old} is at {new} now: the same video, nothing is computed again")
    for why in report.gone_files.values():
        context.log.warning(why)
    for failure in report.failures:
        context.log.warning(f"{failure.item_id} {failure.state}: {failure.reason}")
    if report.items and report.failed == report.items:
        raise dg.Failure(
            f"none of the {report.items} work items of shard {shard} could be done; "
            f"the first: {report.failures[0].item_id}: {report.failures[0].reason}",
            metadata=metadata,
            allow_retries=False,
        )
    inputs = ShardInputs(lake, run.storage.ledger(), shard)
    if not report.items and (above := not_made(run.stage.item, inputs)):
        raise dg.Failure(
            f"{above} of shard {shard} has not been made: materialize it first",
            metadata=metadata,
            allow_retries=False,
        )
    made_by = {f"{p.spec.backend} {p.spec.operator_version}": None for p in parts}
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
    context, compute = run.context, run.compute
    lanes, on_device = registry.lanes(spec.operator, spec.backend)
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
    workers, real = chosen.workers, None
    why = why_without_gpu()
    provisional = without_gpu.stand_in(spec, dict(part.form), why) if why and on_device else None
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
    if chosen.why:
        metadata["takes on a device"] = chosen.why
    if real is not None:
        metadata |= degraded_metadata(report, spec, real)
        context.log.warning(f"{metadata['degraded']}. {metadata['what brings the real result']}")
    return report, metadata


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
