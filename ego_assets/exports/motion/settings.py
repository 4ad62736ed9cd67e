"""Settings of formats that say where things are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ego_assets.exports.settings import FacesSettings, WhoseFootage


class PlacedContent(WhoseFootage, FacesSettings):
    """Which episodes are exported."""

    split: Literal["train", "validation", "test", "all"] = Field(
        default="train", description="episodes of this split"
    )


class MotionContent(PlacedContent):
    """Which episodes are exported, and whether objects are."""

    objects: bool = Field(
        default=True, description="Valid poses of objects, where they are in metres."
    )
