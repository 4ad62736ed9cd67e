"""Settings of an export to MCAP."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ego_assets.exports.motion.settings import MotionContent
from ego_assets.exports.settings import UNDISTORTED, VideoSettings

_OF_VIDEO = {"codec", "preset", "crf", "keyframe_every"}


class McapContent(MotionContent):
    """Which episodes are exported, and what of them."""

    robot_joints: bool = Field(
        default=False, description="Joints of a robot hand, too; episodes without are left out."
    )
    robot: str = Field(
        default="", description="which robot's joints; may be left out if the lake has one only"
    )
    method: str = Field(
        default="",
        description="joints of which retargeting method; may be left out if the robot has been "
        "mapped by one only",
    )

    undistorted: bool = Field(default=False, description=UNDISTORTED)


class McapSettings(VideoSettings):
    """How pictures are coded."""

    pictures: Literal["video", "jpeg"] = Field(
        default="video",
        description="foxglove.CompressedVideo, or foxglove.CompressedImage: a JPEG a frame.",
    )
    jpeg_quality: int = Field(default=90, ge=1, le=100, description="Of JPEGs.")

    def encoded_under(self) -> dict[str, Any]:
        """What the file of an episode depends on."""
        if self.pictures == "jpeg":
            return self.model_dump(exclude=self.runtime_fields() | _OF_VIDEO)
        found = self.model_dump(exclude=self.runtime_fields() | {"jpeg_quality"})
        return found | {"preset": self.speed, "crf": self.quality}
