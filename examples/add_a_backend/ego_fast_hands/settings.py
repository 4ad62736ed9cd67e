"""What a person can set of it: `settings: {hand_estimator: {max_side_px: 640}}`."""

from pydantic import Field

from ego_assets.hands.settings import HandPoseSettings


class FastHandsSettings(HandPoseSettings):
    """hand_poses by fast_hands."""

    max_side_px: int = Field(
        default=960, ge=192, le=8192, description="longer side of the pictures, at most"
    )
