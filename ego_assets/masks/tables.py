"""Tables of detections and masks: columns, types, units, frames and ranges."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ego_assets.rows import (
    TIER,
    FrameRow,
    QualityTier,
    Score,
    Side,
)
from resources.lake.table import (
    Bool,
    Box,
    Bytes,
    Int32,
    Joints2D,
    Joints3D,
    MayBeAbsent,
    Plausible,
    Text,
    Unit,
)


class Detection(FrameRow):
    """One row per box per frame: what was seen, before tracking."""

    table: ClassVar[str] = "detections"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index", "detection_index")

    detection_index: Int32 = Field(ge=0, description="within the frame")
    label: Text = Field(description="hand, object, or a class of the backend's vocabulary")
    side: Side | None = Field(description="for hands, from the wearer's view")
    score: Score = Field(description="confidence of the backend")
    box: Box = Field(description="bounding box")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description=TIER)


class MaskRow(FrameRow):
    """Columns shared by the two mask tables."""

    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index", "track_id")

    track_id: Text = Field(description="{take_id}-{h|o}{n:03d}: stable through the take")
    label: Text = Field(description="hand, object, or a class of the backend's vocabulary")
    score: Score = Field(description="confidence of the backend")
    box: Box = Field(description="bounding box of the mask")
    area_px: Annotated[Int32, Unit("pixels")] = Field(ge=1, description="pixels in the mask")
    height_px: Annotated[Int32, Plausible(64, 8192)] = Field(
        ge=1, description="height of the mask picture (RLE size)"
    )
    width_px: Annotated[Int32, Plausible(64, 8192)] = Field(
        ge=1, description="width of the mask picture (RLE size)"
    )
    rle: Bytes = Field(description="COCO compressed RLE counts, column-major")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description=TIER)


class ObjectMask(MaskRow):
    """One row per object per frame."""

    table: ClassVar[str] = "object_masks"


class HandMask(MaskRow):
    """One row per hand per frame."""

    table: ClassVar[str] = "hand_masks"

    side: Side = Field(description="from the wearer's view")
    is_wearer: Bool = Field(description="the wearer's own hand, as far as evidence goes")
    keypoints_px: (
        Annotated[Joints2D, Unit("pixels"), Plausible(-4096.0, 12288.0), MayBeAbsent()] | None
    ) = Field(
        default=None,
        description="21 joints as hand_poses orders them, where the backend sees joints",
    )
    keypoints_hand_m: (
        Annotated[Joints3D, Unit("metres"), Plausible(-0.5, 0.5), MayBeAbsent()] | None
    ) = Field(
        default=None,
        description="the same joints about the middle of the hand, along the axes of the picture: "
        "x right, y down, z away",
    )
    presence: Annotated[Score, MayBeAbsent()] | None = Field(
        default=None, description="how sure the backend is that the keypoints are a hand's"
    )
    side_score: Annotated[Score, MayBeAbsent()] | None = Field(
        default=None, description="share of the track's votes that are for this side"
    )
