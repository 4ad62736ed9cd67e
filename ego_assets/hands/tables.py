"""Tables of hand poses: columns, types, units, frames and ranges."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ego_assets.rows import (
    TIER,
    FrameRow,
    QualityTier,
    Score,
    Side,
)
from resources.lake.table import (
    Arrow,
    Bool,
    Box,
    Joints2D,
    Joints3D,
    MayBeAbsent,
    OneOf,
    Plausible,
    Quaternion,
    Text,
    Unit,
    Vec3,
    fixed,
)

REASONS = (
    "presence low",
    "side unsure",
    "truncated",
    "too small",
    "not a plausible hand",
    "bends backward",
    "does not fit in space",
    "jumps",
    "out of reach",
    "not measured",
    "beside its mask",
)
"""Why the joints of a row are not to be trusted."""


class HandPose(FrameRow):
    """One row per hand per frame: 21 joints in MANO order."""

    table: ClassVar[str] = "hand_poses"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index", "track_id")

    track_id: Text = Field(description="the hand mask's track")
    side: Side = Field(description="from the wearer's view")
    is_valid: Bool = Field(description="false: the joints are not to be trusted")
    is_wearer: Annotated[Bool, MayBeAbsent()] | None = Field(
        default=None, description="the wearer's own hand, as hand_masks has it"
    )
    invalid_reason: Annotated[Text, OneOf(REASONS)] | None = Field(description="why not valid")
    confidence: Annotated[Score, MayBeAbsent()] | None = Field(
        default=None, description="how likely it is that box and side are right"
    )
    joints_origin: Annotated[Literal["measured", "smoothed", "filled"], MayBeAbsent()] | None = (
        Field(
            default=None,
            description="measured: in this frame; smoothed: with the frames around; filled: from "
            "the frames around, because nothing was measured in this one",
        )
    )
    measured_px: (
        Annotated[Joints2D, Unit("pixels"), Plausible(-4096.0, 12288.0), MayBeAbsent()] | None
    ) = Field(default=None, description="what was measured, before joints_px was smoothed")
    joints_px: Annotated[Joints2D, Unit("pixels"), Plausible(-4096.0, 12288.0)] = Field(
        description="wrist, then 4 per finger from palm to tip: thumb, index, middle, ring, little"
    )
    joints_camera_m: Annotated[Joints3D, Unit("metres, camera frame"), Plausible(-3.0, 3.0)] = (
        Field(description="the same joints in 3D")
    )
    camera_from_hand_m: Annotated[Vec3, Unit("metres"), Plausible(-3.0, 3.0)] = Field(
        description="translation of camera_from_hand: the wrist"
    )
    camera_from_hand_xyzw: Quaternion = Field(
        description="rotation of camera_from_hand: x from wrist to middle knuckle, "
        "z out of the back of the hand"
    )
    mano_pose: (
        Annotated[list[float], Arrow(fixed(48)), Unit("radians, axis-angle"), MayBeAbsent()] | None
    ) = Field(description="global orientation and 15 joints, where the backend has them")
    mano_betas: Annotated[list[float], Arrow(fixed(10)), MayBeAbsent()] | None = Field(
        description="shape coefficients, where the backend has them"
    )
    box: Box = Field(description="bounding box of the hand")
    score: Score = Field(description="confidence of the backend")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description=TIER)
