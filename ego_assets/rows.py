"""Columns and types that the tables of several rooms share, and the conventions of all.

metres, radians, seconds, pixels. Camera frame is OpenCV's (x right, y down,
z forward). Quaternions are xyzw. A pose named `a_from_b` maps points in frame b to frame a.
Boxes are x_min, y_min, x_max, y_max in pixels of the upright, full-size picture. Frames are
addressed by `frame_index` in the video's presentation order and by `pts_s`, seconds since the
first frame. `is_context` marks rows in the leading overlap of a clip: the clip before it in the
take has rows of its own for the same frames, so a reader who wants each frame once drops them.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from ego_assets.consent import Consent
from resources.lake.table import (
    Bool,
    Float32,
    Float64,
    Formerly,
    Int32,
    MayBeAbsent,
    SaidBeside,
    Table,
    Text,
    Unit,
)

Side = Literal["left", "right"]
SIDES: tuple[str, ...] = get_args(Side)


QualityTier = Annotated[
    Literal["baseline", "learned", "reference"], Formerly({"model": "reference"})
]
"""baseline: no trained weights; learned: weights that lie in packages; reference: SAM, HaMeR,
FoundationPose and their like, for whoever has their weights."""
TIER = "baseline: no weights; learned: weights that lie in packages; reference: a large model"


ScaleKind = Literal["metric", "metric_hands", "arbitrary"]


IntrinsicsSource = Literal["calibration_file", "assumed_fov", "self_calibrated"]


Seconds = Annotated[Float64, Unit("seconds")]


Pixels = Annotated[Float32, Unit("pixels")]


Metres = Annotated[Float32, Unit("metres")]


Score = Annotated[Float32, Field(ge=0, le=1)]


PersonSaid = Annotated[
    Text | None,
    MayBeAbsent(),
    SaidBeside(),
    Field(default=None, description="who wears the camera: a pseudonym; null: not said"),
]
ConsentSaid = Annotated[
    Consent | None,
    MayBeAbsent(),
    SaidBeside(),
    Field(
        default=None,
        description="of those who are recorded: granted; research_only; unknown: nobody knows; "
        "refused; withdrawn; null: not said",
    ),
]
LicenseSaid = Annotated[
    Text | None,
    MayBeAbsent(),
    SaidBeside(),
    Field(
        default=None,
        description="an SPDX license expression, such as CC-BY-4.0, or LicenseRef-name for terms "
        "that SPDX does not list; null: not said",
    ),
]
SiteSaid = Annotated[
    Text | None,
    MayBeAbsent(),
    SaidBeside(),
    Field(default=None, description="where it was recorded; null: not said"),
]
DeviceSaid = Annotated[
    Text | None,
    MayBeAbsent(),
    SaidBeside(),
    Field(default=None, description="with which camera; null: not said"),
]
TaskSaid = Annotated[
    Text | None,
    MayBeAbsent(),
    SaidBeside(),
    Field(default=None, description="what is done in it; null: not said"),
]


class VideoRow(Table):
    """Columns of every table."""

    video_id: Text = Field(description="first 16 hex digits of the SHA-256 of the file's bytes")
    shard: Text = Field(description="the Dagster partition, YYYYMMDD-NNNN")


class ClipRow(VideoRow):
    """Columns of every table below the clips."""

    clip_id: Text = Field(description="{video_id}-{index:04d}")


class FrameRow(ClipRow):
    """Columns of every table with a row per frame."""

    frame_index: Int32 = Field(ge=0, description="index in the video's presentation order")
    pts_s: Seconds = Field(description="presentation time since the video's first frame")
    is_context: Bool = Field(description="in the leading overlap of this clip")
