"""Objects: their 6D poses, and what moves them."""

from collections.abc import Iterator

import dagster as dg

from ego_assets.graph.backends import Backends
from ego_assets.graph.spec import RunConfig, Stage
from ego_assets.graph.stage import Needs, asset_spec, materialize_stage
from ego_assets.objects.settings import MovementSettings, ObjectPoseSettings
from resources.compute import Compute
from resources.storage import Storage

GROUP = "objects"
OBJECT_POSES = Stage(
    "clip",
    ("object_poses",),
    inputs=(
        "object_masks",
        "hand_masks",
        "scene_reconstruction",
    ),
    operator="object_pose_estimator",
)
OBJECT_MOVEMENTS = Stage(
    "clip",
    ("object_movements",),
    inputs=(
        "object_masks",
        "hand_masks",
        "scene_reconstruction",
        "object_poses",
    ),
    operator="movement_estimator",
)


class ObjectPoseConfig(ObjectPoseSettings, RunConfig):
    """Launchpad form of object_poses."""


@dg.multi_asset(
    name="object_poses",
    specs=[asset_spec("object_poses", OBJECT_POSES, GROUP)],
    op_tags=Needs(gpus=1, gpu_memory_gb=16, cpus=1, degrades=True).tags(),
)
def object_poses(
    context: dg.AssetExecutionContext,
    config: ObjectPoseConfig,
    storage: Storage,
    compute: Compute,
    backends: Backends,
) -> Iterator[dg.MaterializeResult]:
    yield from materialize_stage(context, OBJECT_POSES, config, storage, compute, backends)


class MovementConfig(MovementSettings, RunConfig):
    """Launchpad form of object_movements."""


@dg.multi_asset(
    name="object_movements",
    specs=[asset_spec("object_movements", OBJECT_MOVEMENTS, GROUP)],
    op_tags=Needs(cpus=1).tags(),
)
def object_movements(
    context: dg.AssetExecutionContext,
    config: MovementConfig,
    storage: Storage,
    compute: Compute,
    backends: Backends,
) -> Iterator[dg.MaterializeResult]:
    yield from materialize_stage(context, OBJECT_MOVEMENTS, config, storage, compute, backends)
