"""What a person can set: the operator, and the threshold of the probe."""

from pydantic import Field

from ego_assets.quality.settings import ProbeSettings
from ego_assets.settings import Settings


class SharpnessSettings(Settings):
    """clip_sharpness."""

    frames: int = Field(default=5, ge=1, le=100, description="frames of a clip that are looked at")
    side_px: int = Field(default=320, ge=64, description="longer side of the pictures")


class SharpnessProbeSettings(ProbeSettings):
    """Thresholds of the probes of sharpness."""

    min_sharpness: float = Field(default=5.0, ge=0, description="less is out of focus")
