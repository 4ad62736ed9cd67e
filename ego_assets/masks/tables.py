"""Tables of detections and masks: columns, types, units, frames and ranges."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ego_assets.rows import (
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
    quality_tier: QualityTier = Field(description="baseline: weight-free; model: learned")


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
    quality_tier: QualityTier = Field(description="baseline: weight-free; model: learned")


class ObjectMask(MaskRow):
    """One row per object per frame."""

    table: ClassVar[str] = "object_masks"


class HandMask(MaskRow):
    """One row per hand per frame."""

    table: ClassVar[str] = "hand_masks"

    side: Side = Field(description="from the wearer's view")
    is_wearer: Bool = Field(description="the wearer's own hand, as far as evidence goes")
