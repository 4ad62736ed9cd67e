"""Tables of object poses and movements: columns, types, units, frames and ranges."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from ego_assets.rows import (
    TIER,
    ClipRow,
    FrameRow,
    Pixels,
    QualityTier,
    ScaleKind,
    Score,
    Seconds,
    Side,
)
from resources.lake.table import (
    Bool,
    Float32,
    Int32,
    MayBeAbsent,
    OneOf,
    Plausible,
    Quaternion,
    Text,
    Unit,
    Vec3,
)

ObjectReason = Literal[
    "the frame does not decode",
    "mask too small",
    "no model of its shape",
    "no feature in view",
    "few known features in view",
    "features fit no rigid pose",
    "few features agree",
    "behind the camera",
    "jumps",
    "no depth at the mask",
    "not looked for again yet",
    "not rigid",
    "mesh and mask do not overlap",
]
"""Why an object has no pose in a frame."""
REASONS: tuple[str, ...] = get_args(ObjectReason)


class ObjectPose(FrameRow):
    """One row per object per frame: its rigid pose in the camera and in the world."""

    table: ClassVar[str] = "object_poses"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index", "track_id")

    track_id: Text = Field(description="the object mask's track")
    is_valid: Bool = Field(description="false: the pose is null")
    invalid_reason: Annotated[Text, OneOf(REASONS)] | None = Field(description="why not valid")
    confidence: Annotated[Score, MayBeAbsent()] | None = Field(
        default=None,
        description="of a valid row: how likely it is that its turn since object_frame is right, "
        "by a curve fitted to rendered samples (docs/accuracy.md); null: not judged",
    )
    camera_from_object_m: Annotated[Vec3, Unit("units of scale_kind")] | None = Field(
        description="translation of the object frame in the camera"
    )
    camera_from_object_xyzw: Quaternion | None = Field(description="rotation in the camera")
    world_from_object_m: Annotated[Vec3, Unit("units of scale_kind")] | None = Field(
        description="translation in the world of scene_reconstruction"
    )
    world_from_object_xyzw: Quaternion | None = Field(description="rotation in the world")
    world_id: Text | None = Field(description="world frame, as in scene_reconstruction")
    object_frame: Text = Field(
        description="what fixes the object frame: `mesh`, or `first_sight:{frame_index}` where "
        "its axes are the camera's at that frame and its origin the centre of its points"
    )
    mesh_uri: Text | None = Field(description="mesh, where the backend has one")
    scale_kind: ScaleKind = Field(description="metric: translations are metres")
    inliers: Int32 | None = Field(ge=0, description="features that support the pose")
    reprojection_error_px: Annotated[Pixels, Plausible(0.0, 10.0)] | None = Field(
        ge=0, description="RMS over the inliers"
    )
    score: Score = Field(description="confidence of the backend")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description=TIER)


class ObjectMovement(ClipRow):
    """One row per interval of a track in which its state does not change."""

    table: ClassVar[str] = "object_movements"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "track_id", "start_frame")

    track_id: Text = Field(description="the object mask's track")
    start_frame: Int32 = Field(ge=0, description="first frame of the interval")
    end_frame: Int32 = Field(ge=1, description="one past the last frame")
    start_pts_s: Seconds = Field(description="start of the interval")
    end_pts_s: Seconds = Field(description="end of the interval")
    state: Literal["still", "moving", "held"] = Field(
        description="held: moves with, or is touched by, a hand; moving: moves untouched"
    )
    displacement: Annotated[Float32, Unit("units of scale_kind")] | None = Field(
        ge=0, description="distance between the first and the last position in the world"
    )
    path_length: Annotated[Float32, Unit("units of scale_kind")] | None = Field(
        ge=0, description="length of the smoothed path in the world"
    )
    mean_speed: Annotated[Float32, Unit("units of scale_kind per second")] | None = Field(
        ge=0, description="path length over time"
    )
    displacement_px: Pixels = Field(
        ge=0, description="in the picture, camera motion taken out: there when 3D is not"
    )
    scale_kind: ScaleKind = Field(description="metric: lengths are metres")
    touching_side: Side | None = Field(description="the hand that touches for most of the time")
    touching_track_id: Text | None = Field(description="its hand track")
    touch_share: Score = Field(description="share of the interval's frames with contact")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description=TIER)
