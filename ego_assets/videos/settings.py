"""Settings of the intake of videos and of clips, a class per stage or backend."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ego_assets.settings import MAX_OVERLAP_S, RUNTIME, Settings


class ManifestSettings(Settings):
    """video_manifest: what is taken in."""

    max_file_gigabytes: float = Field(
        default=64.0,
        gt=0,
        le=100_000,
        description="larger files are rejected before a byte of them is read or fetched",
    )
    max_duration_s: float = Field(
        default=3600.0, gt=0, le=604_800, description="longer videos are rejected"
    )
    min_duration_s: float = Field(default=0.0, ge=0, description="shorter videos are rejected")
    max_pixels: int = Field(
        default=8192 * 4320,
        gt=0,
        le=16384 * 8640,
        description="larger pictures are rejected (decoder bombs)",
    )
    max_decoded_gigabytes: float = Field(
        default=20_000.0,
        gt=0,
        description="videos with more bytes of RGB pictures are rejected (an hour of 4K at 60 "
        "frames/s has 5,400)",
    )
    video_stream: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="index of the video stream to take, counted over all streams of a file as "
        "ffprobe does; files without it are rejected. Empty: the largest video",
    )
    assumed_horizontal_fov_deg: float = Field(
        default=70.0,
        gt=10,
        lt=170,
        description="field of view along the longer side of a video without a calibration file",
    )
    max_stall_s: float = Field(
        default=300.0,
        gt=0,
        le=86_400,
        description="a worker that does not come further with a file for this long is killed",
        json_schema_extra=RUNTIME,
    )
    min_read_megabytes_per_s: float = Field(
        default=1.0,
        ge=0,
        le=100_000,
        description="where files are read slower, the step warns; 0: never",
        json_schema_extra=RUNTIME,
    )


class ClipSettings(Settings):
    """clips: cuts, and the split of long scenes into takes of clips."""

    detector: Literal["content", "adaptive"] = Field(
        default="content", description="PySceneDetect's detector"
    )
    threshold: float | None = Field(
        default=None, description="detector's threshold; empty: 20 (content) or 3 (adaptive)"
    )
    search: Literal["exact", "fast", "pyscenedetect"] = Field(
        default="exact",
        description="exact: every frame is decoded; fast: only where the stream hints at a cut; "
        "pyscenedetect: by the library itself, for comparison (as exact, and slower)",
    )
    min_histogram_distance: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="share of the colours that a cut must change; 0 takes all that is proposed",
    )
    min_scene_s: float = Field(
        default=0.5,
        ge=0,
        description="shorter scenes join the next, or the one before a transition; alone between "
        "transitions they are part of them",
    )
    max_clip_s: float = Field(default=20.0, gt=1, description="longer scenes are split")
    overlap_s: float = Field(
        default=1.5, ge=0, le=MAX_OVERLAP_S, description="context shared by neighbours"
    )
