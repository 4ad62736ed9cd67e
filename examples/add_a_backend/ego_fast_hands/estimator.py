"""The implementation. It is imported only when somebody chooses it."""

from pathlib import Path
from typing import Any

from ego_assets.hands.landmarks.estimator import LandmarksHandEstimator
from ego_assets.operator import Carried, ClipInput, ClipOutput
from ego_fast_hands.settings import FastHandsSettings


class FastHandEstimator:
    """Landmarks in smaller pictures."""

    name = "fast_hands"
    version = "1"
    quality_tier = "learned"
    weights_hash = ""

    def __init__(self, settings: FastHandsSettings, weights: Path) -> None:
        side = min(settings.side_px, settings.max_side_px)
        self.estimator = LandmarksHandEstimator(
            settings.model_copy(update={"side_px": side}), weights
        )

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        output = self.estimator.process(clip, carried)
        rows: list[dict[str, Any]] = output.tables["hand_poses"]
        output.tables["hand_poses"] = [row | {"backend": self.name} for row in rows]
        return output
