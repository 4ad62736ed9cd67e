"""Jobs: the whole graph over a shard, and the entry of new videos into the graph."""

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
    new = register_files(lake, found.files, min_shards=compute.worker_count())
    context.instance.add_dynamic_partitions(SHARDS, lake.shards())
    context.log.info(f"{len(new)} new shards: {', '.join(new) or 'nothing new'}")
    context.add_output_metadata(
        {
            "files": len(found.files),
            "new shards": len(new),
            "keys": new,
            "refused": dg.MetadataValue.json(found.refused),
        }
    )


@dg.job(description="Find new raw videos and add their shards as partitions.")
def register_videos() -> None:
    register_raw_files()


JOBS: list[Any] = [whole_graph_job, register_videos]
