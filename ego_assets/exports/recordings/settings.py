"""Settings of an export to Rerun recordings."""

from __future__ import annotations

from pydantic import Field

from ego_assets.settings import Settings


class RerunSettings(Settings):
    """How large pictures are."""

    max_side_px: int = Field(
        default=640,
        ge=64,
        le=8192,
        description="Longer side of the pictures, which are never enlarged.",
    )
