"""A segmenter that takes its process along on some videos: what the soak plants.

Here: the fault. Not here: how it is survived (`ego_assets.engine`).
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from ego_assets.masks.landmarks.segmenter import LandmarksSegmenter
from ego_assets.operator import Carried, ClipInput, ClipOutput

KILLER = "killer"


class PoisonSegmenter(LandmarksSegmenter):
    """As by default, but a video whose name begins with `killer` is read from address 0."""

    name = "poison"

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        if Path(clip.video["uri"]).name.startswith(KILLER):
            ctypes.string_at(0)
        return super().process(clip, carried)
