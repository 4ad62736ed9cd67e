"""Settings of an export to COCO."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ego_assets.exports.settings import UNDISTORTED, FacesSettings, WhoseFootage
from ego_assets.settings import Settings


class CocoContent(WhoseFootage, FacesSettings):
    """Which pictures are exported."""

    split: Literal["train", "validation", "test", "all"] = Field(
        default="train", description="pictures of episodes of this split"
    )
    every: int = Field(
        default=30, ge=1, le=100_000, description="every so many-th frame of an episode is taken"
    )
    objects: bool = Field(default=True, description="masks of objects, beside those of hands")
    undistorted: bool = Field(default=False, description=UNDISTORTED)


class CocoSettings(Settings):
    """How pictures are coded."""

    jpeg_quality: int = Field(default=95, ge=1, le=100, description="Of the pictures.")
