"""What a run would make each table with, now, if nobody says otherwise: the order of the graph, the
default settings of its launchpad forms, and the backends of the deployment.

Here: what staleness is judged by. Not here: the judging (`ego_assets.stages.staleness`).
"""

from __future__ import annotations

from ego_assets.assets import hands, manifest, objects, robots, scene, segmentation
from ego_assets.assets.stage import RunConfig, Stage, stage_spec
from ego_assets.stages.plan import StageSpec
from resources.models import Backends
from resources.storage import Storage

GROUPS = ("videos", "masks", "hands", "scene", "objects", "robots")
STAGES: dict[str, tuple[Stage, type[RunConfig]]] = {
    "video_manifest": (manifest.MANIFEST, manifest.ManifestConfig),
    "clips": (manifest.CLIPS, manifest.ClipsConfig),
    "segmentation": (segmentation.SEGMENTATION, segmentation.SegmentConfig),
    "hand_poses": (hands.HAND_POSES, hands.HandPoseConfig),
    "scene_reconstruction": (scene.RECONSTRUCTION, scene.ReconstructConfig),
    "object_poses": (objects.OBJECT_POSES, objects.ObjectPoseConfig),
    "object_movements": (objects.OBJECT_MOVEMENTS, objects.MovementConfig),
    "robot_mappings": (robots.ROBOT_MAPPINGS, robots.RetargetConfig),
}
"""Op → its stage and launchpad form; those that others are made from come first."""


def current_specs(storage: Storage, backends: Backends) -> list[StageSpec]:
    """The stages as a run would do them now. Raises WeightsError, UnknownBackendError."""
    return [
        stage_spec(stage, form(), storage, backends if stage.operator else None)
        for stage, form in STAGES.values()
    ]
