"""Six backends that compute nothing, and hold their device or core for as long as a table says.

The times are guesses, in seconds, of what learned backends take on an H100 for one shard of 15
minutes of 1080p footage: nobody has measured them. What counts is their proportion. Here: the
backends, and their log of spans. Not here: what is concluded (`whole_graph`).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar

from ego_assets.graph.backends import Backends
from ego_assets.operator import Carried, ClipInput, ClipOutput

SCALE_VARIABLE = "EGO_SIMULATED_SCALE"
LOG_VARIABLE = "EGO_SIMULATED_LOG"
SECONDS = {
    "segmenter": 540.0,
    "hand_estimator": 180.0,
    "reconstructor": 240.0,
    "object_pose_estimator": 300.0,
    "movement_estimator": 30.0,
    "retargeter": 60.0,
}
SHARES = {
    "segmenter": 1.0,
    "hand_estimator": 0.5,
    "reconstructor": 0.25,
    "object_pose_estimator": 1.0,
}
"""Of a device, as the steps' tags say."""
CHAINS = (
    ("segmenter", "hand_estimator", "retargeter"),
    ("segmenter", "reconstructor", "object_pose_estimator", "movement_estimator"),
)
"""What waits for what within a shard."""


def scale() -> float:
    """Everything takes this share of the time that it takes on the machine that is simulated."""
    return float(os.environ.get(SCALE_VARIABLE, "0.04"))


class _Simulated:
    name = "simulated"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""
    operator: ClassVar[str]
    tables: ClassVar[tuple[str, ...]]

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        """Take the time of the shard's only clip, and note on which device."""
        began = time.time()
        self.work(clip)
        device = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        span = [self.operator, clip.clip["shard"], device, began, time.time()]
        if folder := os.environ.get(LOG_VARIABLE):
            with (Path(folder) / f"{os.getpid()}.jsonl").open("a") as file:
                file.write(json.dumps(span) + "\n")
        return ClipOutput({table: [] for table in self.tables})

    def work(self, clip: ClipInput) -> None:
        time.sleep(scale() * SECONDS[self.operator])


class Segmenter(_Simulated):
    on_device = True
    operator = "segmenter"
    tables = ("detections", "object_masks", "hand_masks")


class HandEstimator(_Simulated):
    on_device = True
    operator = "hand_estimator"
    tables = ("hand_poses",)


class Reconstructor(_Simulated):
    on_device = True
    operator = "reconstructor"
    tables = ("scene_reconstruction",)


class ObjectPoseEstimator(_Simulated):
    on_device = True
    operator = "object_pose_estimator"
    tables = ("object_poses",)


class MovementEstimator(_Simulated):
    on_device = False
    operator = "movement_estimator"
    tables = ("object_movements",)


class Retargeter(_Simulated):
    on_device = False
    operator = "retargeter"
    tables = ("robot_mappings",)


CLASSES: tuple[type[_Simulated], ...] = (
    Segmenter,
    HandEstimator,
    Reconstructor,
    ObjectPoseEstimator,
    MovementEstimator,
    Retargeter,
)


def simulated_backends(**others: str) -> Backends:
    """All six, but for those that are named."""
    names = {c.operator: f"{__name__}:{c.__name__}" for c in CLASSES}
    return Backends(**(names | others))
