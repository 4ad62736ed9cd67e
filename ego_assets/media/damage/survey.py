"""What is damaged or missing of a file, for its row of the manifest."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from ego_assets.media import progress
from ego_assets.media.containers import unless_of_storage
from ego_assets.media.damage.cut_off import Promise
from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import FrameIndex
from ego_assets.operator import BadInputError

REORDERED = 16
"""So many pictures at the end of a cut-off file may be stored ahead of ones that are gone."""


def damage_around(path: Path, index: FrameIndex, hints: Iterable[int]) -> set[int]:
    """Frames that are not to be trusted, from the keyframes before damage to the next ones.

    hints: frames that are known to be damaged besides those that the packets tell of. Nothing is
    decoded of a file without any.
    """
    found = set(index.spoilt)
    damaged = np.array(sorted(found.union(hints)), np.int64)
    keys = np.flatnonzero(np.isin(index.pts, index.keyframe_pts)).tolist()
    for start, end in pairwise(sorted({0, *keys, len(index)})):
        if not ((start <= damaged) & (damaged < end)).any():
            continue
        source = ClipFrames(path, start, end, stream_index=index.stream_index)
        try:
            for _ in source.read_pictures():
                progress.moved()
        except (BadInputError, av.FFmpegError) as error:
            unless_of_storage(error, path)
        found.update(source.damaged)
    return found


def true_steps(index: FrameIndex, cut_off: bool) -> np.ndarray:
    """Intervals between frames, without those in which damage has left frames out."""
    steps = np.diff(index.pts)
    spoilt = np.isin(np.arange(len(index)), list(index.spoilt))
    true = steps[~(spoilt[1:] | spoilt[:-1])]
    return true[: max(2, len(true) - REORDERED)] if cut_off else true


def missing_of(index: FrameIndex, promise: Promise) -> tuple[int | None, float | None]:
    """(frames that a cut-off file promised, seconds that are missing); None: less than a frame, or
    it does not say."""
    steps = np.diff(index.pts)
    step_s = float(np.median(steps) * index.time_base) if len(steps) else index.duration_s
    start_s = float(index.pts[0] * index.time_base)
    frames = max(0, promise.frames - index.stored) if promise.frames else None
    seconds = max(0.0, (promise.seconds or 0.0) - max(start_s, 0.0) - index.duration_s)
    if frames is not None:
        seconds = max(seconds, frames * step_s) if frames else 0.0
    if not frames and seconds < step_s:
        return None, None
    return (None if frames is None else len(index) + frames), seconds
