"""Tables of telemetry and gravity: columns, types, units, frames and ranges."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ego_assets.rows import FrameRow, Metres, Score, Seconds, VideoRow
from resources.lake.table import (
    Float32,
    Float64,
    Int32,
    MayBeAbsent,
    Plausible,
    Text,
    Texts,
    Unit,
    Vec3,
)

Source = Literal["gpmd", "camm", "subtitle", "csv", "mcap"]
SOURCE = (
    "gpmd: GoPro's track; camm: camera motion metadata; subtitle: text of DJI cameras; csv, mcap: "
    "a file beside the video"
)
Degrees = Annotated[Float32, Unit("degrees")]
_Acceleration = Annotated[Vec3, Unit("m/s²"), Plausible(-400.0, 400.0), MayBeAbsent()]
_Turning = Annotated[Vec3, Unit("rad/s"), Plausible(-60.0, 60.0), MayBeAbsent()]


class TelemetrySample(VideoRow):
    """One row per moment at which a sensor of one source measured anything."""

    table: ClassVar[str] = "telemetry"
    key: ClassVar[tuple[str, ...]] = ("video_id", "source", "sample_index")
    item_column: ClassVar[str] = "video_id"

    source: Source = Field(description=SOURCE)
    sample_index: Int32 = Field(ge=0, description="in order of time, of one video and source")
    pts_s: Seconds = Field(
        description="time since the video's first frame, as pts_s of all tables; a little of what "
        "lies before and after the video is kept"
    )
    accel_mps2: _Acceleration | None = Field(
        description="what an accelerometer feels (at rest 9.81 upwards), in the camera frame of "
        "the upright picture; null: not measured at this moment, or the axes are not known"
    )
    gyro_radps: _Turning | None = Field(
        description="how the camera turns, in its own frame, right-handed; null as above"
    )
    sensor_accel_mps2: _Acceleration | None = Field(
        description="the same in the sensor's own axes, where nothing says how it is mounted"
    )
    sensor_gyro_radps: _Turning | None = Field(description="in the sensor's own axes, likewise")
    gps_latitude_deg: Annotated[Float64, Unit("degrees"), MayBeAbsent()] | None = Field(
        ge=-90, le=90, description="WGS 84, north; null: none, no fix, or left out"
    )
    gps_longitude_deg: Annotated[Float64, Unit("degrees"), MayBeAbsent()] | None = Field(
        ge=-180, le=180, description="WGS 84, east"
    )
    gps_altitude_m: Annotated[Metres, MayBeAbsent()] | None = Field(
        description="as the source has it: over the ellipsoid or the sea"
    )
    gps_speed_mps: Annotated[Float32, Unit("m/s"), MayBeAbsent()] | None = Field(
        ge=0, description="over ground"
    )
    gps_accuracy_m: Annotated[Metres, MayBeAbsent()] | None = Field(
        ge=0, description="horizontal, one standard deviation, by the receiver's own account"
    )
    gps_dop: Annotated[Float32, MayBeAbsent()] | None = Field(
        ge=0, description="dilution of precision; over 5 is poor"
    )
    exposure_s: Annotated[Seconds, MayBeAbsent()] | None = Field(
        ge=0, description="how long a picture was exposed"
    )
    iso: Annotated[Float32, MayBeAbsent()] | None = Field(ge=0, description="sensitivity")
    temperature_c: Annotated[Float32, Unit("degrees Celsius"), MayBeAbsent()] | None = Field(
        description="of the sensor"
    )


class TelemetrySource(VideoRow):
    """One row per video and source: what there is, and what of it could not be read."""

    table: ClassVar[str] = "telemetry_sources"
    key: ClassVar[tuple[str, ...]] = ("video_id", "source")
    item_column: ClassVar[str] = "video_id"

    source: Source = Field(description=SOURCE)
    place: Text = Field(description="streams of the video, or the name of the file beside it")
    device: Text | None = Field(description="as it calls itself; null: it does not")
    axes: Literal["camera", "sensor"] = Field(
        description="of its vectors: those of the camera, or of a sensor of which nothing says how "
        "it is mounted"
    )
    sample_count: Int32 = Field(ge=0, description="rows of `telemetry`")
    outside_count: Int32 = Field(
        ge=0, description="samples that lie too far before or after the video, and are left out"
    )
    first_pts_s: Annotated[Seconds, MayBeAbsent()] | None = Field(
        description="of its rows; null: it has none"
    )
    last_pts_s: Annotated[Seconds, MayBeAbsent()] | None = Field(description="of its rows")
    accel_rate_hz: Annotated[Float32, Unit("hertz"), MayBeAbsent()] | None = Field(
        ge=0, description="accelerations a second; null: fewer than two"
    )
    gyro_rate_hz: Annotated[Float32, Unit("hertz"), MayBeAbsent()] | None = Field(
        ge=0, description="turns a second; null: fewer than two"
    )
    gps: Literal["none", "kept", "left out"] = Field(
        description="whether it has positions; left out: it has, and the setting gps drops them"
    )
    fault_count: Int32 = Field(ge=0, description="places where it is not what its format says")
    faults: Texts = Field(description="a sentence on each of the first of them")


class Gravity(FrameRow):
    """One row per frame in which the direction of gravity is known."""

    table: ClassVar[str] = "gravity"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "frame_index")
    item_column: ClassVar[str] = "shard"

    source: Source = Field(description="of the accelerometer: as in `telemetry`")
    gravity_camera: Annotated[Vec3, Unit("unit vector")] = Field(
        description="where things fall, in the camera frame"
    )
    uncertainty_deg: Degrees = Field(
        ge=0, description="one standard deviation of the direction, by the measurements' own spread"
    )
    used_share: Score = Field(
        description="of the accelerations around: those whose length was near that of gravity"
    )
    world_id: Annotated[Text, MayBeAbsent()] | None = Field(
        description="world of the frame's camera; null: it has no valid one"
    )
    gravity_world: Annotated[Vec3, Unit("unit vector"), MayBeAbsent()] | None = Field(
        description="where things fall, in that world: the mean over all frames of the world; "
        "null: no valid camera, or the frames do not agree"
    )
    world_spread_deg: Annotated[Degrees, MayBeAbsent()] | None = Field(
        ge=0, description="RMS angle between what single frames say of the world and their mean"
    )
    world_frames: Annotated[Int32, MayBeAbsent()] | None = Field(
        ge=1, description="frames that the mean is over"
    )
