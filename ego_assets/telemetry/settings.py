"""Settings of telemetry and gravity, a class per stage, and of their probes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ego_assets.quality.settings import ProbeSettings
from ego_assets.settings import Settings
from ego_assets.telemetry.samples import camera_from_letters


class TelemetrySettings(Settings):
    """telemetry: what sensors beside the picture measured."""

    gps: Literal["keep", "drop"] = Field(
        default="keep",
        description="drop: no position is taken into the lake, only whether there were any",
    )
    camera_from_sensor: str | None = Field(
        default=None,
        description="for sources that do not say how their sensor is mounted: which of its axes "
        "points right, down and forward in the upright picture, as y,-x,z",
    )
    sidecar_offset_s: float = Field(
        default=0.0,
        ge=-86_400,
        le=86_400,
        description="added to the times of files beside the video",
    )
    margin_s: float = Field(
        default=2.0, ge=0, le=60, description="samples this long before and after the video stay"
    )
    max_samples: int = Field(
        default=3_000_000,
        ge=1,
        le=50_000_000,
        description="of a video's tracks, and of each file beside it: of more, the first are taken",
    )

    @field_validator("camera_from_sensor")
    @classmethod
    def _is_rotation(cls, letters: str | None) -> str | None:
        if letters is not None:
            camera_from_letters(letters)
        return letters


class GravitySettings(Settings):
    """gravity: where things fall, by accelerometers."""

    window_s: float = Field(
        default=4.0,
        gt=0,
        le=60,
        description="accelerations this long before and after a frame are averaged, turned by the "
        "gyroscope: what a head does in between cancels out",
    )
    still_window_s: float = Field(
        default=0.5, gt=0, le=60, description="the same without a gyroscope, where nothing turns"
    )
    max_norm_error_mps2: float = Field(
        default=1.0, gt=0, description="accelerations further from 9.81 are left out"
    )
    min_used_share: float = Field(
        default=0.5, gt=0, le=1, description="of the accelerations around a frame that must be left"
    )
    max_uncertainty_deg: float = Field(
        default=5.0, gt=0, le=90, description="a direction that is less certain is not given"
    )
    max_gap_s: float = Field(
        default=0.25, gt=0, description="a longer gap in the measurements is not bridged"
    )
    max_world_spread_deg: float = Field(
        default=10.0, gt=0, le=90, description="a world whose frames agree less has no gravity"
    )


class TelemetryProbeSettings(ProbeSettings):
    """Thresholds of the probes of telemetry and gravity."""

    max_still_norm_error_mps2: float = Field(
        default=0.6, gt=0, description="median length of accelerations against 9.81"
    )
    max_gravity_spread_deg: float = Field(
        default=5.0, gt=0, description="gravity in a world, as its frames say it, against the mean"
    )
