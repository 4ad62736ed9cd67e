"""What a person can set of it: `settings: {hand_estimator: {max_rounds: 3}}`."""

from pydantic import Field

from ego_assets.hands.settings import HandPoseSettings


class FastHandsSettings(HandPoseSettings):
    """hand_poses by fast_hands."""

    max_rounds: int = Field(default=2, ge=1, le=100, description="steps of a fit, at most")
