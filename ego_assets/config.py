"""Settings of every stage, with units in the names. Plain pydantic: Dagster wraps them.

Each class is one stage's launchpad form; each field says what it does. Changing a value changes
the stage's fingerprint, so clips done under other settings are done again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class ManifestSettings(Settings):
    """video_manifest: what is taken in."""

    max_duration_s: float = Field(default=3600.0, gt=0, description="longer videos are rejected")
    min_duration_s: float = Field(default=0.0, ge=0, description="shorter videos are rejected")
    max_pixels: int = Field(
        default=8192 * 4320, gt=0, description="larger pictures are rejected (decoder bombs)"
    )
    assumed_horizontal_fov_deg: float = Field(
        default=70.0,
        gt=10,
        lt=170,
        description="field of view along the longer side of a video without a calibration file",
    )


class ClipSettings(Settings):
    """clips: cuts, and the split of long scenes into takes of clips."""

    detector: Literal["content", "adaptive"] = Field(
        default="content", description="PySceneDetect's detector"
    )
    threshold: float | None = Field(
        default=None, description="detector's threshold; its own default if empty"
    )
    min_scene_s: float = Field(default=0.5, ge=0, description="shorter scenes join the next")
    max_clip_s: float = Field(default=20.0, gt=1, description="longer scenes are split")
    overlap_s: float = Field(default=1.5, ge=0, description="context shared by neighbours")


class SegmentSettings(Settings):
    """detections, object_masks, hand_masks."""


class HandPoseSettings(Settings):
    """hand_poses."""


class ReconstructSettings(Settings):
    """scene_reconstruction."""


class ObjectPoseSettings(Settings):
    """object_poses."""


class MovementSettings(Settings):
    """object_movements."""


class RetargetSettings(Settings):
    """robot_mappings."""

    robots: list[str] = Field(
        default=["ego_hand"], min_length=1, description="robot hands, by name"
    )
    method: Literal["vector", "position", "dexpilot"] = Field(
        default="vector", description="objective of the solver"
    )
    robots_dir: str | None = Field(
        default=None, description="folder of further robot hands, one folder with a URDF each"
    )
