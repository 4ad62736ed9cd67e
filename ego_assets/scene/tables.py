"""Tables of cameras: columns, types, units, frames and ranges."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from ego_assets.rows import (
    TIER,
    FrameRow,
    IntrinsicsSource,
    Pixels,
    QualityTier,
    ScaleKind,
    Score,
)
from resources.lake.table import (
    ArraysKey,
    Bool,
    Float32,
    Floats,
    Int32,
    MayBeAbsent,
    OneOf,
    Plausible,
    Quaternion,
    Text,
    Unit,
    Vec3,
)

CameraReason = Literal[
    "the frame does not decode",
    "too few frames",
    "too little texture",
    "no parallax",
    "no rigid scene",
    "lens not determined",
    "mapping took too long",
    "map fits too few frames",
    "other features disagree",
    "few mapped points in view",
    "few mapped points agree",
    "mapped points in one part of the picture",
    "jumps",
    "camera moved from its place",
]
"""Why a frame has no camera."""
REASONS: tuple[str, ...] = get_args(CameraReason)


class SceneReconstruction(FrameRow):
    """One row per frame: the camera. The points lie in the file that `points_uri` names."""

    table: ClassVar[str] = "scene_reconstruction"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index")

    world_id: Text = Field(
        description="clip whose reconstruction fixes the world frame: poses compare only within"
    )
    is_valid: Bool = Field(description="false: the frame is not registered, the pose is null")
    invalid_reason: Annotated[Text, OneOf(REASONS)] | None = Field(
        description="why the frame or clip is not registered"
    )
    confidence: Annotated[Score, MayBeAbsent()] | None = Field(
        default=None,
        description="of a valid row: how likely it is that the pose is right, by a curve fitted to "
        "rendered rooms (docs/accuracy.md says which errors count as right); null: not judged",
    )
    world_from_camera_m: Annotated[Vec3, Unit("world units")] | None = Field(
        description="camera centre in the world"
    )
    world_from_camera_xyzw: Quaternion | None = Field(description="camera rotation in the world")
    motion_kind: Literal["static", "moving", "unknown"] = Field(
        default="unknown",
        description="static: the background stays in place, so the pose does; unknown: no pose",
    )
    registration: Literal["keyframe", "pnp", "static"] | None = Field(
        description="how it was registered"
    )
    inliers: Int32 | None = Field(
        ge=0, description="points that support the pose; static: points that stay in place"
    )
    inlier_share: Score | None = Field(description="inliers over matches")
    witness_share: Annotated[Score, MayBeAbsent()] | None = Field(
        default=None,
        description="of features that took no part in the map, those that agree with the pose, "
        "over the most that any rigid scene explains; null: too few, or the camera is static",
    )
    reprojection_error_px: Annotated[Pixels, Plausible(0.0, 10.0)] | None = Field(
        ge=0, description="RMS over the inliers"
    )
    scale_kind: ScaleKind = Field(
        description="metric: world units are metres; so are those of a world whose camera never "
        "moves, since nothing in it has a length; metric_hands: they are as exact as the size of "
        "the hands that were seen, and the surfaces beside them"
    )
    scale_spread: Annotated[Float32, Unit("relative"), MayBeAbsent()] | None = Field(
        ge=0,
        description="of a metric scale: robust deviation of what each point or hand says (log)",
    )
    scale_samples: Annotated[Int32, MayBeAbsent()] | None = Field(
        ge=1,
        description="of a metric scale: points or hands that were asked, once for the world",
    )
    camera_model: Text = Field(description="PINHOLE, OPENCV or OPENCV_FISHEYE")
    fx_px: Annotated[Pixels, Plausible(50.0, 20000.0)] = Field(description="focal length, x")
    fy_px: Annotated[Pixels, Plausible(50.0, 20000.0)] = Field(description="focal length, y")
    cx_px: Pixels = Field(description="principal point, x")
    cy_px: Pixels = Field(description="principal point, y")
    distortion: Annotated[Floats, MayBeAbsent()] = Field(
        description="k1 k2 p1 p2, or k1 k2 k3 k4 for fisheye"
    )
    intrinsics_source: IntrinsicsSource = Field(
        description="where the intrinsics come from; self_calibrated: found with the cameras of a "
        "video that has no calibration"
    )
    focal_std_px: Annotated[Pixels, MayBeAbsent()] | None = Field(
        default=None,
        ge=0,
        description="of a self-calibrated lens: standard deviation of the focal length (jackknife "
        "over points, and 2 % for what they have in common)",
    )
    points_uri: Annotated[Text, ArraysKey()] | None = Field(
        description="npz of the clip's points, relative to the lake"
    )
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description=TIER)
