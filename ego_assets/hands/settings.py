"""Settings of hand poses, a class per stage or backend."""

from __future__ import annotations

from pydantic import Field

from ego_assets.quality.settings import ProbeSettings, Share
from ego_assets.settings import RUNTIME, CompileMode, Settings


class HandPoseSettings(Settings):
    """hand_poses by landmarks."""

    side_px: int = Field(
        default=1920,
        ge=192,
        le=8192,
        description="longer side of the pictures that are looked at where masks bring no joints",
    )
    fill_gap_s: float = Field(
        default=0.2,
        ge=0,
        le=2,
        description="gaps of a track up to this length get rows, which are not valid",
    )
    smoothing_s: float = Field(
        default=0.04,
        ge=0,
        le=1,
        description="standard deviation of the smoothing over time of joints; 0: none",
    )
    depth_smoothing_s: float = Field(
        default=0.15, ge=0, le=1, description="the same of the hand's distance"
    )


class HamerSettings(Settings):
    """hand_poses by HaMeR."""

    checkpoint: str = Field(
        default="hamer", description="folder of the release, below that of all weights"
    )
    crops_per_batch: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="hands looked at at once; empty: what was measured for this device, else 32",
        json_schema_extra=RUNTIME,
    )
    compile: CompileMode = Field(
        default=False,
        description="compile the network (torch.compile): false, true, or a mode with CUDA graphs, "
        "reduce-overhead or max-autotune",
        json_schema_extra=RUNTIME,
    )
    smoothing_s: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="standard deviation of the smoothing over time of rotations, and of the "
        "wrist's place in the picture; 0: none",
    )
    depth_smoothing_s: float = Field(
        default=0.15, ge=0, le=1, description="the same of the wrist's distance"
    )


class HandProbeSettings(ProbeSettings):
    """Thresholds of the probes of hand poses."""

    min_valid_hand_share: Share = Field(
        default=0.5, ge=0, le=1, description="hand masks of a clip that have a valid pose"
    )
    max_invalid_hand_clip_share: Share = Field(
        default=0.3, ge=0, le=1, description="clips with fewer: some show other people's hands"
    )
    joint_limit_slack_deg: float = Field(
        default=20.0, ge=0, description="added to the range of motion of a healthy finger"
    )
    max_beyond_limits_share: Share = Field(
        default=0.1, ge=0, le=1, description="frames of a track with a joint beyond its limits"
    )
    max_bone_variation: Share = Field(
        default=0.08, ge=0, description="standard deviation of a bone over its mean length"
    )
    max_jitter_px: float = Field(
        default=3.0, ge=0, description="RMS against a smoothed path, pixels at 1080p"
    )
    max_side_swaps: float = Field(
        default=0.0, ge=0, description="times in a clip that left becomes right"
    )
    max_mirrored_share: Share = Field(
        default=0.5, ge=0, le=1, description="frames of a track whose fingers bend backward"
    )
    max_crossed_share: Share = Field(
        default=0.5, ge=0, le=1, description="frames of a clip with the left hand on the right"
    )
    min_hand_depth_m: float = Field(default=0.1, ge=0, description="nearer than glasses are")
    max_hand_depth_m: float = Field(default=1.5, gt=0, description="further than arms reach")
    max_odd_depth_share: Share = Field(
        default=0.1, ge=0, le=1, description="frames of a track out of the wearer's reach"
    )
    min_hand_length_m: float = Field(
        default=0.08, ge=0, description="wrist to the tip of the middle finger: a small child's"
    )
    max_hand_length_m: float = Field(default=0.3, gt=0, description="longer than any hand")
    max_odd_size_share: Share = Field(
        default=0.1, ge=0, le=1, description="frames of a track with a hand of another length"
    )
    min_joints_on_mask: Share = Field(
        default=0.3,
        ge=0,
        le=1,
        description="joints of a hand inside its mask, mean of a track; an object may hide half",
    )
    sampled_masks: int = Field(
        default=32, ge=1, description="masks of a track that are decoded, spread over it"
    )
    max_hand_seam_px: float = Field(default=15.0, ge=0, description="pixels, mean of a seam")
