"""Settings that several formats share: which episodes, which of their numbers, how videos are
encoded. Light, so that commands can show them as options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ego_assets.consent import GROUPED, Consents, Licenses, Names, are_among
from ego_assets.reviews.settings import ReviewSettings
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
UNDISTORTED = (
    "pictures as a pinhole camera of at most 100 degrees sees them, and what is in pixels with "
    "them; videos without a lens in their calibration stay as they are"
)
WORST = {"h264": 51, "av1": 63}
"""The largest crf."""


class WhoseFootage(ReviewSettings):
    """Episodes of whose footage, by what files beside the videos say. Several values have commas
    between them; what nothing is said of is not among them."""

    person: Names = Field(default="", description="episodes of these wearers; empty: of all")
    site: Names = Field(default="", description="episodes from these sites; empty: from all")
    consent: Consents = Field(
        default="", description="episodes with these consents; empty: with all that episodes have"
    )
    license: Licenses = Field(
        default="", description="episodes under these licenses (SPDX); empty: under all"
    )

    @property
    def wanted(self) -> dict[str, Any]:
        """{column: values} of what is asked for."""
        return {name: getattr(self, name) for name in GROUPED if getattr(self, name)}

    @property
    def words(self) -> str:
        """What is asked for, behind the name of a split in a sentence."""
        return "".join(f" with {name} {values}" for name, values in self.wanted.items())

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of `episodes` is among what is asked for."""
        return are_among(row, self.wanted)


class FacesSettings(Settings):
    """Whether pictures show faces."""

    faces: Literal["keep", "blur"] = Field(
        default="keep",
        description="keep: as recorded; blur: mosaics over all faces that are found, which needs "
        "the weights of `ego weights fetch faces`",
    )


class NumbersSettings(WhoseFootage):
    """Which episodes are exported, and which numbers of them."""

    split: Literal["train", "validation", "test", "all"] = Field(
        default="train", description="episodes of this split"
    )
    hand: Literal["human", "robot", "both"] = Field(
        default="human",
        description="state and action: wrists and fingertips; wrists and the joints of a robot "
        "hand; or wrists, fingertips and joints",
    )
    robot: str = Field(
        default="", description="which robot's joints; may be left out if the lake has one only"
    )
    method: str = Field(
        default="",
        description="joints of which retargeting method (vector, position, dexpilot); may be left "
        "out if the robot has been mapped by one only",
    )
    frame: Literal["camera", "world"] = Field(
        default="camera",
        description="frame of the positions; world: only episodes whose cameras are known in "
        "metres in every frame",
    )
    objects: int = Field(
        default=0,
        ge=0,
        le=16,
        description="poses of so many objects as observation.environment_state, those first that "
        "have one in most frames; objects_known says where",
    )


class ContentSettings(NumbersSettings, FacesSettings):
    """Which episodes are exported, which numbers of them, and at which rate."""

    fps: int | None = Field(
        default=None,
        ge=1,
        le=240,
        description="frames a second; empty: the whole number that most seconds of footage have",
    )
    undistorted: bool = Field(default=False, description=UNDISTORTED)


class VideoSettings(Settings):
    """How pictures are encoded."""

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
        default=4,
        ge=0,
        le=64,
        description="Threads of the encoder. The bytes depend on it, and on no CPU; 0: as many as "
        "the encoder takes for the CPUs that it may use.",
        json_schema_extra=RUNTIME,
    )
    max_side_px: int = Field(
        default=640,
        ge=16,
        le=8192,
        description="Longer side of the pictures, which are never enlarged.",
    )

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

    @property
    def speed(self) -> str:
        return self.preset or PRESETS[self.codec]

    @property
    def quality(self) -> int:
        return QUALITIES[self.codec] if self.crf is None else self.crf
