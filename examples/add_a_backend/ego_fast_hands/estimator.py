"""The implementation. It is imported only when somebody chooses it."""

from typing import Any

from ego_assets.hands.baseline.estimator import BaselineHandEstimator
from ego_assets.operator import Carried, ClipInput, ClipOutput
from ego_fast_hands.settings import FastHandsSettings


class FastHandEstimator:
    """The baseline's fit, broken off early."""

    name = "fast_hands"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: FastHandsSettings) -> None:
        rounds = min(settings.rounds, settings.max_rounds)
        self.estimator = BaselineHandEstimator(settings.model_copy(update={"rounds": rounds}))

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        output = self.estimator.process(clip, carried)
        rows: list[dict[str, Any]] = output.tables["hand_poses"]
        output.tables["hand_poses"] = [row | {"backend": self.name} for row in rows]
        return output
