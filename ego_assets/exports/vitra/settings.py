"""Settings of an export in the layout of VITRA."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ego_assets.exports.settings import VideoSettings


class VitraSettings(VideoSettings):
    """How pictures are encoded, and what the data set is called."""

    dataset: str = Field(
        default="ego",
        pattern=r"^[A-Za-z0-9]{1,32}$",
        description="Name of the data set, with which the names of annotations begin.",
    )

    def encoded_under(self) -> dict[str, Any]:
        """What the files of an episode depend on."""
        found = self.model_dump(exclude=self.runtime_fields())
        return found | {"preset": self.speed, "crf": self.quality}
