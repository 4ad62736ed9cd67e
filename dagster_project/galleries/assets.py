"""The asset `galleries`: a page for each shard with a video of each clip, made when all that it
shows is. Nothing waits for it, and no video that cannot be rendered fails it."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ego_assets.environment import serves_pictures, which_galleries
from ego_assets.galleries.files import GalleryFiles, url_of
from ego_assets.galleries.gallery import GalleryReport, make_gallery
from ego_assets.galleries.troubles import TABLES
from ego_assets.graph.assets import FOLLOWS
from ego_assets.graph.metadata import text_table
from ego_assets.graph.partitions import (
    NO_EVENT,
    fail_for_lost,
    is_last_step,
    is_range,
    lost_shards,
    shards_partitions,
)
from ego_assets.upkeep.recovery.rebuild import ready
from resources.lake import Lake
from resources.ledger import Ledger
from resources.storage import Storage

GROUP = "galleries"


@dg.asset(
    partitions_def=shards_partitions,
    deps=list(TABLES),
    group_name=GROUP,
    kinds={"python", "html"},
    op_tags={
        "ego/gpus": "0",
        "ego/gpu_memory_gb": "0",
        "ego/cpus": "1",
        "dagster/priority": "-10",  # of steps that are ready, it is the last
    },
    automation_condition=FOLLOWS,
    output_required=False,
)
def galleries(
    context: dg.AssetExecutionContext, storage: Storage
) -> Iterator[dg.MaterializeResult[None]]:
    """A page for each shard: a video of each clip with all that was found drawn into it, failing
    clips first. Only clips whose rows changed are rendered again."""
    lake, shards = storage.lake(), context.partition_keys
    ledger = ready(lake, storage.ledger(), context.log.warning)
    if not is_range(context.run.tags):
        yield dg.MaterializeResult(metadata=_make(context, lake, ledger, shards[0]))
        return
    lost = lost_shards(context.instance, context.run, TABLES)
    for shard in shards:
        if shard not in lost:
            try:
                metadata = _make(context, lake, ledger, shard)
            except Exception as error:  # whatever it is, it is of this shard: the others go on
                lost[shard] = f"{type(error).__name__}: {error}"
                context.log.error(f"shard {shard}: {lost[shard]}")
                continue
            event = dg.AssetMaterialization("galleries", partition=shard, metadata=metadata)
            context.log_event(event)
    if is_last_step(context.op_execution_context):
        fail_for_lost(lost, len(shards))
    yield dg.MaterializeResult(metadata={NO_EVENT: True})


def _make(
    context: dg.AssetExecutionContext, lake: Lake, ledger: Ledger, shard: str
) -> dict[str, Any]:
    report = make_gallery(lake, ledger, shard, which_galleries(), context.log.warning)
    return _metadata(lake, shard, report)


def _metadata(lake: Lake, shard: str, report: GalleryReport) -> dict[str, Any]:
    link = {"gallery": dg.MetadataValue.url(url_of(shard))} if serves_pictures() else {}
    metadata: dict[str, Any] = link | {
        "page": dg.MetadataValue.path(GalleryFiles(lake).page(shard)),
        "clips": report.clips,
        "clips with failures": report.failing,
        "rendered now": report.rendered,
        "kept from before": report.kept,
    }
    if report.rendered_s:
        metadata["seconds for a second of video"] = round(report.seconds / report.rendered_s, 2)
    if report.faults:
        metadata["no video"] = text_table(("clip", "why"), list(report.faults.items())[:100])
    return metadata
