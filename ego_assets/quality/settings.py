"""Thresholds of the quality probes, a field for each.

Here: those of the probes that every table has. Not here: those of a room (its `settings.py`), and
what they are compared with. They change no result, only what is said of it, so they are no part of
the settings of a stage.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Share = float


class ProbeSettings(BaseModel):
    """When a probe speaks up. `docs/probes.md` gives the reasons and the sources.

    A room adds its own by a subclass, which is the launchpad form of its check steps.
    """

    model_config = ConfigDict(extra="forbid")

    tolerated_share: Share = Field(
        default=0.05, ge=0, le=1, description="clips or tracks that may be beyond a threshold"
    )
    max_null_share: Share = Field(
        default=0.5, ge=0, le=1, description="rows in which a measured column may be null"
    )
    max_implausible_share: Share = Field(
        default=0.01, ge=0, le=1, description="values of a column outside their plausible range"
    )
    max_unanswered_clip_share: Share = Field(
        default=0.5, ge=0, le=1, description="clips without a row, of those whose input has some"
    )
    # drift
    min_baseline_shards: int = Field(
        default=5, ge=2, description="good shards before drift is judged"
    )
    baseline_window: int = Field(default=50, ge=2, description="good shards that are remembered")
    min_drift_units: int = Field(
        default=8, ge=2, description="clips (or videos) of a shard below which drift is not judged"
    )
    min_psi: float = Field(
        default=0.25, gt=0, description="population stability index that counts as a shift"
    )
    min_ks: float = Field(
        default=0.25, gt=0, description="Kolmogorov-Smirnov distance that counts as a shift"
    )
    drift_alpha: float = Field(
        default=0.001, gt=0, lt=1, description="chance of a false alarm from sampling alone"
    )
    max_streak_videos: int = Field(
        default=1000, ge=1, description="videos in a row with nothing found"
    )
