"""Jobs: the whole graph over a shard, a group of it, what is unfinished or stale in it; the entry
of new videos, the upkeep of the lake, the release of what is in quarantine. Not here: when they run
(`sensors`)."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import Field

from dagster_project.data_sets.assets import DATA_SETS
from ego_assets.catalog import GROUPS, STAGES_OF_A_SHARD, TABLES, tables_of_items
from ego_assets.graph.metadata import text_table
from ego_assets.graph.partitions import SHARDS, shards_partitions
from ego_assets.intake.moves import recognize
from ego_assets.intake.shards import find_files, register_files
from ego_assets.quality.baselines import accept
from ego_assets.upkeep import audit
from ego_assets.upkeep.leftovers import compact_leftovers, sweep
from ego_assets.upkeep.recovery.rebuild import ready
from ego_assets.upkeep.reports.gather import DAY_S, write_report
from resources.compute import Compute
from resources.raw_lake import RawLake
from resources.storage import Storage
from sensors.report_events import events_between, shown

OF_THE_LAKE = tables_of_items("lake")
OF_A_SHARD = dg.AssetSelection.all() - dg.AssetSelection.assets(*OF_THE_LAKE, *DATA_SETS)
"""What has a partition for each shard: all but what is made of the whole lake at once."""

whole_graph_job = dg.define_asset_job(
    "whole_graph",
    selection=OF_A_SHARD,
    partitions_def=shards_partitions,
    description="Every table of a shard, from the raw videos to the robot mappings.",
)

group_jobs = [
    dg.define_asset_job(
        f"group_{group}",
        selection=dg.AssetSelection.groups(group).materializable() & OF_A_SHARD,
        partitions_def=shards_partitions,
        description=f"The tables of the group {group} of a shard; what they need must be there.",
    )
    for group in GROUPS
]
lake_jobs = [
    dg.define_asset_job(
        "lake_tables",
        selection=dg.AssetSelection.assets(*OF_THE_LAKE),
        description="The tables that are made of the whole lake at once.",
    )
    for _ in OF_THE_LAKE[:1]
]
KEEP_STALE = {"ops": {name: {"config": {"redo_stale": False}} for name in STAGES_OF_A_SHARD}}
retry_unfinished_job = dg.define_asset_job(
    "retry_unfinished",
    selection=OF_A_SHARD,
    partitions_def=shards_partitions,
    config=KEEP_STALE,
    description="Only what failed, was interrupted or released; what is done stays, stale or not.",
)
rederive_stale_job = dg.define_asset_job(
    "rederive_stale",
    selection=OF_A_SHARD,
    partitions_def=shards_partitions,
    tags={"dagster/priority": "-10"},
    description="What another operator version, config or weights would make differently, and what "
    "follows from it. The same as whole_graph, behind all other runs.",
)


class RegisterConfig(dg.Config):
    """Which files enter the graph."""

    paths: list[str] = Field(
        default=[],
        description="files, folders, s3://bucket/prefix; empty: the places of the raw lake",
    )


@dg.op
def register_raw_files(
    context: dg.OpExecutionContext,
    config: RegisterConfig,
    raw_lake: RawLake,
    storage: Storage,
    compute: Compute,
) -> None:
    """Put files that no shard holds into new shards, and make these known to Dagster."""
    lake = storage.lake()
    found = find_files(config.paths or raw_lake.places())
    for uri, why in found.refused.items():
        context.log.warning(f"{uri}: {why}")
    ledger = ready(lake, storage.ledger(), context.log.warning)
    moved = {m.source.uri: m.uri for m in recognize(lake, ledger, found.files).moves}
    for old, now in moved.items():
        context.log.info(f"{old} is at {now} now: the same video")
    new = register_files(lake, found.files, min_shards=compute.worker_count())
    context.instance.add_dynamic_partitions(SHARDS, lake.shards())
    context.log.info(f"{len(new)} new shards: {', '.join(new) or 'nothing new'}")
    context.add_output_metadata(
        {
            "files": len(found.files),
            "new shards": len(new),
            "keys": new,
            "refused": dg.MetadataValue.json(found.refused),
            "moved": dg.MetadataValue.json(moved),
        }
    )


@dg.job(description="Find new raw videos and add their shards as partitions.")
def register_videos() -> None:
    register_raw_files()


@dg.op(out=dg.Out(dg.Nothing))
def compact_and_sweep(context: dg.OpExecutionContext, storage: Storage) -> None:
    """Merge what killed runs left, remove what killed writers left."""
    lake = storage.lake()
    merged = compact_leftovers(lake, ready(lake, storage.ledger(), context.log.warning))
    swept = sweep(lake)
    context.log.info(f"{len(merged)} tables of shards compacted, {swept} half-written files gone")
    context.add_output_metadata({"compacted": dg.MetadataValue.json(merged), "swept": swept})


@dg.op(ins={"start": dg.In(dg.Nothing)})
def verify_lake(context: dg.OpExecutionContext, storage: Storage) -> None:
    """Compare every byte with its checksum, every row with the contract, every clip with the
    ledger. Fails, and so alerts, if anything is wrong; it changes nothing."""
    lake = storage.lake()
    problems = audit.verify(lake, ready(lake, storage.ledger(), context.log.warning))
    table = text_table(
        ("kind", "table", "shard", "detail"),
        [(p.kind, p.table, p.shard, str(p)[:500]) for p in problems[:LISTED]],
    )
    if problems:
        raise dg.Failure(
            f"{len(problems)} problems in the lake, the first: {problems[0]}; "
            "`ego verify --repair` puts bad files aside and requeues their clips",
            metadata={"problems": table},
            allow_retries=False,
        )
    context.add_output_metadata({"problems": 0})


@dg.job(description="Compact what runs left over, sweep, then verify the whole lake.")
def upkeep() -> None:
    verify_lake(start=compact_and_sweep())


class ReleaseConfig(dg.Config):
    """What to release: at least one of the first three, or everything."""

    stage: str = Field(default="", description="of this table only")
    shard: str = Field(default="", description="of this shard only")
    unit: str = Field(default="", description="this clip, video or file; also if it was dropped")
    everything: bool = Field(default=False, description="all that is in quarantine or failed")


@dg.op
def release_units(context: dg.OpExecutionContext, config: ReleaseConfig, storage: Storage) -> None:
    """Let the next run of its shard try again what failed or is in quarantine."""
    if not (config.stage or config.shard or config.unit or config.everything):
        raise dg.Failure("say what: stage, shard, unit, or everything", allow_retries=False)
    ledger = ready(storage.lake(), storage.ledger(), context.log.warning)
    count = ledger.release(
        stage=config.stage or None, shard=config.shard or None, item_id=config.unit or None
    )
    shards = ledger.unfinished_shards()
    context.log.info(f"{count} released; unfinished shards: {', '.join(shards[:LISTED])}")
    context.add_output_metadata({"released": count, "unfinished shards": shards[:LISTED]})


@dg.job(description="Release clips and videos from quarantine; the nightly retry then runs them.")
def release_quarantine() -> None:
    release_units()


reports = dg.AssetSpec(
    "reports",
    description="What happened in a day or a week: throughput, failures, quarantine, drift, "
    "slowest stages. The job write_report makes it.",
    group_name="reports",
    kinds={"markdown"},
)


class AcceptConfig(dg.Config):
    """Whose baseline begins anew."""

    tables: list[str] = Field(default=[], description="of these tables")
    everything: bool = Field(default=False, description="of all tables")


@dg.op
def forget_baselines(
    context: dg.OpExecutionContext, config: AcceptConfig, storage: Storage
) -> None:
    """Say that a shift was meant: what comes from now on is what is normal."""
    unknown = set(config.tables) - set(TABLES)
    if unknown or not (config.tables or config.everything):
        raise dg.Failure(
            f"say which tables ({', '.join(TABLES)}), or everything"
            + (f"; there is no {', '.join(sorted(unknown))}" if unknown else ""),
            allow_retries=False,
        )
    begun = accept(storage.lake(), config.tables or list(TABLES))
    context.log.info(f"the baselines begin anew: {', '.join(begun) or 'there was none'}")
    context.add_output_metadata({"baselines that begin anew": begun})


@dg.job(description="Accept a drift that was meant: the probes' baselines begin anew.")
def accept_drift() -> None:
    forget_baselines()


class ReportConfig(dg.Config):
    """Of which time."""

    days: int = Field(default=1, ge=1, le=366, description="so many days before its end")
    until: str = Field(default="", description="its end, ISO 8601, UTC if not said; empty: now")

    def end(self) -> datetime:
        """Raises ValueError."""
        if not self.until:
            return datetime.now(UTC)
        given = datetime.fromisoformat(self.until)
        return given if given.tzinfo else given.replace(tzinfo=UTC)


@dg.op
def gather_report(context: dg.OpExecutionContext, config: ReportConfig, storage: Storage) -> None:
    """Write the report into the lake, and show it at the asset `reports`."""
    try:
        until = config.end()
    except ValueError as error:
        raise dg.Failure(f"until: {error}", allow_retries=False) from error
    lake = storage.lake()
    since = until.timestamp() - config.days * DAY_S
    events = events_between(context.instance, since, until.timestamp())
    ledger = ready(lake, storage.ledger(), context.log.warning)
    written = write_report(lake, ledger, events, until, config.days)
    context.log_event(shown(lake, written))


@dg.job(name="write_report", description="The report of the last day, or of so many days.")
def write_report_job() -> None:
    gather_report()


LISTED = 50
JOBS: list[Any] = [
    whole_graph_job,
    *group_jobs,
    *lake_jobs,
    retry_unfinished_job,
    rederive_stale_job,
    register_videos,
    upkeep,
    release_quarantine,
    accept_drift,
    write_report_job,
]
