"""The tables of the lake: one model a table, a field a column.

Here: column names, types, units, frames, ranges. Not here: anything that computes a value.

Conventions: metres, radians, seconds, pixels. Camera frame is OpenCV's (x right, y down,
z forward). Quaternions are xyzw. A pose named `a_from_b` maps points in frame b to frame a.
Boxes are x_min, y_min, x_max, y_max in pixels of the upright, full-size picture. Frames are
addressed by `frame_index` in the video's presentation order and by `pts_s`, seconds since the
first frame. `is_context` marks rows in the leading overlap of a clip: the clip before it in the
take has rows of its own for the same frames, so a reader who wants each frame once drops them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ego_assets.schemas.base import (
    Arrow,
    Bool,
    Box,
    Bytes,
    Float32,
    Float64,
    Floats,
    Int32,
    Int64,
    Joints2D,
    Joints3D,
    Quaternion,
    Table,
    Text,
    Texts,
    Unit,
    Vec3,
    fixed,
)

Side = Literal["left", "right"]
QualityTier = Literal["baseline", "model"]
ScaleKind = Literal["metric", "arbitrary"]
IntrinsicsSource = Literal["calibration_file", "assumed_fov", "self_calibrated"]

Seconds = Annotated[Float64, Unit("seconds")]
Pixels = Annotated[Float32, Unit("pixels")]
Metres = Annotated[Float32, Unit("metres")]
Score = Annotated[Float32, Field(ge=0, le=1)]


class VideoRow(Table):
    """Columns of every table."""

    video_id: Text = Field(description="first 16 hex digits of the SHA-256 of the file's bytes")
    shard: Text = Field(description="the Dagster partition, YYYYMMDD-NNNN")


class ClipRow(VideoRow):
    """Columns of every table below the clips."""

    clip_id: Text = Field(description="{video_id}-{index:04d}")


class FrameRow(ClipRow):
    """Columns of every table with a row a frame."""

    frame_index: Int32 = Field(ge=0, description="index in the video's presentation order")
    pts_s: Seconds = Field(description="presentation time since the video's first frame")
    is_context: Bool = Field(description="in the leading overlap of this clip")


class VideoManifest(VideoRow):
    """One row a raw file: what it is and whether it is taken in."""

    table: ClassVar[str] = "video_manifest"
    key: ClassVar[tuple[str, ...]] = ("uri",)

    uri: Text = Field(description="where the raw file lies")
    byte_size: Annotated[Int64, Unit("bytes")] = Field(ge=0, description="size of the file")
    sha256: Text = Field(
        description="of the file's bytes, hex; empty for a rejected file that was not read, whose "
        "video_id is made from its uri"
    )
    accepted: Bool = Field(description="whether the video goes through the graph")
    reject_reason: Text | None = Field(description="why not: a code of RejectReason")
    reject_detail: Text | None = Field(description="the sentence behind the code")
    container: Text | None = Field(description="demuxer name")
    video_codec: Text | None = Field(description="codec of the chosen video stream")
    pixel_format: Text | None = Field(description="pixel format of the chosen video stream")
    width_px: Annotated[Int32, Unit("pixels")] | None = Field(description="upright picture width")
    height_px: Annotated[Int32, Unit("pixels")] | None = Field(description="upright picture height")
    rotation_deg: Annotated[Int32, Unit("degrees")] | None = Field(
        description="clockwise turn applied to make the stored picture upright: 0, 90, 180, 270"
    )
    sample_aspect_ratio: Float32 | None = Field(description="width of a pixel over its height")
    frame_count: Int32 | None = Field(description="frames in the chosen stream")
    average_rate_fps: Annotated[Float32, Unit("frames per second")] | None = Field(
        description="frames over duration"
    )
    is_variable_rate: Bool | None = Field(description="frame intervals differ by more than 10 %")
    duration_s: Seconds | None = Field(description="end of the last frame since the first")
    start_pts_s: Seconds | None = Field(description="container time stamp of the first frame")
    audio_codec: Text | None = Field(description="codec of the chosen audio stream")
    audio_rate_hz: Annotated[Int32, Unit("hertz")] | None = Field(description="sample rate")
    audio_channels: Int32 | None = Field(description="channels of the chosen audio stream")
    camera_model: Text | None = Field(description="PINHOLE, OPENCV or OPENCV_FISHEYE")
    fx_px: Pixels | None = Field(description="focal length, x")
    fy_px: Pixels | None = Field(description="focal length, y")
    cx_px: Pixels | None = Field(description="principal point, x")
    cy_px: Pixels | None = Field(description="principal point, y")
    distortion: Floats | None = Field(description="k1 k2 p1 p2, or k1 k2 k3 k4 for fisheye")
    intrinsics_source: IntrinsicsSource | None = Field(description="where the intrinsics come from")


class Clip(ClipRow):
    """One row a clip: the atomic unit of work."""

    table: ClassVar[str] = "clips"
    key: ClassVar[tuple[str, ...]] = ("clip_id",)

    clip_index: Int32 = Field(ge=0, description="index of the clip in its video")
    take_id: Text = Field(description="{video_id}-t{take index:03d}: clips with no cut between")
    index_in_take: Int32 = Field(ge=0, description="0 for the first clip of the take")
    start_frame: Int32 = Field(ge=0, description="first frame, context included")
    end_frame: Int32 = Field(ge=1, description="one past the last frame")
    start_pts_s: Seconds = Field(description="time of the first frame")
    end_pts_s: Seconds = Field(description="end of the last frame")
    context_frames: Int32 = Field(
        ge=0, description="leading frames shared with the clip before it in the take"
    )
    split_reason: Literal["start", "cut", "length"] = Field(
        description="what made this clip begin here"
    )
    estimated_cost: Float32 = Field(ge=0, description="megapixels to decode: for scheduling")


class Detection(FrameRow):
    """One row a box a frame: what was seen, before tracking."""

    table: ClassVar[str] = "detections"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index", "detection_index")

    detection_index: Int32 = Field(ge=0, description="within the frame")
    label: Text = Field(description="hand, object, or a class of the backend's vocabulary")
    side: Side | None = Field(description="for hands, from the wearer's view")
    score: Score = Field(description="confidence of the backend")
    box: Box = Field(description="bounding box")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description="baseline: weight-free; model: learned")


class MaskRow(FrameRow):
    """Columns shared by the two mask tables."""

    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index", "track_id")

    track_id: Text = Field(description="{take_id}-{h|o}{n:03d}: stable through the take")
    label: Text = Field(description="hand, object, or a class of the backend's vocabulary")
    score: Score = Field(description="confidence of the backend")
    box: Box = Field(description="bounding box of the mask")
    area_px: Annotated[Int32, Unit("pixels")] = Field(ge=1, description="pixels in the mask")
    height_px: Int32 = Field(ge=1, description="height of the mask picture (RLE size)")
    width_px: Int32 = Field(ge=1, description="width of the mask picture (RLE size)")
    rle: Bytes = Field(description="COCO compressed RLE counts, column-major")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description="baseline: weight-free; model: learned")


class ObjectMask(MaskRow):
    """One row an object a frame."""

    table: ClassVar[str] = "object_masks"


class HandMask(MaskRow):
    """One row a hand a frame."""

    table: ClassVar[str] = "hand_masks"

    side: Side = Field(description="from the wearer's view")
    is_wearer: Bool = Field(description="the wearer's own hand, as far as evidence goes")


class HandPose(FrameRow):
    """One row a hand a frame: 21 joints in MANO order."""

    table: ClassVar[str] = "hand_poses"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index", "track_id")

    track_id: Text = Field(description="the hand mask's track")
    side: Side = Field(description="from the wearer's view")
    is_valid: Bool = Field(description="false: the joints are not to be trusted")
    invalid_reason: Text | None = Field(description="why not valid")
    joints_px: Annotated[Joints2D, Unit("pixels")] = Field(
        description="wrist, then 4 a finger from palm to tip: thumb, index, middle, ring, little"
    )
    joints_camera_m: Annotated[Joints3D, Unit("metres, camera frame")] = Field(
        description="the same joints in 3D"
    )
    camera_from_hand_m: Annotated[Vec3, Unit("metres")] = Field(
        description="translation of camera_from_hand: the wrist"
    )
    camera_from_hand_xyzw: Quaternion = Field(
        description="rotation of camera_from_hand: x from wrist to middle knuckle, "
        "z out of the back of the hand"
    )
    mano_pose: Annotated[list[float], Arrow(fixed(48)), Unit("radians, axis-angle")] | None = Field(
        description="global orientation and 15 joints, where the backend has them"
    )
    mano_betas: Annotated[list[float], Arrow(fixed(10))] | None = Field(
        description="shape coefficients, where the backend has them"
    )
    box: Box = Field(description="bounding box of the hand")
    score: Score = Field(description="confidence of the backend")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description="baseline: weight-free; model: learned")


class SceneReconstruction(FrameRow):
    """One row a frame: the camera. The points lie in the file that `points_uri` names."""

    table: ClassVar[str] = "scene_reconstruction"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index")

    world_id: Text = Field(
        description="clip whose reconstruction fixes the world frame: poses compare only within"
    )
    is_valid: Bool = Field(description="false: the frame is not registered, the pose is null")
    invalid_reason: Text | None = Field(description="why the frame or clip is not registered")
    world_from_camera_m: Annotated[Vec3, Unit("world units")] | None = Field(
        description="camera centre in the world"
    )
    world_from_camera_xyzw: Quaternion | None = Field(description="camera rotation in the world")
    registration: Literal["keyframe", "pnp"] | None = Field(description="how it was registered")
    inliers: Int32 | None = Field(ge=0, description="points that support the pose")
    inlier_share: Score | None = Field(description="inliers over matches")
    reprojection_error_px: Pixels | None = Field(ge=0, description="RMS over the inliers")
    scale_kind: ScaleKind = Field(description="metric: world units are metres")
    scale_spread: Annotated[Float32, Unit("relative")] | None = Field(
        ge=0,
        description="of a metric scale: robust deviation of what each point says of it (log)",
    )
    scale_samples: Int32 | None = Field(
        ge=1, description="of a metric scale: points that were asked, once for the whole world"
    )
    camera_model: Text = Field(description="PINHOLE, OPENCV or OPENCV_FISHEYE")
    fx_px: Pixels = Field(description="focal length, x")
    fy_px: Pixels = Field(description="focal length, y")
    cx_px: Pixels = Field(description="principal point, x")
    cy_px: Pixels = Field(description="principal point, y")
    distortion: Floats = Field(description="k1 k2 p1 p2, or k1 k2 k3 k4 for fisheye")
    intrinsics_source: IntrinsicsSource = Field(description="where the intrinsics come from")
    points_uri: Text | None = Field(description="npz of the clip's points, relative to the lake")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description="baseline: weight-free; model: learned")


class ObjectPose(FrameRow):
    """One row an object a frame: its rigid pose in the camera and in the world."""

    table: ClassVar[str] = "object_poses"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index", "track_id")

    track_id: Text = Field(description="the object mask's track")
    is_valid: Bool = Field(description="false: the pose is null")
    invalid_reason: Text | None = Field(description="why not valid")
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
    reprojection_error_px: Pixels | None = Field(ge=0, description="RMS over the inliers")
    score: Score = Field(description="confidence of the backend")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description="baseline: weight-free; model: learned")


class ObjectMovement(ClipRow):
    """One row an interval of a track in which its state does not change."""

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
    quality_tier: QualityTier = Field(description="baseline: weight-free; model: learned")


class RobotMapping(FrameRow):
    """One row a hand a frame a robot: the joint positions that mimic the hand."""

    table: ClassVar[str] = "robot_mappings"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index", "track_id", "robot", "method")

    track_id: Text = Field(description="the hand's track")
    side: Side = Field(description="from the wearer's view")
    robot: Text = Field(description="name of the robot hand")
    method: Literal["vector", "position", "dexpilot"] = Field(description="objective")
    joint_names: Texts = Field(description="order of joint_positions")
    joint_positions: Annotated[Floats, Unit("radians; metres for prismatic joints")] = Field(
        description="the robot's configuration"
    )
    camera_from_wrist_m: Annotated[Vec3, Unit("metres")] = Field(description="wrist position")
    camera_from_wrist_xyzw: Quaternion = Field(
        description="wrist rotation, the hand frame of hand_poses"
    )
    fingertip_names: Texts = Field(description="order of fingertip_error_m")
    fingertip_error_m: Annotated[Floats, Unit("metres")] = Field(
        description="distance of each robot fingertip to its scaled target"
    )
    mean_fingertip_error_m: Metres = Field(ge=0, description="mean of fingertip_error_m")
    solver_status: Literal["converged", "stopped", "failed"] = Field(
        description="failed: the positions are those of the frame before"
    )
    within_limits: Bool = Field(description="every joint inside the URDF's limits")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description="baseline: weight-free; model: learned")


TABLES: dict[str, type[Table]] = {
    model.table: model
    for model in (
        VideoManifest,
        Clip,
        Detection,
        ObjectMask,
        HandMask,
        HandPose,
        SceneReconstruction,
        ObjectPose,
        ObjectMovement,
        RobotMapping,
    )
}
"""Every table by name, in the order of the graph."""
