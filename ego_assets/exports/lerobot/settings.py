"""Settings of an export to LeRobot."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ego_assets.exports.settings import VideoSettings

ONLY_PACKING = {"video_file_mb", "data_file_mb", "robot_type", "split"}


class LeRobotFiles(VideoSettings):
    """How pictures are encoded and how large files get."""

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

    def encoded_under(self) -> dict[str, Any]:
        """What an episode's pictures and rows depend on."""
        found = self.model_dump(exclude=self.runtime_fields() | ONLY_PACKING)
        return found | {"preset": self.speed, "crf": self.quality}


class LeRobotSettings(LeRobotFiles):
    """Settings of a data set: its files, and what it is for."""

    split: str = Field(
        default="train",
        pattern=r"^[a-z][a-z0-9_]*$",
        description="What all episodes of the folder are for.",
    )
