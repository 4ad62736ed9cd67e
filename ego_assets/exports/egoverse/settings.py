"""Settings of an export in the layout of EgoVerse."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ego_assets.exports.motion.settings import PlacedContent
from ego_assets.settings import Settings


class EgoVerseContent(PlacedContent):
    """Which episodes are exported, and at which rate."""

    fps: Literal["30", "60"] = Field(
        default="30", description="Frames a second; EgoVerse takes no others."
    )


class EgoVerseSettings(Settings):
    """How pictures are coded."""

    max_side_px: int = Field(
        default=640,
        ge=16,
        le=8192,
        description="Longer side of the pictures, which are never enlarged.",
    )
    jpeg_quality: int = Field(default=85, ge=1, le=100, description="Of the pictures.")
