"""Jobs: the whole graph over a shard, and the entry of new videos into the graph."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from ego_assets.partitions import SHARDS, shards_partitions
from ego_assets.stages.shards import find_files, register_files
from resources.compute import Compute
from resources.storage import Storage
from resources.video import RawLake

whole_graph_job = dg.define_asset_job(
    "whole_graph",
    selection=dg.AssetSelection.all(),
    partitions_def=shards_partitions,
    description="Every table of a shard, from the raw videos to the robot mappings.",
)


class RegisterConfig(dg.Config):
    """Which files enter the graph."""

    paths: list[str] = Field(
        default=[], description="files or folders; empty: the folders of the raw lake"
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
    given = [Path(p).expanduser() for p in config.paths] or raw_lake.paths()
    new = register_files(lake, find_files(given), min_shards=compute.worker_count())
    context.instance.add_dynamic_partitions(SHARDS, lake.shards())
    context.log.info(f"{len(new)} new shards: {', '.join(new) or 'nothing new'}")
    context.add_output_metadata({"new shards": len(new), "keys": new})


@dg.job(description="Find new raw videos and add their shards as partitions.")
def register_videos() -> None:
    register_raw_files()


JOBS: list[Any] = [whole_graph_job, register_videos]
