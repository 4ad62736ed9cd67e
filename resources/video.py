"""Dagster resource over the raw lake: the read-only place of the original videos."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
from pydantic import Field


class RawLake(dg.ConfigurableResource):
    """Folders that hold raw videos. Nothing ever writes there."""

    folders: list[str] = Field(
        default=[], description="folders with raw videos; empty: EGO_RAW, else .ego/raw"
    )

    def paths(self) -> list[Path]:
        given = self.folders or [os.environ.get("EGO_RAW") or ".ego/raw"]
        return [Path(f).expanduser() for f in given]
