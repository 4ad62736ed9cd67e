"""The scene: a camera pose for every frame, and points."""

from collections.abc import Iterator

import dagster as dg

from ego_assets.graph.backends import Backends
from ego_assets.graph.spec import RunConfig, Stage
from ego_assets.graph.stage import Needs, asset_spec, materialize_stage
from ego_assets.scene.settings import ReconstructSettings
from resources.compute import Compute
from resources.storage import Storage

GROUP = "scene"
RECONSTRUCTION = Stage(
    "clip",
    ("scene_reconstruction",),
    inputs=(
        "object_masks",
        "hand_masks",
    ),
    operator="reconstructor",
)


class ReconstructConfig(ReconstructSettings, RunConfig):
    """Launchpad form of scene_reconstruction."""


@dg.multi_asset(
    name="scene_reconstruction",
    specs=[asset_spec("scene_reconstruction", RECONSTRUCTION, GROUP)],
    op_tags=Needs(gpus=0.25, gpu_memory_gb=8, cpus=2).tags(),
)
def scene_reconstruction(
    context: dg.AssetExecutionContext,
    config: ReconstructConfig,
    storage: Storage,
    compute: Compute,
    backends: Backends,
) -> Iterator[dg.MaterializeResult]:
    yield from materialize_stage(context, RECONSTRUCTION, config, storage, compute, backends)
