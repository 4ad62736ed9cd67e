"""Another backend of the hand estimator, which fits fewer times."""

from ego_assets.feature import OUR_LICENCE, BackendEntry
from ego_fast_hands.settings import FastHandsSettings

FAST_HANDS = BackendEntry(
    "hand_estimator",
    "fast_hands",
    "ego_fast_hands.estimator:FastHandEstimator",
    FastHandsSettings,
    OUR_LICENCE,
)
