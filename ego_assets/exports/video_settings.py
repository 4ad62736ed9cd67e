"""Settings of videos that are exported: every format that has videos shares them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ego_assets.settings import RUNTIME, Settings

PRESETS = {"h264": "veryfast", "av1": "10"}
QUALITIES = {"h264": 23, "av1": 35}


class VideoSettings(Settings):
    """How pictures are encoded."""

    codec: Literal["h264", "av1"] = Field(
        default="h264",
        description="Of the videos. AV1 takes about two thirds of the room and longer.",
    )
    preset: str | None = Field(
        default=None,
        description="Speed of the encoder: ultrafast to veryslow (x264), 0 to 13 (SVT-AV1, 13 is "
        "the fastest). By default veryfast or 10.",
    )
    crf: int | None = Field(
        default=None,
        ge=0,
        le=63,
        description="Quality, less is better. By default 23 (x264) or 35 (SVT-AV1).",
    )
    keyframe_every: int = Field(
        default=10,
        ge=1,
        le=600,
        description="Frames from one key frame to the next: a reader that wants one frame decodes "
        "as many at most.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Of the encoder; 0: as many as it likes.",
        json_schema_extra=RUNTIME,
    )
    max_side_px: int = Field(
        default=640,
        ge=16,
        le=8192,
        description="Longer side of the pictures, which are never enlarged.",
    )

    @property
    def speed(self) -> str:
        return self.preset or PRESETS[self.codec]

    @property
    def quality(self) -> int:
        return QUALITIES[self.codec] if self.crf is None else self.crf
