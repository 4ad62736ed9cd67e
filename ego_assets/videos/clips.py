"""Clips of a video: scenes, and takes of overlapping clips where a scene is long.

Here: scenes that are too short, the split by length. Not here: where the cuts are (`cuts`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.media.frame_index import index_frames
from ego_assets.videos.cuts import find_cuts
from ego_assets.videos.settings import ClipSettings
from resources.raw.limits import BYTES_IN_FLIGHT


def merge_short_scenes(cuts: Sequence[int], pts_s: np.ndarray, min_scene_s: float) -> list[int]:
    """Drop the cut that ends a scene shorter than `min_scene_s`: the scene joins the next one.

    The last scene joins the one before it. pts_s: (F,) time of every frame.
    """
    kept: list[int] = []
    for cut in cuts:
        start = kept[-1] if kept else 0
        if pts_s[cut] - pts_s[start] >= min_scene_s:
            kept.append(cut)
    if kept and pts_s[-1] - pts_s[kept[-1]] < min_scene_s:
        kept.pop()
    return kept


def split_scenes(
    cuts: Sequence[int], pts_s: np.ndarray, duration_s: float, settings: ClipSettings
) -> list[dict[str, Any]]:
    """Clips of a video as partial rows of `clips`.

    Scenes longer than `max_clip_s` are split into equal stretches; each but the first of its take
    begins `overlap_s` earlier, with frames that the clip before it has too. A clip is therefore
    at most `max_clip_s + overlap_s` long. Nothing overlaps across a cut.
    """
    times = pts_s.tolist()
    edges = [0, *cuts, len(times)]
    clips: list[dict[str, Any]] = []
    for take, (first, last) in enumerate(pairwise(edges)):
        scene_end_s = times[last] if last < len(times) else duration_s
        length_s = scene_end_s - times[first]
        count = min(max(1, math.ceil(length_s / settings.max_clip_s - 1e-9)), last - first)
        inner = [bisect_left(times, times[first] + k * length_s / count) for k in range(1, count)]
        bounds = sorted({first, last, *(b for b in inner if first < b < last)})
        for position, (start, end) in enumerate(pairwise(bounds)):
            context_start = start
            if position:
                context_start = max(first, bisect_left(times, times[start] - settings.overlap_s))
            reason = "length" if position else ("cut" if take else "start")
            clips.append(
                {
                    "take": take,
                    "index_in_take": position,
                    "start_frame": context_start,
                    "end_frame": end,
                    "start_pts_s": times[context_start],
                    "end_pts_s": times[end] if end < len(times) else duration_s,
                    "context_frames": start - context_start,
                    "split_reason": reason,
                }
            )
    return clips


class ClipSplitter:
    """An accepted video → its rows of `clips`."""

    name = "pyscenedetect"
    version = "3"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: ClipSettings) -> None:
        self.settings = settings

    def split(
        self, video: Mapping[str, Any], path: Path, max_bytes_in_flight: int = BYTES_IN_FLIGHT
    ) -> list[dict[str, Any]]:
        """Rows of `clips` of a row of `video_manifest`. Raises BadInputError."""
        index = index_frames(path)
        cuts = find_cuts(path, self.settings, max_bytes_in_flight).cuts
        cuts = merge_short_scenes(cuts, index.pts_s, self.settings.min_scene_s)
        rows = []
        megapixels = index.width * index.height / 1e6
        scenes = split_scenes(cuts, index.pts_s, index.duration_s, self.settings)
        for number, clip in enumerate(scenes):
            take = clip.pop("take")
            rows.append(
                {
                    "video_id": video["video_id"],
                    "shard": video["shard"],
                    "clip_id": f"{video['video_id']}-{number:04d}",
                    "clip_index": number,
                    "take_id": f"{video['video_id']}-t{take:03d}",
                    "estimated_cost": megapixels * (clip["end_frame"] - clip["start_frame"]),
                    **clip,
                }
            )
        return rows
