"""Operators whose behaviour a file beside the video decides: how stages are driven in tests.

`{clip_id}.json` in the video's folder may say: {"raise": n, "die": n, "bad": true}: the first n
attempts do so; {"until": path, "hang": n}: they wait for that file; {"sleep_s": s, "hang": n}: they
take so long; {"makes_folder": true}: they have a temporary folder meanwhile; {"starts": path}: they
have started a process that goes on, and added its id there. Attempts are counted in
`{clip_id}.attempts`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ego_assets.objects.settings import MovementSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput
from resources.processes.owned_folders import make_temporary_folder


def movement_row(clip: ClipInput, track: str, path_length: float) -> dict[str, Any]:
    row = clip.clip
    return {
        "video_id": row["video_id"],
        "shard": row["shard"],
        "clip_id": row["clip_id"],
        "track_id": track,
        "start_frame": row["start_frame"],
        "end_frame": row["end_frame"],
        "start_pts_s": row["start_pts_s"],
        "end_pts_s": row["end_pts_s"],
        "state": "still",
        "displacement": 0.0,
        "path_length": path_length,
        "mean_speed": 0.0,
        "displacement_px": 0.0,
        "scale_kind": "arbitrary",
        "touching_side": None,
        "touching_track_id": None,
        "touch_share": 0.0,
        "backend": "fake",
        "quality_tier": "baseline",
    }


def told(folder: Path, counter: str, plan: str) -> tuple[int, dict[str, Any]]:
    """How often it has been asked, this time included, and what the plan says if there is one."""
    with (folder / counter).open("a") as file:
        file.write("x")
    said = json.loads((folder / plan).read_text()) if (folder / plan).exists() else {}
    return (folder / counter).stat().st_size, said


class FakePair:
    """Two tables at a time, the second without rows."""

    name = "pair"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: MovementSettings) -> None:
        self.first = FakeEstimator(settings)

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        output = self.first.process(clip, carried)
        output.tables["robot_mappings"] = []
        return output


class FakeEstimator:
    """`path_length` of its row counts the clips of the take before it: state that is carried."""

    name = "fake"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: MovementSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        folder = Path(clip.video["uri"]).parent
        attempt, behave = told(folder, f"{clip.clip_id}.attempts", f"{clip.clip_id}.json")
        if behave.get("starts"):
            started = subprocess.Popen(["sleep", "600"], start_new_session=True)
            with (folder / behave["starts"]).open("a") as file:
                file.write(f"{started.pid}\n")
        if attempt <= behave.get("die", 0):
            print(f"last words of attempt {attempt}", file=sys.stderr)
            os.kill(os.getpid(), signal.SIGKILL)
        if attempt <= behave.get("raise", 0):
            raise RuntimeError(f"attempt {attempt} fails as it was told")
        if behave.get("makes_folder"):
            make_temporary_folder()
        if attempt <= behave.get("hang", 1):
            time.sleep(behave.get("sleep_s", 0))
            while (until := behave.get("until")) and not (folder / until).exists():
                time.sleep(0.02)
        count = (carried or {}).get("count", 0)
        row = movement_row(clip, "track", float(count))
        row["displacement_px"] = self.settings.touch_share
        if behave.get("bad"):
            row["touch_share"] = 7.0
        return ClipOutput({"object_movements": [row]}, carried={"count": count + 1})
