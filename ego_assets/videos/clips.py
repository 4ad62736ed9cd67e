"""Clips of a video: scenes, and takes of overlapping clips where a scene is long.

Here: scenes that are too short, the split by length. Not here: where the cuts are (`cuts`), and the
transitions (`transitions`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence, Set
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ego_assets.media.damage.spoilt import Stretch, stretches
from ego_assets.media.frame_index import FrameIndex, index_frames
from ego_assets.models.weights import weights_root
from ego_assets.operator import BadInputError, ClipOutput
from ego_assets.videos.cuts import find_cuts
from ego_assets.videos.settings import ClipSettings
from ego_assets.videos.transitions.gradual import Network, Transition, find_transitions
from resources.raw.limits import BYTES_IN_FLIGHT


class Boundary(NamedTuple):
    """Between two scenes: one past the last frame of the first, and the first frame of the second.

    At a cut they are the same; the frames of a transition lie between and belong to no clip.
    """

    end: int
    start: int


def boundaries(
    cuts: Sequence[int], transitions: Sequence[Transition], holes: Sequence[Stretch] = ()
) -> list[Boundary]:
    """Return all boundaries in order. A cut inside a transition or a hole is part of it.

    holes: stretches of damaged frames that nothing can be followed across.
    """
    gaps = [(t.first, t.last + 1) for t in transitions]
    for hole in holes:  # a transition cannot be told where there are no pictures
        touched = [g for g in gaps if g[0] <= hole[1] and hole[0] <= g[1]]
        gaps = [g for g in gaps if g not in touched]
        gaps.append((min(g[0] for g in (*touched, hole)), max(g[1] for g in (*touched, hole))))
    inside = {c for c in cuts for start, end in gaps if start - 1 <= c <= end}
    return sorted(
        [Boundary(cut, cut) for cut in cuts if cut not in inside]
        + [Boundary(start, end) for start, end in gaps]
    )


def merge_short_scenes(
    found: Sequence[Boundary], pts_s: np.ndarray, min_scene_s: float
) -> list[Boundary]:
    """Drop boundaries so that no scene is shorter than `min_scene_s`.

    A scene that is joins the next one across a cut, else the one before it. Between transitions, or
    one and an edge of the video, it counts as part of them; but a video that has only such scenes
    keeps them. pts_s: (F,) time of every frame.
    """
    first, last = Boundary(0, 0), Boundary(len(pts_s), len(pts_s))
    kept = [first]
    for boundary in [*found, last]:
        begins, ends = (min(f, len(pts_s) - 1) for f in (kept[-1].start, boundary.end))
        is_short = pts_s[ends] - pts_s[begins] < min_scene_s
        if not is_short or (kept[-1], boundary) == (first, last):
            kept.append(boundary)
        elif boundary != last and boundary.end == boundary.start:
            continue
        elif kept[-1] != first and kept[-1].end == kept[-1].start:
            kept[-1] = boundary
        else:
            kept[-1] = Boundary(kept[-1].end, boundary.start)
    if kept == [Boundary(0, len(pts_s))]:
        return [boundary for boundary in found if boundary.end != boundary.start]
    return [boundary for boundary in kept if boundary not in (first, last)]


def split_scenes(
    found: Sequence[Boundary],
    pts_s: np.ndarray,
    duration_s: float,
    settings: ClipSettings,
    holes: Sequence[Stretch] = (),
    damaged: Set[int] = frozenset(),
) -> list[dict[str, Any]]:
    """Clips of a video as partial rows of `clips`.

    Scenes longer than `max_clip_s` are split into equal stretches; each but the first of its take
    begins `overlap_s` earlier, with frames that the clip before it has too. A clip is therefore
    at most `max_clip_s + overlap_s` long. Nothing overlaps across a cut. Where all frames of a clip
    are `damaged` there is none, and another take begins behind it.
    """
    times = pts_s.tolist()
    edges = [Boundary(0, 0), *found, Boundary(len(times), len(times))]
    scenes = [(a, b) for a, b in pairwise(edges) if a.start < b.end]
    clips: list[dict[str, Any]] = []
    take = -1
    for before, behind in scenes:
        first, last = before.start, behind.end
        scene_end_s = times[last] if last < len(times) else duration_s
        length_s = scene_end_s - times[first]
        count = min(max(1, math.ceil(length_s / settings.max_clip_s - 1e-9)), last - first)
        inner = [bisect_left(times, times[first] + k * length_s / count) for k in range(1, count)]
        bounds = sorted({first, last, *(b for b in inner if first < b < last)})
        position, is_behind_damage = 0, False
        for start, end in pairwise(bounds):
            context_start = start
            if position:
                context_start = max(first, bisect_left(times, times[start] - settings.overlap_s))
            if all(frame in damaged for frame in range(context_start, end)):
                position, is_behind_damage = 0, True
                continue
            take += not position
            reason = "cut" if before.end == before.start else "transition"
            is_hole = any(before.end <= hole[0] and hole[1] <= before.start for hole in holes)
            if is_hole or is_behind_damage:
                reason = "damage"
            reason = "length" if position else (reason if start else "start")
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
            position += 1
    return clips


class ClipSplitter:
    """An accepted video → its rows of `clips`.

    Cuts by the colours of neighbouring frames; gradual transitions by a network that is shown the
    stretches that look like one. It is loaded when it is first asked: most takes need none.
    """

    name = "transnet"
    version = "5"
    quality_tier = "learned"
    weights_hash = ""

    def __init__(self, settings: ClipSettings, root: Path | None = None) -> None:
        """root: the folder of all weights, if not the machine's."""
        self.settings = settings
        self._root = root or weights_root()

    @cached_property
    def _net(self) -> Network:
        from ego_assets.videos.transitions.transnet import TransNet

        return TransNet(self._root)

    @staticmethod
    def check(settings: ClipSettings, root: Path) -> str:
        """Return what the weights are, once they have been read. Raises WeightsError."""
        from ego_assets.videos.transitions.transnet import TransNet

        TransNet(root)
        return "TransNet V2"

    def process(
        self,
        video: Mapping[str, Any],
        path: Path,
        max_bytes_in_flight: int,
        beside: Mapping[str, Path | None],
    ) -> ClipOutput:
        """As `VideoOperator`."""
        return ClipOutput(tables={"clips": self.split(video, path, max_bytes_in_flight)})

    def split(
        self, video: Mapping[str, Any], path: Path, max_bytes_in_flight: int = BYTES_IN_FLIGHT
    ) -> list[dict[str, Any]]:
        """Rows of `clips` of a row of `video_manifest`. Raises BadInputError."""
        stream = video.get("video_stream_index")
        index = index_frames(path, stream)
        found = find_cuts(path, self.settings, max_bytes_in_flight, stream)
        transitions = find_transitions(
            path,
            found.thumbs,
            index.pts_s,
            lambda frames: self._net(frames),
            max_bytes_in_flight,
            index.stream_index,
        )
        holes = self._holes(found.damaged, index)
        damaged = found.damaged
        scenes = self._scenes(boundaries(found.cuts, transitions, holes), index, holes, damaged)
        # A transition lies between scenes: where there would be none, it was something else.
        scenes = scenes or self._scenes(boundaries(found.cuts, [], holes), index, holes, damaged)
        if not scenes:
            raise BadInputError(f"{path}: all of its {len(index)} pictures are damaged")
        rows = []
        began_s = video.get("recording_start_s")
        megapixels = index.width * index.height / 1e6
        for number, clip in enumerate(scenes):
            take = clip.pop("take")
            if clip["split_reason"] == "start" and video.get("chapter_index"):
                clip["split_reason"] = "chapter"
            inside = range(clip["start_frame"], clip["end_frame"])
            spoilt = stretches(damaged.intersection(inside))
            rows.append(
                {
                    "video_id": video["video_id"],
                    "shard": video["shard"],
                    "clip_id": f"{video['video_id']}-{number:04d}",
                    "clip_index": number,
                    "take_id": f"{video['video_id']}-t{take:03d}",
                    "estimated_cost": megapixels * len(inside),
                    "damaged_frames": [list(each) for each in spoilt] or None,
                    "recording_id": video.get("recording_id"),
                    "recording_start_s": None if began_s is None else began_s + clip["start_pts_s"],
                    **clip,
                }
            )
        return rows

    def _holes(self, damaged: set[int], index: FrameIndex) -> list[Stretch]:
        """Return the stretches of damage that are longer than what clips of a take share."""
        ends_s = np.append(index.pts_s, index.duration_s)
        return [
            (start, end)
            for start, end in stretches(damaged)
            if ends_s[end] - ends_s[start] > self.settings.overlap_s
        ]

    def _scenes(
        self,
        edges: Sequence[Boundary],
        index: FrameIndex,
        holes: Sequence[Stretch],
        damaged: Set[int],
    ) -> list[dict[str, Any]]:
        kept = merge_short_scenes(edges, index.pts_s, self.settings.min_scene_s)
        times, end_s = index.pts_s, index.duration_s
        return split_scenes(kept, times, end_s, self.settings, holes, damaged)
