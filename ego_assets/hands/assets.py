"""Hand poses: 21 joints a hand, in pixels and in metres."""

from collections.abc import Iterator

import dagster as dg

from ego_assets.graph.backends import Backends
from ego_assets.graph.spec import RunConfig, Stage
from ego_assets.graph.stage import Needs, asset_spec, materialize_stage
from ego_assets.hands.settings import HandPoseSettings
from resources.compute import Compute
from resources.storage import Storage

GROUP = "hands"
HAND_POSES = Stage(
    "clip",
    ("hand_poses",),
    inputs=("hand_masks",),
    operator="hand_estimator",
)


class HandPoseConfig(HandPoseSettings, RunConfig):
    """Launchpad form of hand_poses."""


@dg.multi_asset(
    name="hand_poses",
    specs=[asset_spec("hand_poses", HAND_POSES, GROUP)],
    op_tags=Needs(gpus=0.5, gpu_memory_gb=8, cpus=1, degrades=True).tags(),
)
def hand_poses(
    context: dg.AssetExecutionContext,
    config: HandPoseConfig,
    storage: Storage,
    compute: Compute,
    backends: Backends,
) -> Iterator[dg.MaterializeResult]:
    yield from materialize_stage(context, HAND_POSES, config, storage, compute, backends)
