"""Dagster resource over the lake and its ledger."""

from __future__ import annotations

import os

import dagster as dg
from pydantic import Field

from resources.lake import Lake
from resources.lake.lake import DEFAULT_LAKE
from resources.ledger import Ledger


class Storage(dg.ConfigurableResource):
    """Where tables and clip states live."""

    lake_root: str = Field(
        default="",
        description="folder of the lake, or s3://bucket/prefix; empty: EGO_LAKE, else "
        + DEFAULT_LAKE,
    )
    ledger_url: str = Field(
        default="",
        description="SQLAlchemy URL of the ledger, a database of its own for each lake; empty: "
        "EGO_LEDGER_URL, else SQLite in the lake",
    )

    def lake(self) -> Lake:
        return Lake(self.lake_root or os.environ.get("EGO_LAKE") or DEFAULT_LAKE)

    def ledger(self) -> Ledger:
        return Ledger.of(self.lake().location, self.ledger_url)
