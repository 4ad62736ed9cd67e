"""Detections and masks: three tables from one pass over the frames."""

from collections.abc import Iterator

import dagster as dg

from ego_assets.graph.backends import Backends
from ego_assets.graph.spec import RunConfig, Stage
from ego_assets.graph.stage import Needs, asset_spec, materialize_stage
from ego_assets.masks.settings import SegmentSettings
from resources.compute import Compute
from resources.storage import Storage

TABLES = ("detections", "object_masks", "hand_masks")
SEGMENTATION = Stage("clip", TABLES, operator="segmenter")


class SegmentConfig(SegmentSettings, RunConfig):
    """Launchpad form of the segmentation."""


@dg.multi_asset(
    name="segmentation",
    specs=[asset_spec(t, SEGMENTATION, "masks") for t in TABLES],
    can_subset=True,
    op_tags=Needs(gpus=1, gpu_memory_gb=16, cpus=2, degrades=True).tags(),
)
def segmentation(
    context: dg.AssetExecutionContext,
    config: SegmentConfig,
    storage: Storage,
    compute: Compute,
    backends: Backends,
) -> Iterator[dg.MaterializeResult]:
    """One decode for hands and objects; a subset of the tables can be made alone."""
    yield from materialize_stage(context, SEGMENTATION, config, storage, compute, backends)
