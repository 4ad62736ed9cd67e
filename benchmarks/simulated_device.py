"""A GPU that is not there: a lock per device, and kernels that hold it for as long as a table says.

Here: the operator that uses it, and its log of kernels. Not here: what is concluded (`duty_cycle`).
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import numpy as np

from ego_assets.objects.settings import MovementSettings
from ego_assets.operator import Carried, ClipInput, ClipOutput

SPEED_VARIABLE = "EGO_SIMULATED_SPEED"
KERNEL_S_PER_FRAME = {480: 0.010, 720: 0.014, 1080: 0.020, 2160: 0.045}
DECODE_S_PER_FRAME = {480: 0.0005, 720: 0.001, 1080: 0.002, 2160: 0.008}
ENCODE_S_PER_FRAME = 0.001
"""RLE of the masks, on the host."""
CARRIED_BYTES = 2_000_000
STATE_BYTES = 32_000_000
"""What SAM 2 remembers of four tracks in 15 frames; noise to whoever compresses it."""
AHEAD = 16
"""Pictures that a decoder is ahead of the model: those after them cost it nothing."""


def time_scale() -> float:
    """Everything is so much faster than on the machine that is simulated."""
    return 1 / float(os.environ.get(SPEED_VARIABLE, "40"))


class SimulatedOperator:
    """Decode, kernel, encode: the host's parts need no device, so other lanes may have it."""

    name = "simulated"
    version = "1"
    quality_tier = "baseline"
    weights_hash = ""
    lanes = 3
    on_device = True

    def __init__(self, settings: MovementSettings) -> None:
        self.device = threading.Lock()

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        row = clip.clip
        frames = row["end_frame"] - row["start_frame"]
        height = clip.video["height_px"]
        scale = time_scale()
        time.sleep(scale * DECODE_S_PER_FRAME[height] * frames)
        with self.device:
            began = time.monotonic()
            time.sleep(scale * KERNEL_S_PER_FRAME[height] * frames)
            self._log(began, time.monotonic())
        time.sleep(scale * ENCODE_S_PER_FRAME * frames)
        return self._output(clip, np.zeros(CARRIED_BYTES, np.uint8))

    def _output(self, clip: ClipInput, memory: np.ndarray) -> ClipOutput:
        rows = [self._row(clip, n) for n in range(8)]
        return ClipOutput({"object_movements": rows}, carried={"memory": memory})

    def _log(self, began: float, ended: float) -> None:
        folder = Path(os.environ["EGO_SIMULATED_LOG"])
        device = os.environ["CUDA_VISIBLE_DEVICES"]
        with (folder / f"{device}.{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps([began, ended]) + "\n")

    def _row(self, clip: ClipInput, number: int) -> dict[str, object]:
        row = clip.clip
        return {
            "video_id": row["video_id"],
            "shard": row["shard"],
            "clip_id": row["clip_id"],
            "track_id": f"{row['take_id']}-o{number:03d}",
            "start_frame": row["start_frame"],
            "end_frame": row["end_frame"],
            "start_pts_s": row["start_pts_s"],
            "end_pts_s": row["end_pts_s"],
            "state": "still",
            "displacement": 0.0,
            "path_length": 0.0,
            "mean_speed": 0.0,
            "displacement_px": 0.0,
            "scale_kind": "arbitrary",
            "touching_side": None,
            "touching_track_id": None,
            "touch_share": 0.0,
            "backend": "simulated",
            "quality_tier": "baseline",
        }


class TemporalOperator(SimulatedOperator):
    """One take at a time, as a model whose memory fills the device: pictures are decoded ahead of
    it, masks are compressed between its kernels, and its state is large.

    The state is so much smaller as everything is faster: writing it takes a share of the time that
    does not depend on the speed.
    """

    name = "temporal"
    lanes = 1

    def process(self, clip: ClipInput, carried: Carried | None) -> ClipOutput:
        row = clip.clip
        frames = row["end_frame"] - row["start_frame"]
        height, scale = clip.video["height_px"], time_scale()
        time.sleep(scale * DECODE_S_PER_FRAME[height] * min(AHEAD, frames))
        began = time.monotonic()
        time.sleep(scale * KERNEL_S_PER_FRAME[height] * frames)
        self._log(began, time.monotonic())
        time.sleep(scale * ENCODE_S_PER_FRAME * frames)
        dice = np.random.default_rng(row["start_frame"])
        return self._output(clip, dice.integers(0, 256, int(scale * STATE_BYTES), np.uint8))
