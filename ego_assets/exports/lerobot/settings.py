"""Settings of an export to LeRobot."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ego_assets.settings import RUNTIME, Settings

PRESETS = {"h264": "veryfast", "av1": "10"}
QUALITIES = {"h264": 23, "av1": 35}
ALL_PRESETS = {
    "h264": (
        *("ultrafast", "superfast", "veryfast", "faster", "fast"),
        *("medium", "slow", "slower", "veryslow", "placebo"),
    ),
    "av1": tuple(str(n) for n in range(14)),
}
WORST = {"h264": 51, "av1": 63}
"""The largest crf."""
ONLY_PACKING = {"video_file_mb", "data_file_mb", "robot_type", "split"}


class LeRobotFiles(Settings):
    """How pictures are encoded and how large files get."""

    codec: Literal["h264", "av1"] = Field(
        default="h264",
        description="Codec of the videos. AV1 takes about two thirds of the room, and longer to "
        "encode.",
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
        description="Quality, less is better: at most 51 (x264) or 63 (SVT-AV1). By default 23 "
        "or 35.",
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
        description="Threads of the encoder; 0: it decides itself.",
        json_schema_extra=RUNTIME,
    )
    max_side_px: int = Field(
        default=640,
        ge=16,
        le=8192,
        description="Longer side of the pictures, which are never enlarged.",
    )
    fit: Literal["refuse", "letterbox"] = Field(
        default="refuse",
        description="What becomes of episodes whose pictures have another shape than those that "
        "are there, or than the first: they are left out, or get black bars.",
    )
    video_file_mb: int = Field(
        default=200, ge=1, le=4096, description="A video file holds episodes up to this size."
    )
    data_file_mb: int = Field(
        default=100, ge=1, le=4096, description="A file of rows holds episodes up to this size."
    )
    robot_type: str | None = Field(default=None, description="Name of the robot, or of the hand.")

    @field_validator("preset")
    @classmethod
    def _check_preset(cls, preset: str | None, info: ValidationInfo) -> str | None:
        known = ALL_PRESETS.get(info.data.get("codec", ""), ())
        if preset is not None and known and preset not in known:
            raise ValueError(
                f"{preset!r} is no preset of {info.data['codec']}: give one of {', '.join(known)}"
            )
        return preset

    @field_validator("crf")
    @classmethod
    def _check_crf(cls, crf: int | None, info: ValidationInfo) -> int | None:
        worst = WORST.get(info.data.get("codec", ""))
        if crf is not None and worst is not None and crf > worst:
            raise ValueError(f"{crf} is worse than {info.data['codec']} knows: at most {worst}")
        return crf

    def encoded_under(self) -> dict[str, Any]:
        """What an episode's pictures and rows depend on."""
        found = self.model_dump(exclude=self.runtime_fields() | ONLY_PACKING)
        return found | {"preset": self.speed, "crf": self.quality}

    @property
    def speed(self) -> str:
        return self.preset or PRESETS[self.codec]

    @property
    def quality(self) -> int:
        return QUALITIES[self.codec] if self.crf is None else self.crf


class LeRobotSettings(LeRobotFiles):
    """Settings of a data set: its files, and what it is for."""

    split: str = Field(
        default="train",
        pattern=r"^[a-z][a-z0-9_]*$",
        description="What all episodes of the folder are for.",
    )
