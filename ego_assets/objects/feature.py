"""Objects: their 6D poses, and what moves them."""

from ego_assets.feature import (
    OF_A_CLIP,
    OUR_LICENCE,
    BackendEntry,
    Feature,
    Needs,
    Stage,
    TableInfo,
)
from ego_assets.objects.settings import (
    FoundationPoseSettings,
    MovementSettings,
    ObjectPoseSettings,
    ObjectProbeSettings,
)
from ego_assets.objects.tables import ObjectMovement, ObjectPose

OBJECTS = Feature(
    "objects",
    tables=(
        TableInfo(
            ObjectPose,
            preview="ego_assets.objects.preview:axes_sheet",
            drift="ego_assets.objects.drift:OBJECT_POSES",
            lineage=OF_A_CLIP
            | dict.fromkeys(("track_id", "frame_index", "pts_s", "is_context"), "object_masks")
            | {"world_id": "scene_reconstruction"},
            seam="ego_assets.objects.seam:OBJECTS",
            rows_of="object_masks",
        ),
        TableInfo(
            ObjectMovement,
            preview="ego_assets.objects.preview:timeline_plot",
            drift="ego_assets.objects.drift:OBJECT_MOVEMENTS",
            lineage=OF_A_CLIP | {"track_id": "object_masks"},
            rows_of="object_masks",
        ),
    ),
    stages=(
        Stage(
            "object_poses",
            operator="object_pose_estimator",
            item="clip",
            tables=("object_poses",),
            settings=ObjectPoseSettings,
            inputs=("object_masks", "hand_masks", "scene_reconstruction"),
            needs=Needs(gpus=1, gpu_memory_gb=16, cpus=1, degrades=True),
        ),
        Stage(
            "object_movements",
            operator="movement_estimator",
            item="clip",
            tables=("object_movements",),
            settings=MovementSettings,
            inputs=("object_masks", "hand_masks", "scene_reconstruction", "object_poses"),
        ),
    ),
    backends=(
        BackendEntry(
            "object_pose_estimator",
            "baseline",
            "ego_assets.objects.baseline.poses:BaselineObjectPoseEstimator",
            ObjectPoseSettings,
            OUR_LICENCE,
        ),
        BackendEntry(
            "object_pose_estimator",
            "foundationpose",
            "ego_assets.objects.foundationpose.estimator:FoundationPoseEstimator",
            FoundationPoseSettings,
            "NVIDIA Source Code License, non-commercial (FoundationPose, code and weights)",
            weights=(
                "{checkpoint}/estimater.py",
                "{checkpoint}/weights/2023-10-28-18-33-37/config.yml",
                "{checkpoint}/weights/2023-10-28-18-33-37/model_best.pth",
                "{checkpoint}/weights/2024-01-11-20-02-45/config.yml",
                "{checkpoint}/weights/2024-01-11-20-02-45/model_best.pth",
                "{checkpoint}/*.py",
                "{checkpoint}/learning/**/*.py",
                "{meshes}/**/*",
            ),
            source="https://github.com/NVlabs/FoundationPose (its readme: weights, environment)",
            gpu_memory_gb=10,
        ),
        BackendEntry(
            "movement_estimator",
            "baseline",
            "ego_assets.objects.baseline.movements:BaselineMovementEstimator",
            MovementSettings,
            OUR_LICENCE,
        ),
    ),
    probes="ego_assets.objects.probes:PROBES",
    probe_settings=ObjectProbeSettings,
)
