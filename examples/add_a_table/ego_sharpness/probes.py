"""The check of its quality, and the numbers by which shards are compared."""

import numpy as np
import polars as pl

from ego_assets.quality.drift import clip_features
from ego_assets.quality.finding import Evidence, Finding, Units, judge, probe
from ego_sharpness.settings import SharpnessProbeSettings


@probe("clip_sharpness", reads=("clip_id", "sharpness"))
def clips_are_in_focus(evidence: Evidence, settings: SharpnessProbeSettings) -> Finding:
    """Clips are in focus."""
    blur = [1.0 / max(value, 1e-6) for value in evidence.rows["sharpness"].to_pylist()]
    return judge(
        Units.of(evidence.rows["clip_id"].to_pylist(), blur),
        1.0 / max(settings.min_sharpness, 1e-6),
        "over sharpness",
        "clips out of focus",
        settings.tolerated_share,
    )


PROBES = (*clips_are_in_focus,)
DRIFT = clip_features(
    "clip_sharpness",
    ("sharpness",),
    [pl.col("sharpness").median()],
    {"sharpness": np.geomspace(1, 10_000, 13)},
)
