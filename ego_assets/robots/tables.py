"""Tables of robot hands: columns, types, units, frames and ranges."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from ego_assets.rows import (
    TIER,
    FrameRow,
    Metres,
    QualityTier,
    Score,
    Side,
)
from resources.lake.table import (
    Bool,
    Floats,
    MayBeAbsent,
    OneOf,
    Plausible,
    Quaternion,
    Text,
    Texts,
    Unit,
    Vec3,
)

RobotReason = Literal["solver failed", "out of limits", "misses the fingertips"]
"""Why a robot's joints are not to be trusted. A hand pose that is not valid has no row."""
REASONS: tuple[str, ...] = get_args(RobotReason)


class RobotMapping(FrameRow):
    """One row per hand, frame and robot: the joint positions that mimic the hand."""

    table: ClassVar[str] = "robot_mappings"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index", "track_id", "robot", "method")

    track_id: Text = Field(description="the hand's track")
    side: Side = Field(description="from the wearer's view")
    is_wearer: Annotated[Bool, MayBeAbsent()] | None = Field(
        default=None, description="the wearer's own hand, as hand_poses has it"
    )
    is_valid: Annotated[Bool, MayBeAbsent()] | None = Field(
        default=None, description="false: the joints are not to be trusted; null: not judged"
    )
    invalid_reason: Annotated[Text, OneOf(REASONS), MayBeAbsent()] | None = Field(
        default=None, description="why not valid"
    )
    confidence: Annotated[Score, MayBeAbsent()] | None = Field(
        default=None,
        description="the confidence of its hand pose, times the share of fingertips that reach "
        "their targets; null: the hand pose has none",
    )
    robot: Text = Field(description="name of the robot hand")
    method: Literal["vector", "position", "dexpilot"] = Field(description="objective")
    joint_names: Texts = Field(description="order of joint_positions")
    joint_positions: Annotated[
        Floats, Unit("radians; metres for prismatic joints"), Plausible(-6.3, 6.3)
    ] = Field(description="the robot's configuration")
    camera_from_wrist_m: Annotated[Vec3, Unit("metres"), Plausible(-3.0, 3.0)] = Field(
        description="wrist position"
    )
    camera_from_wrist_xyzw: Quaternion = Field(
        description="wrist rotation, the hand frame of hand_poses"
    )
    fingertip_names: Texts = Field(description="order of fingertip_error_m")
    fingertip_error_m: Annotated[Floats, Unit("metres")] = Field(
        description="distance of each robot fingertip to its scaled target"
    )
    mean_fingertip_error_m: Annotated[Metres, Plausible(0.0, 0.2)] = Field(
        ge=0, description="mean of fingertip_error_m"
    )
    solver_status: Literal["converged", "stopped", "failed"] = Field(
        description="failed: the positions are those of the frame before"
    )
    within_limits: Bool = Field(description="every joint inside the URDF's limits")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description=TIER)
