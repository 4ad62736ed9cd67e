"""Which stretches of a video may hold a cut, by its compressed stream.

Here: sizes of packets, colours of keyframes. Not here: finding the cuts (`cuts`).

A cut leaves traces in the compressed stream. Either its first frame cannot be
predicted from what came before, so that its packet is about as large as a keyframe's; or it is a
keyframe, and then the keyframe before it shows other colours. Between two keyframes of like
colours without a large packet in between, nothing is decoded (`suspect_stretches`); a scene that
comes and goes between them needs a large packet to come, to go, or both. Every other stretch is
decoded and scored as in the exact search.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from ego_assets.media.containers import libav_says
from ego_assets.media.frame_index import FrameIndex, keyframe_pictures
from ego_assets.videos.glances import distance, glance, histogram
from ego_assets.videos.settings import ClipSettings

LARGE_SHARE = 0.45
"""A packet of this share of the smaller neighbouring keyframe may be a scene's first frame.

Where colours said nothing, the largest packet of a GOP with a cut had 0.67 or more."""
SPIKE_SHARE, SPIKE_FACTOR, SPIKE_FRAMES = 0.25, 1.5, 10
"""So may be a smaller one that stands out from those around it ..."""
COLLAPSE_FACTOR, COLLAPSE_FRAMES = 8, 8
"""... and where packets become so much smaller, a scene without detail. Encoders with 16 reference
frames make both needed: they predict the end of a short scene from before it."""
MIN_GOP_FRAMES = 6
MAX_SUSPECT_SHARE = 0.7
SPARSE_CODECS = frozenset({"h264", "hevc"})


class NoShortcutError(Exception):
    """Says why the compressed stream is no evidence."""


def suspect_stretches(
    path: Path, index: FrameIndex, settings: ClipSettings
) -> list[tuple[int, int]]:
    """Stretches (first, last) with a cut possibly at one of the frames first + 1 to last.

    Sorted and apart. What follows the last keyframe is always among them: no keyframe behind it
    vouches for its colours. Raises NoShortcutError if the stream is no evidence.
    """
    keys = _trusted_keyframes(index)
    suspect = np.array([_packets_hint(index, a, b) for a, b in itertools.pairwise(keys)])
    lengths = np.diff(keys)
    if lengths[suspect].sum() > MAX_SUSPECT_SHARE * len(index):
        raise NoShortcutError("packets hint at cuts all over the video")
    histograms = _keyframe_histograms(path, index, keys)
    limit = settings.min_histogram_distance / 2
    for number, (before, after) in enumerate(itertools.pairwise(histograms)):
        suspect[number] |= distance(before, after) >= limit
    edges = [*itertools.pairwise(keys), (keys[-1], len(index) - 1)]
    stretches: list[tuple[int, int]] = []
    for (first, last), is_suspect in zip(edges, [*suspect, True], strict=True):
        if stretches and stretches[-1][1] == first and is_suspect:
            stretches[-1] = (stretches[-1][0], last)
        elif is_suspect:
            stretches.append((first, last))
    return stretches


def _trusted_keyframes(index: FrameIndex) -> list[int]:
    """Frames that are keyframes; or NoShortcutError."""
    if index.codec not in SPARSE_CODECS:
        # AV1 and VP9 carry hidden pictures and look far back: sizes tell nothing of a frame.
        raise NoShortcutError(f"packet sizes of {index.codec} are no evidence")
    keys = np.flatnonzero(np.isin(index.pts, index.keyframe_pts)).tolist()
    if keys[0] != 0 or len(keys) < 2 or len(index) < MIN_GOP_FRAMES * len(keys):
        raise NoShortcutError(f"{len(keys)} usable keyframes in {len(index)} frames")
    if index.packet_bytes.min() <= 0:
        raise NoShortcutError("packets without a size")
    return keys


def _packets_hint(index: FrameIndex, key: int, next_key: int) -> bool:
    """Whether a scene may begin between two keyframes, by the sizes of the packets."""
    sizes = index.packet_bytes[key + 1 : next_key]
    scale = min(index.packet_bytes[key], index.packet_bytes[next_key])
    if not len(sizes):
        return False
    if sizes.max() >= LARGE_SHARE * scale or _packets_collapse(sizes):
        return True
    for place in np.flatnonzero(sizes >= SPIKE_SHARE * scale):
        around = sizes[max(0, place - SPIKE_FRAMES) : place + SPIKE_FRAMES + 1]
        if len(around) > 1 and sizes[place] >= SPIKE_FACTOR * np.partition(around, -2)[-2]:
            return True
    return False


def _packets_collapse(sizes: np.ndarray) -> bool:
    """Whether the usual size falls far at once."""
    if len(sizes) < 2 * COLLAPSE_FRAMES:
        return False
    usual = np.median(np.lib.stride_tricks.sliding_window_view(sizes, COLLAPSE_FRAMES), axis=1)
    before, after = usual[:-COLLAPSE_FRAMES], usual[COLLAPSE_FRAMES:]
    return bool((COLLAPSE_FACTOR * after < before).any())


def _keyframe_histograms(path: Path, index: FrameIndex, keys: list[int]) -> list[np.ndarray]:
    glancer = VideoReformatter()
    found: dict[int, np.ndarray] = {}
    try:
        for number, picture in keyframe_pictures(path, index):
            if picture.is_corrupt:
                raise NoShortcutError("a damaged keyframe")
            small = glance(glancer, picture)
            found[number] = histogram(small)
    except av.FFmpegError as error:
        raise NoShortcutError(f"damaged: {libav_says(error)}") from error
    if sorted(found) != keys:
        raise NoShortcutError(f"{len(keys) - len(found)} keyframes do not decode")
    return [found[key] for key in keys]
