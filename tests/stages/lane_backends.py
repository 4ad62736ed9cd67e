"""An operator that may be called from several threads: how lanes are driven in tests.

Beside the video, `{clip_id}.json` may say {"die": true}; every call writes when it began and ended
into `spans.jsonl`.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

from ego_assets.config import MovementSettings
from ego_assets.protocols import Carried, ClipInput, ClipOutput
from tests.stages.fake_backends import movement_row

HOLD_S = 0.15
MEET = "meet"
"""File beside the videos: the first calls wait for each other."""


class LaneEstimator:
    name = "lanes"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""
    lanes = 3
    on_device = True

    def __init__(self, settings: MovementSettings) -> None:
        self.lock = threading.Lock()
        self.built = time.monotonic()
        self.came, self.meeting = 0, threading.Barrier(self.lanes)

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        folder = Path(clip.video["uri"]).parent
        began = time.monotonic()
        time.sleep(HOLD_S)
        self._meet(folder)
        if (folder / f"{clip.clip_id}.json").exists():
            os.kill(os.getpid(), signal.SIGSEGV)
        span = {
            "clip": clip.clip_id,
            "pid": os.getpid(),
            "model": self.built,
            "device": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "began": began,
            "ended": time.monotonic(),
        }
        with self.lock, (folder / "spans.jsonl").open("a") as file:
            file.write(json.dumps(span) + "\n")
        count = (carried or {}).get("count", 0)
        row = movement_row(clip, "track", float(count))
        return ClipOutput({"object_movements": [row]}, carried={"count": count + 1})

    def _meet(self, folder: Path) -> None:
        """As many as there are lanes, once: however slow the machine, they are side by side."""
        with self.lock:
            self.came += 1
            is_first = self.came <= self.lanes
        if is_first and (folder / MEET).exists():
            self.meeting.wait(300)
