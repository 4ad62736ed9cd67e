"""An operator that may be called from several threads: how lanes are driven in tests.

Beside the video, `{clip_id}.json` may say {"die": true}, and a file `together` that the first calls
wait for each other until all lanes are at work; every call writes when it began and ended into
`spans.jsonl`.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

from ego_assets.objects.settings import MovementSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput
from tests.engine.fake_backends import movement_row

HOLD_S = 0.05
PATIENCE_S = 120.0


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
        self.all_lanes = threading.Barrier(self.lanes)
        self.met: set[int] = set()

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        folder = Path(clip.video["uri"]).parent
        began = time.monotonic()
        me = threading.get_ident()
        if me not in self.met and (folder / "together").exists():
            self.met.add(me)
            self.all_lanes.wait(PATIENCE_S)
        time.sleep(HOLD_S)
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
