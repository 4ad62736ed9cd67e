"""The operator: a clip to its row. It knows nothing of Dagster."""

import cv2
import numpy as np

from ego_assets.operator import Carried, ClipInput, ClipOutput
from ego_sharpness.settings import SharpnessSettings


class LaplacianSharpness:
    """Variance of the Laplacian (Pech-Pacheco et al., "Diatom autofocusing", ICPR 2000)."""

    name = "laplacian"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: SharpnessSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        first, last = clip.clip["start_frame"], clip.clip["end_frame"] - 1
        indices = np.unique(np.linspace(first, last, self.settings.frames).astype(int)).tolist()
        frames = clip.frames.read(max_side_px=self.settings.side_px, indices=indices)
        grey = [cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY) for frame in frames]
        row = {
            "video_id": clip.clip["video_id"],
            "shard": clip.clip["shard"],
            "clip_id": clip.clip_id,
            "sharpness": float(np.median([cv2.Laplacian(g, cv2.CV_64F).var() for g in grey])),
            "frames": len(grey),
            "backend": self.name,
            "quality_tier": self.quality_tier,
        }
        return ClipOutput({"clip_sharpness": [row]})
