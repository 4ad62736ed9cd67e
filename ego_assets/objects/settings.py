"""Settings of object poses and movements, a class per stage or backend."""

from __future__ import annotations

from pydantic import Field

from ego_assets.quality.settings import ProbeSettings, Share
from ego_assets.settings import Settings


class ObjectPoseSettings(Settings):
    """object_poses."""

    work_side_px: int = Field(
        default=960, ge=64, le=4096, description="longer side of the pictures that are tracked"
    )
    max_reprojection_error_px: float = Field(
        default=1.5, gt=0, le=20, description="a feature further off, in work px, is an outlier"
    )
    min_inlier_share: float = Field(
        default=0.3, gt=0, le=1, description="inliers over known features that a pose needs"
    )


class FoundationPoseSettings(ObjectPoseSettings):
    """object_poses by FoundationPose; those of the baseline are for objects without a mesh."""

    checkpoint: str = Field(
        default="FoundationPose", description="folder of the checkout, below that of all weights"
    )
    python: str = Field(
        default="", description="interpreter of the checkout's environment; empty: this one"
    )
    meshes: str = Field(
        default="object_meshes",
        description="folder of meshes named after labels, below that of all weights",
    )
    mesh_scale: float = Field(
        default=1.0, gt=0, description="metres a unit of the meshes: 0.001 for millimetres"
    )
    depth: str = Field(
        default="", description="metric depth of pictures: package.module:Class of a MetricDepth"
    )
    depth_settings: dict[str, str | int | float | bool] = Field(
        default={}, description="what the source of depth is given"
    )
    register_iterations: int = Field(
        default=5, ge=1, le=100, description="refinements of a pose that is found without another"
    )
    track_iterations: int = Field(
        default=2, ge=1, le=100, description="refinements of the pose of the frame before"
    )
    min_mask_overlap: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="overlap (IoU) of the projected mesh and the mask under which a pose is lost",
    )
    max_gap_s: float = Field(
        default=0.5,
        ge=0,
        le=10,
        description="an object that is unseen for longer is searched for again",
    )
    retry_s: float = Field(
        default=0.5, ge=0, le=60, description="time between tries to find a lost object"
    )
    carry_s: float = Field(
        default=3.0, ge=0, le=30, description="end of a clip whose poses go to the next one"
    )
    load_timeout_s: float = Field(
        default=300.0, gt=0, description="the checkout must have loaded its networks by then"
    )
    answer_timeout_s: float = Field(
        default=60.0, gt=0, description="a frame, or a mesh, must be done by then"
    )


class MovementSettings(Settings):
    """object_movements."""

    touch_share: float = Field(
        default=0.12, gt=0, le=1, description="gap that still is a touch, in sizes of the object"
    )
    min_speed_sizes_per_s: float = Field(
        default=0.35, gt=0, description="slower is still, in sizes of the object a second"
    )
    min_speed_path_share_per_s: float = Field(
        default=0.1, gt=0, description="slower is still, in extents of its path a second"
    )
    min_interval_s: float = Field(
        default=0.25, ge=0, le=10, description="shorter states and touches do not count"
    )


class ObjectProbeSettings(ProbeSettings):
    """Thresholds of the probes of object poses and movements."""

    max_object_step: float = Field(
        default=0.25, gt=0, description="way between two frames over the distance to the camera"
    )
    max_off_mask_sizes: float = Field(
        default=0.25, ge=0, description="from an object's origin to its box, in diagonals of it"
    )
    max_off_mask_share: Share = Field(
        default=0.2, ge=0, le=1, description="frames of a track with the origin further off"
    )
    max_untouched_rise: float = Field(
        default=0.1, gt=0, description="way up while nothing touches, over the distance"
    )
    max_object_seam: float = Field(
        default=0.1, ge=0, description="share of the distance, mean of a seam"
    )
