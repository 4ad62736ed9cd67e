"""The table: one row per clip."""

from typing import Annotated, ClassVar

from pydantic import Field

from ego_assets.rows import TIER, ClipRow, QualityTier
from resources.lake.table import Float32, Int32, Plausible, Text, Unit


class ClipSharpness(ClipRow):
    """One row per clip: how sharp its picture is."""

    table: ClassVar[str] = "clip_sharpness"
    key: ClassVar[tuple[str, ...]] = ("clip_id",)

    sharpness: Annotated[Float32, Unit("grey levels squared"), Plausible(0, 50_000)] = Field(
        ge=0, description="variance of the Laplacian, median over the frames"
    )
    frames: Int32 = Field(ge=1, description="frames that were looked at")
    backend: Text = Field(description="which implementation")
    quality_tier: QualityTier = Field(description=TIER)
