"""Clips of moving noise, for operators that look at frames."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from ego_assets.operator import Carried, ClipInput, Frame, Intrinsics

SIZE = (90, 120)


def picture(index: int) -> np.ndarray:
    """A noise that moves to the left."""
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
    return np.ascontiguousarray(np.roll(noise, -2 * index, axis=1))


class Noise:
    """Frames of `picture`, ten a second; `read` lists what was asked for."""

    height, width = SIZE

    def __init__(self) -> None:
        self.asked: list[int] = []

    def read(self, *, max_side_px: int | None = None, indices: Any = ()) -> Any:
        for index in indices:
            self.asked.append(index)
            yield Frame(index, index / 10, picture(index), 1.0)


def clip_of(start: int, end: int, number: int = 0, context: int = 0) -> ClipInput:
    clip = {
        "video_id": "v",
        "shard": "s",
        "clip_id": f"v-{number:04d}",
        "take_id": "t",
        "index_in_take": number,
        "start_frame": start,
        "end_frame": end,
        "start_pts_s": start / 10,
        "end_pts_s": end / 10,
        "context_frames": context,
    }
    return ClipInput(clip, {}, Noise(), Intrinsics("PINHOLE", 100, 100, 60, 45))


def through_a_file(carried: Carried) -> Carried:
    """As the lake stores it: JSON values and arrays without pickling."""
    arrays = {k: v for k, v in carried.items() if isinstance(v, np.ndarray)}
    plain = json.dumps({k: v for k, v in carried.items() if k not in arrays})
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    buffer.seek(0)
    return json.loads(plain) | dict(np.load(buffer, allow_pickle=False))
