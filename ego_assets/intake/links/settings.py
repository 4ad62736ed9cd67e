"""What a person may say of how links are fetched."""

from __future__ import annotations

from pydantic import Field

from ego_assets.settings import Settings


class IngestSettings(Settings):
    """How many links at a time, how fast, how large, and how patiently."""

    concurrency: int = Field(default=8, ge=1, le=256, description="links at a time")
    per_host: int = Field(default=4, ge=1, le=256, description="of them, links of one host")
    pause_s: float = Field(
        default=0.0, ge=0, le=3600, description="seconds between two requests to one host"
    )
    max_mb_per_s: float = Field(
        default=0.0, ge=0, description="megabytes a second of all links together; 0: no limit"
    )
    max_gb: float = Field(default=20.0, gt=0, description="gigabytes of one video, at most")
    stall_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="seconds that a server may send nothing, or less than 1 KiB/s",
    )
    tries: int = Field(default=5, ge=1, le=100, description="times that a link is tried")
    backoff_s: float = Field(
        default=1.0, ge=0, le=600, description="seconds before the second try; doubled each time"
    )
    max_wait_s: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        description="seconds that a server may have us wait (Retry-After)",
    )
    height: int = Field(
        default=1080, ge=1, le=16_384, description="lines of picture at most, where a page has many"
    )
