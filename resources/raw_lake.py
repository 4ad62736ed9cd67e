"""Dagster resource over the raw lake: the read-only place of the original videos."""

from __future__ import annotations

from typing import Any

import dagster as dg
from pydantic import Field

from resources.environment import raw_folder
from resources.raw.limits import SHARD_BYTES, SHARD_DURATION_S, SHARD_FILES


class RawLake(dg.ConfigurableResource[Any]):
    """Where raw videos lie. Nothing ever writes there."""

    folders: list[str] = Field(
        default=[],
        description="folders or s3://bucket/prefix; empty: EGO_RAW, else .ego/raw",
    )

    settle_s: float = Field(
        default=60.0, ge=0, description="a file is complete when it has not changed for so long"
    )
    shard_files: int = Field(
        default=SHARD_FILES, ge=1, description="the sensor's shards: files at most"
    )
    shard_gb: float = Field(default=SHARD_BYTES / 1e9, gt=0, description="its gigabytes, at most")
    shard_minutes: float = Field(
        default=SHARD_DURATION_S / 60, gt=0, description="minutes of footage at most"
    )
    wait_s: float = Field(
        default=600.0, ge=0, description="a shard that is not full is closed after so long"
    )

    def places(self) -> list[str]:
        return self.folders or [raw_folder() or ".ego/raw"]
