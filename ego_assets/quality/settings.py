"""Thresholds of the quality probes: one model, a field a threshold.

Here: numbers, units and why. Not here: what they are compared with. They change no result, only
what is said of it, so they are no part of a stage's settings (`ego_assets.config`).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Share = float


class ProbeSettings(BaseModel):
    """When a probe speaks up. `docs/probes.md` gives the reasons and the sources."""

    model_config = ConfigDict(extra="forbid")

    tolerated_share: Share = Field(
        default=0.05, ge=0, le=1, description="clips or tracks that may be beyond a threshold"
    )
    # every table
    max_null_share: Share = Field(
        default=0.5, ge=0, le=1, description="rows in which a measured column may be null"
    )
    max_implausible_share: Share = Field(
        default=0.01, ge=0, le=1, description="values of a column outside their plausible range"
    )
    max_unanswered_clip_share: Share = Field(
        default=0.5, ge=0, le=1, description="clips without a row, of those whose input has some"
    )
    # masks
    max_empty_frame_share: Share = Field(
        default=0.95, ge=0, le=1, description="frames of a clip without any mask"
    )
    max_empty_clip_share: Share = Field(
        default=0.5, ge=0, le=1, description="clips with more empty frames than that"
    )
    min_area_share: Share = Field(
        default=0.0001, ge=0, le=1, description="smaller masks are specks, share of the picture"
    )
    max_area_share: Share = Field(
        default=0.5, ge=0, le=1, description="larger masks are background, share of the picture"
    )
    max_odd_area_share: Share = Field(
        default=0.1, ge=0, le=1, description="masks of a track that are specks or background"
    )
    flicker_area_ratio: float = Field(
        default=1.5, gt=1, description="area between neighbouring frames, larger over smaller"
    )
    flicker_box_iou: Share = Field(
        default=0.3, ge=0, le=1, description="boxes of neighbouring frames that overlap less jump"
    )
    flicker_gap_s: float = Field(
        default=0.2, ge=0, description="a track that is away for a shorter time flickers"
    )
    max_flicker_share: Share = Field(
        default=0.1, ge=0, le=1, description="frames of a track that flicker"
    )
    max_tracks_per_thing: float = Field(
        default=4.0, ge=1, description="tracks of a clip over those in its fullest frame"
    )
    max_hand_tracks_at_once: int = Field(
        default=6, ge=1, description="hands in one frame: the wearer's and two other people's"
    )
    max_object_tracks_at_once: int = Field(default=64, ge=1, description="objects in one frame")
    border_sides: int = Field(
        default=3, ge=1, le=4, description="a mask that touches as many sides hugs the border"
    )
    max_hugging_share: Share = Field(
        default=0.3, ge=0, le=1, description="masks of a track that hug the border"
    )
    # hands
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
    # cameras
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
    # objects
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
    # robots
    max_out_of_limits_share: Share = Field(
        default=0.0, ge=0, le=1, description="frames of a track with a joint out of its limits"
    )
    max_fingertip_error_m: float = Field(
        default=0.03, gt=0, description="median of a track: robot fingertip to its target"
    )
    max_joint_speed_rad_per_s: float = Field(
        default=20.0, gt=0, description="faster than a human finger flexes"
    )
    max_fast_share: Share = Field(
        default=0.02, ge=0, le=1, description="frames of a track with a joint that fast"
    )
    max_unsolved_share: Share = Field(
        default=0.02, ge=0, le=1, description="frames of a track in which the solver failed"
    )
    # seams
    max_mask_seam: Share = Field(default=0.4, ge=0, le=1, description="1 - IoU, mean of a seam")
    max_hand_seam_px: float = Field(default=15.0, ge=0, description="pixels, mean of a seam")
    max_camera_seam_deg: float = Field(default=2.0, ge=0, description="degrees, mean of a seam")
    max_object_seam: float = Field(
        default=0.1, ge=0, description="share of the distance, mean of a seam"
    )
    # drift
    min_baseline_shards: int = Field(
        default=5, ge=2, description="good shards before drift is judged"
    )
    baseline_window: int = Field(default=50, ge=2, description="good shards that are remembered")
    min_drift_units: int = Field(
        default=8, ge=2, description="clips (or videos) of a shard below which drift is not judged"
    )
    min_psi: float = Field(
        default=0.25, gt=0, description="population stability index that counts as a shift"
    )
    min_ks: float = Field(
        default=0.25, gt=0, description="Kolmogorov-Smirnov distance that counts as a shift"
    )
    drift_alpha: float = Field(
        default=0.001, gt=0, lt=1, description="chance of a false alarm from sampling alone"
    )
    max_streak_videos: int = Field(
        default=1000, ge=1, description="videos in a row with nothing found"
    )


DEFAULTS = ProbeSettings()
