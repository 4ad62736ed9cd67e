"""Assets of the videos themselves: the raw lake, what is in it, and its clips."""

from collections.abc import Iterator

import dagster as dg

from ego_assets.graph.partitions import shards_partitions
from ego_assets.graph.spec import RunConfig, Stage
from ego_assets.graph.stage import Needs, asset_spec, materialize_stage
from ego_assets.videos.settings import ClipSettings, ManifestSettings
from resources.compute import Compute
from resources.storage import Storage

GROUP = "videos"

raw_videos = dg.AssetSpec(
    "raw_videos",
    description="The raw lake: the read-only place of the original videos. Nothing writes there.",
    group_name=GROUP,
    kinds={"video"},
    partitions_def=shards_partitions,
)


class ManifestConfig(ManifestSettings, RunConfig):
    """Launchpad form of video_manifest."""


class ClipsConfig(ClipSettings, RunConfig):
    """Launchpad form of clips."""


MANIFEST = Stage("probe", ("video_manifest",))
CLIPS = Stage("split", ("clips",), inputs=("video_manifest",))


@dg.multi_asset(
    name="video_manifest",
    specs=[asset_spec("video_manifest", MANIFEST, GROUP, deps=["raw_videos"])],
    op_tags=Needs(cpus=1).tags(),
)
def video_manifest(
    context: dg.AssetExecutionContext, config: ManifestConfig, storage: Storage, compute: Compute
) -> Iterator[dg.MaterializeResult]:
    yield from materialize_stage(context, MANIFEST, config, storage, compute)


@dg.multi_asset(
    name="clips",
    specs=[asset_spec("clips", CLIPS, GROUP, deps=["video_manifest"])],
    op_tags=Needs(cpus=2).tags(),
)
def clips(
    context: dg.AssetExecutionContext, config: ClipsConfig, storage: Storage, compute: Compute
) -> Iterator[dg.MaterializeResult]:
    yield from materialize_stage(context, CLIPS, config, storage, compute)
