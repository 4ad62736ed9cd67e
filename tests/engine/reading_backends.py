"""An operator whose rows tell what it has read, and that can be held up while it reads.

Files in the folder `signals` beside the raw folder hold it up (the raw folder may go away): with
`{clip_id}.until` a clip that has opened its video waits for the file `go`; `{clip_id}.opened` says
that it has. Every attempt adds to `{clip_id}.attempts`.
"""

from __future__ import annotations

import time
from pathlib import Path

from ego_assets.objects.settings import MovementSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput
from tests.engine.fake_backends import movement_row

SIGNALS = "signals"


def signals_of(uri: str) -> Path:
    """The folder of signals of a raw file in `…/raw/` or a folder below or beside it."""
    return next(p / SIGNALS for p in Path(uri).parents if (p / SIGNALS).is_dir())


class ReadingEstimator:
    """`path_length` is the sum of the brightness of all frames, `displacement_px` their number."""

    name = "reading"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: MovementSettings) -> None:
        self.settings = settings

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        signals = signals_of(clip.video["uri"])
        with (signals / f"{clip.clip_id}.attempts").open("a") as file:
            file.write("x")
        count, light = 0, 0.0
        for frame in clip.frames.read():
            count, light = count + 1, light + float(frame.image.mean())
        (signals / f"{clip.clip_id}.opened").touch()
        while (signals / f"{clip.clip_id}.until").exists() and not (signals / "go").exists():
            time.sleep(0.01)
        again = sum(1 for _ in clip.frames.read())
        assert again == count
        row = movement_row(clip, "track", light)
        row["displacement_px"] = float(count)
        return ClipOutput({"object_movements": [row]}, carried={"count": count})
