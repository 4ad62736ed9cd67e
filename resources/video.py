"""Dagster resource over the raw lake: the read-only place of the original videos."""

from __future__ import annotations

import os

import dagster as dg
from pydantic import Field


class RawLake(dg.ConfigurableResource):
    """Where raw videos lie. Nothing ever writes there."""

    folders: list[str] = Field(
        default=[],
        description="folders or s3://bucket/prefix; empty: EGO_RAW, else .ego/raw",
    )

    def places(self) -> list[str]:
        return self.folders or [os.environ.get("EGO_RAW") or ".ego/raw"]
