"""Settings of hand poses, a class per stage or backend."""

from __future__ import annotations

from pydantic import Field

from ego_assets.settings import RUNTIME, CompileMode, Settings


class HandPoseSettings(Settings):
    """hand_poses."""

    hand_length_m: float = Field(
        default=0.183, gt=0.1, lt=0.3, description="wrist to the tip of the middle finger"
    )
    rounds: int = Field(default=8, ge=1, le=100, description="steps of a fit at most")
    smoothing_frames: float = Field(
        default=1.5, ge=0, le=30, description="standard deviation of the smoothing over time"
    )


class HamerSettings(Settings):
    """hand_poses by HaMeR."""

    checkpoint: str = Field(
        default="hamer", description="folder of the release, below that of all weights"
    )
    crops_per_batch: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="hands looked at at once; empty: what was measured for this device, else 32",
        json_schema_extra=RUNTIME,
    )
    compile: CompileMode = Field(
        default=False,
        description="compile the network (torch.compile): false, true, or a mode with CUDA graphs, "
        "reduce-overhead or max-autotune",
        json_schema_extra=RUNTIME,
    )
    smoothing_s: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="standard deviation of the smoothing over time of rotations, and of the "
        "wrist's place in the picture; 0: none",
    )
    depth_smoothing_s: float = Field(
        default=0.15, ge=0, le=1, description="the same of the wrist's distance"
    )
