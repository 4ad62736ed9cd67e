"""Settings of scene reconstruction, a class per stage or backend."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ego_assets.quality.settings import ProbeSettings, Share
from ego_assets.settings import RUNTIME, CompileMode, Settings


class ReconstructSettings(Settings):
    """scene_reconstruction."""

    mapper: Literal["incremental", "global"] = Field(
        default="incremental", description="COLMAP's incremental mapper, or GLOMAP"
    )
    work_side_px: int = Field(
        default=640, ge=64, le=4096, description="longer side of the pictures that are tracked"
    )
    max_tracks: int = Field(default=500, ge=50, le=5000, description="points tracked at a time")
    mask_margin_px: int = Field(
        default=8, ge=0, le=100, description="hands and objects are grown by this much, work px"
    )
    max_keyframes: int = Field(default=40, ge=4, le=200, description="pictures in the map")
    keyframe_motion: float = Field(
        default=0.05, gt=0, lt=1, description="median motion between keyframes over the diagonal"
    )
    min_keyframes: int = Field(default=4, ge=2, le=50, description="fewer: no reconstruction")
    min_calibration_keyframes: int = Field(
        default=8, ge=3, description="fewer: a guessed focal length is kept as it is"
    )
    min_texture_tracks: int = Field(
        default=40, ge=8, description="fewer points tracked in the median frame: too little texture"
    )
    min_parallax_px: float = Field(
        default=1.5, ge=0, description="median motion, work px, that no pure rotation explains"
    )
    max_still_share: float = Field(
        default=0.25, gt=0, le=1, description="more points always in place: the camera is still"
    )
    min_static_share: float = Field(
        default=0.4,
        gt=0,
        le=1,
        description="points in place in the median frame that make a camera a static one",
    )
    min_triangulation_angle_deg: float = Field(
        default=1.0, ge=0, le=30, description="smaller median angle of the points: no parallax"
    )
    min_inliers: int = Field(default=12, ge=6, description="points that a frame's pose needs")
    min_inlier_share: float = Field(
        default=0.5, ge=0, le=1, description="inliers over matches that a frame's pose needs"
    )
    min_inlier_cells: int = Field(
        default=4,
        ge=1,
        le=16,
        description="of 16 parts of the picture: in how many inliers lie",
    )
    min_registered_share: float = Field(
        default=0.3, ge=0, le=1, description="a map that fewer of the clip's frames fit is dropped"
    )
    min_witness_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="features that agree with a pose, over the most that any rigid motion explains",
    )
    max_reprojection_error_px: float = Field(
        default=2.5, gt=0, description="a point further off, in work px, is an outlier"
    )
    max_mapping_s: int = Field(default=120, ge=1, description="the mapper stops after this time")
    carry_s: float = Field(
        default=3.0, ge=0, le=30, description="end of a clip handed to the next one of the take"
    )
    min_scale_hands: int = Field(
        default=20, ge=1, description="hands in frames that a scale from hands needs"
    )
    max_hand_scale_spread: float = Field(
        default=0.4, gt=0, description="robust deviation of the hands' scales: wider is no scale"
    )
    seed: int = Field(default=0, ge=0, description="of every random choice")


class DepthScaleSettings(ReconstructSettings):
    """scene_reconstruction in metres, by a network that sees depth."""

    checkpoint: str = Field(description="folder of the network, below that of all weights")
    depth_frames: int = Field(
        default=8, ge=1, le=100, description="pictures of a take that the network looks at"
    )
    min_scale_samples: int = Field(
        default=50, ge=1, description="mapped points in those pictures that a scale needs"
    )
    max_scale_spread: float = Field(
        default=0.4, gt=0, description="robust deviation of the points' scales: wider is no scale"
    )
    frames_per_batch: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="pictures looked at at once; empty: what was measured for this device, else 4",
        json_schema_extra=RUNTIME,
    )
    compile: CompileMode = Field(
        default=False,
        description="compile the network (torch.compile): false, true, or a mode with CUDA graphs, "
        "reduce-overhead or max-autotune",
        json_schema_extra=RUNTIME,
    )


class DepthProSettings(DepthScaleSettings):
    """scene_reconstruction in metres, by DepthPro."""

    checkpoint: str = Field(
        default="DepthPro-hf", description="folder of the network, below that of all weights"
    )


class DepthAnythingSettings(DepthScaleSettings):
    """scene_reconstruction in metres, by a metric Depth Anything V2."""

    checkpoint: str = Field(
        default="Depth-Anything-V2-Metric-Indoor-Small-hf",
        description="folder of the network, below that of all weights",
    )


class CameraProbeSettings(ProbeSettings):
    """Thresholds of the probes of cameras."""

    min_placed_hand_share: Share = Field(
        default=0.5, ge=0, le=1, description="wearer's hands of a clip with a place in metres"
    )
    max_lost_hand_clip_share: Share = Field(default=0.5, ge=0, le=1, description="clips with fewer")

    min_frozen_s: float = Field(
        default=0.5, gt=0, description="a pose that stays the same for as long is frozen"
    )
    max_change_grey_levels: float = Field(
        default=4.0, ge=0, description="median change of the picture while the pose is frozen"
    )
    max_turn_deg_per_s: float = Field(
        default=700.0, gt=0, description="heads turn at 600 degrees a second at most"
    )
    max_camera_step: float = Field(
        default=0.2, gt=0, description="way between two frames over the extent of the clip's path"
    )
    max_camera_jitter: float = Field(
        default=0.05, gt=0, description="RMS against a smoothed path over the path's extent"
    )
    min_camera_jitter_m: float = Field(
        default=0.01, ge=0, description="less counts as nothing where world units are metres"
    )
    min_registered_share: Share = Field(
        default=0.5, ge=0, le=1, description="frames of a clip with a pose"
    )
    max_unregistered_clip_share: Share = Field(
        default=0.3, ge=0, le=1, description="clips with fewer: some footage has no parallax"
    )
    min_inlier_share: Share = Field(
        default=0.5, ge=0, le=1, description="median of a clip: points that support the pose"
    )
    max_scale_ratio: float = Field(
        default=1.15, gt=1, description="scale of a clip over that of the next, larger over smaller"
    )
    max_camera_seam_deg: float = Field(default=2.0, ge=0, description="degrees, mean of a seam")
