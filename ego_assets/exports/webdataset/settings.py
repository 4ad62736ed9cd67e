"""Settings of an export to WebDataset."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ego_assets.exports.settings import VideoSettings

ONLY_PACKING = {"shard_mb", "shard_samples", "split"}
_OF_CLIPS = {"codec", "preset", "crf", "keyframe_every"}
_OF_FRAMES = {"every", "jpeg_quality"}


class WebDatasetSettings(VideoSettings):
    """What a sample is, how pictures are coded, and how large shards get."""

    content: Literal["clips", "frames"] = Field(
        default="clips",
        description="A sample is an episode (mp4, json, npz), or a frame of one (jpg, json).",
    )
    every: int = Field(
        default=1, ge=1, le=100_000, description="Of frames: every so many-th becomes a sample."
    )
    jpeg_quality: int = Field(default=90, ge=1, le=100, description="Of frames.")
    shard_mb: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="A shard holds whole episodes up to this size, and at least one.",
    )
    shard_samples: int = Field(
        default=10_000, ge=1, le=10_000_000, description="A shard holds up to so many samples."
    )
    split: str = Field(
        default="train",
        pattern=r"^[a-z][a-z0-9_]{0,31}$",
        description="What all episodes of the folder are for; shards are named after it.",
    )

    def encoded_under(self) -> dict[str, Any]:
        """What the samples of an episode depend on."""
        of_others = _OF_FRAMES if self.content == "clips" else _OF_CLIPS
        found = self.model_dump(exclude=self.runtime_fields() | ONLY_PACKING | of_others)
        if self.content == "clips":
            found |= {"preset": self.speed, "crf": self.quality}
        return found
