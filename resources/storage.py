"""Dagster resource over the lake and its ledger."""

from __future__ import annotations

from typing import Any

import dagster as dg
from pydantic import Field

from resources import environment
from resources.lake import Lake
from resources.lake.lake import DEFAULT_LAKE
from resources.lake.s3.client import S3Account, use_account
from resources.ledger import Ledger


class Storage(dg.ConfigurableResource[Any]):
    """Where tables and clip states live.

    The S3 fields are for deployments that keep them in Dagster's configuration: give secrets as
    `EnvVar("NAME")`, or `{env: NAME}` in the launchpad, so that no page and no log shows them.
    """

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
    s3_endpoint_url: str = Field(
        default="", description="of an S3-compatible server; empty: AWS_ENDPOINT_URL, else AWS"
    )
    s3_region: str = Field(default="", description="empty: AWS_REGION")
    s3_access_key_id: str = Field(default="", description="empty: AWS_ACCESS_KEY_ID, or the role's")
    s3_secret_access_key: str = Field(
        default="", description="empty: AWS_SECRET_ACCESS_KEY, or the role's"
    )

    def lake(self) -> Lake:
        """The lake. What is said here of S3 holds from now on in this process and its workers."""
        given = (
            self.s3_endpoint_url,
            self.s3_region,
            self.s3_access_key_id,
            self.s3_secret_access_key,
        )
        if any(given):
            use_account(S3Account(*given))
        return Lake(self.lake_root or environment.lake_root() or DEFAULT_LAKE)

    def ledger(self) -> Ledger:
        return Ledger.of(self.lake().location, self.ledger_url)
