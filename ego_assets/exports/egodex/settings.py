"""Settings of an export in the layout of EgoDex."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ego_assets.exports.settings import FacesSettings, VideoSettings, WhoseFootage

FPS = 30


class EgoDexContent(WhoseFootage, FacesSettings):
    """Which episodes are exported."""

    split: Literal["train", "validation", "test", "all"] = Field(
        default="train", description="episodes of this split"
    )


class EgoDexSettings(VideoSettings):
    """How pictures are encoded."""

    max_side_px: int = Field(
        default=1920,
        ge=16,
        le=8192,
        description="Longer side of the pictures, which are never enlarged.",
    )

    def encoded_under(self) -> dict[str, Any]:
        """What the files of an episode depend on."""
        found = self.model_dump(exclude=self.runtime_fields())
        return found | {"preset": self.speed, "crf": self.quality}
