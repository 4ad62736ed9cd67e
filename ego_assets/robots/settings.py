"""Settings of retargeting, a class per stage or backend."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ego_assets.quality.settings import ProbeSettings, Share
from ego_assets.settings import Settings


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
    hand_scale: float = Field(
        default=1.0,
        gt=0.1,
        lt=10,
        description="fingertip targets over the human hand brought to the robot's length",
    )
    low_pass_alpha: float = Field(
        default=0.8, gt=0, le=1, description="share of the new frame in the joints; 1: no filter"
    )
    regularisation: float = Field(
        default=3e-4, ge=0, le=1, description="pull to the frame before, loss a squared radian"
    )
    max_evaluations: int = Field(
        default=100, ge=5, le=10000, description="the solver stops after as many evaluations"
    )
    carry_s: float = Field(
        default=3.0, ge=0, le=30, description="end of a clip whose states go to the next one"
    )


class RobotProbeSettings(ProbeSettings):
    """Thresholds of the probes of robot hands."""

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
