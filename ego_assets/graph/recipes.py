"""What a run would make each table with, now, if nobody says otherwise: the order of the graph,
what was chosen for a shard, else the default settings of the launchpad forms and the backends of
the deployment.

Here: what staleness is judged by. Not here: the judging (`ego_assets.upkeep.staleness`).
"""

from __future__ import annotations

from ego_assets.engine import plan
from ego_assets.engine.choices import Choice, Choices, Part
from ego_assets.graph.backends import Backends
from ego_assets.graph.spec import RunConfig, Stage, parts_of
from ego_assets.hands import assets as hands
from ego_assets.masks import assets as segmentation
from ego_assets.objects import assets as objects
from ego_assets.robots import assets as robots
from ego_assets.scene import assets as scene
from ego_assets.videos import assets as manifest
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


class Recipes:
    """What a run would make the tables of a lake with that says nothing itself."""

    def __init__(self, storage: Storage, backends: Backends) -> None:
        """Raises WeightsError, UnknownBackendError for the defaults."""
        self._storage = storage
        self._backends = backends
        self._choices = Choices(storage.lake())
        self._made: dict[str, list[Part]] = {}
        self.default = [self._parts(op, []) for op in STAGES]

    def of(self, shard: str) -> list[list[Part]]:
        """Of each stage, in the order of the graph, its parts. Raises ChoiceError."""
        return [
            self._parts(op, self._choices.of(stage.carried_stage, shard))
            for op, (stage, _) in STAGES.items()
        ]

    def _parts(self, op: str, choices: list[Choice]) -> list[Part]:
        stage, form = STAGES[op]
        key = plan.digest(op, [vars(c) for c in choices])
        if key not in self._made:
            backends = self._backends if stage.operator else None
            self._made[key] = parts_of(stage, form, self._storage, backends, choices)
        return self._made[key]
