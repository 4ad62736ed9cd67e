"""Robot hands: joint positions that mimic the human hand."""

from collections.abc import Iterator

import dagster as dg

from ego_assets.graph.backends import Backends
from ego_assets.graph.spec import RunConfig, Stage
from ego_assets.graph.stage import Needs, asset_spec, materialize_stage
from ego_assets.robots.settings import RetargetSettings
from resources.compute import Compute
from resources.storage import Storage

GROUP = "robots"
ROBOT_MAPPINGS = Stage(
    "clip",
    ("robot_mappings",),
    inputs=("hand_poses",),
    operator="retargeter",
)


class RetargetConfig(RetargetSettings, RunConfig):
    """Launchpad form of robot_mappings."""


@dg.multi_asset(
    name="robot_mappings",
    specs=[asset_spec("robot_mappings", ROBOT_MAPPINGS, GROUP)],
    op_tags=Needs(cpus=1).tags(),
)
def robot_mappings(
    context: dg.AssetExecutionContext,
    config: RetargetConfig,
    storage: Storage,
    compute: Compute,
    backends: Backends,
) -> Iterator[dg.MaterializeResult]:
    yield from materialize_stage(context, ROBOT_MAPPINGS, config, storage, compute, backends)
