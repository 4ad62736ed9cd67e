"""Another backend of the hand estimator, which looks at smaller pictures."""

from ego_assets.feature import BackendEntry
from ego_assets.models.packaged.declaration import HAND_NETS
from ego_fast_hands.settings import FastHandsSettings

FAST_HANDS = BackendEntry(
    "hand_estimator",
    "fast_hands",
    "ego_fast_hands.estimator:FastHandEstimator",
    FastHandsSettings,
    "Apache-2.0 (MediaPipe's hand nets)",
    weights=HAND_NETS.paths,
    source="`ego weights fetch hand-nets`",
)
