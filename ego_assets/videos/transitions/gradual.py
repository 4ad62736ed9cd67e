"""Gradual transitions: cross-fades and fades, from cheap evidence and a network's second opinion.

Here: which stretches may hold a transition, and which frames the network says are part of one. Not
here: the network (`transnet`), hard cuts (`cuts`).

In a cross-fade each picture is a blend of the one before it and the one behind it, pixel by pixel;
in a fade one of the two is a single colour. Motion does not do that, and a change of exposure
blends two pictures of the same scene. What looks like a blend in pictures of 144 pixels is shown to
the network, so a take without any costs nothing but the comparison of those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ego_assets.arrays import runs_of_true
from ego_assets.media.decode import ClipFrames
from ego_assets.videos.transitions.transnet import HEIGHT_PX, WIDTH_PX, WINDOW

Network = Callable[[np.ndarray], np.ndarray]
"""(F, 27, 48, 3) uint8 RGB to (F,) probabilities, see `transnet.TransNet`."""
THUMB_SIZE = (16, 9)
_HALF_SPANS_S = (0.2, 0.4, 0.8)
"""A picture is compared with those so far before and behind it."""
_MIN_CHANGE = 10.0
"""RMS, grey levels, between the two ends: less is no other scene."""
_BLEND = (0.15, 0.85)
_MAX_RESIDUAL = 0.3
"""What no blend explains, over the change between the ends; motion leaves 0.6 and more."""
_MAX_LIKENESS = 0.5
"""Correlation of the two ends: more is the same scene in another light."""
_MIN_CONTRAST = 6.0
"""Standard deviation, grey levels, below which a picture is of one colour."""
_SURE, _PART = 0.5, 0.25
"""Probability that a transition reaches, and that its frames have."""
_MIN_FRAMES = 3
_CHUNK = 4096


@dataclass(frozen=True)
class Transition:
    """Frames `first` to `last`, which belong to neither scene."""

    first: int
    last: int


def thumb(hsv: np.ndarray) -> np.ndarray:
    """Return (9, 16) uint8 brightness of a small HSV picture."""
    return cv2.resize(hsv[..., 2], THUMB_SIZE, interpolation=cv2.INTER_AREA)


def find_transitions(
    path: Path,
    thumbs: Mapping[int, np.ndarray],
    pts_s: np.ndarray,
    network: Network,
    max_bytes_in_flight: int,
    stream_index: int | None = None,
) -> list[Transition]:
    """Return the gradual transitions of a video, in order.

    thumbs: of the frames that were seen, by index; pts_s: (F,) of all; stream_index: of the video
    stream in its file. Raises BadInputError.
    """
    found: list[Transition] = []
    for first, last in suspects(thumbs, pts_s):
        start, end = max(0, first - WINDOW // 4), min(len(pts_s), last + 1 + WINDOW // 4)
        indices, pictures = [], []
        frames = ClipFrames(path, start, end, max_bytes_in_flight, stream_index=stream_index)
        for frame in frames.read(max_side_px=256):
            indices.append(frame.index)
            size = (WIDTH_PX, HEIGHT_PX)
            pictures.append(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA))
        if len(pictures) >= _MIN_FRAMES:
            found += _transitions(np.array(indices), network(np.stack(pictures)))
    return _apart(found)


def _transitions(indices: np.ndarray, likely: np.ndarray) -> list[Transition]:
    """Return stretches of frames that are part of a transition, the surest of which surely is."""
    return [
        Transition(int(indices[start]), int(indices[end - 1]))
        for start, end in runs_of_true(likely >= _PART)
        if end - start >= _MIN_FRAMES and likely[start:end].max() >= _SURE
    ]


def _apart(found: list[Transition]) -> list[Transition]:
    """Join those that overlap."""
    kept: list[Transition] = []
    for each in sorted(found, key=lambda t: t.first):
        if kept and each.first <= kept[-1].last + 1:
            kept[-1] = Transition(kept[-1].first, max(kept[-1].last, each.last))
        else:
            kept.append(each)
    return kept


def suspects(thumbs: Mapping[int, np.ndarray], pts_s: np.ndarray) -> list[tuple[int, int]]:
    """Return stretches (first, last) of frames that look like a blend of their surroundings."""
    indices = np.array(sorted(thumbs), np.int64)
    if len(indices) < _MIN_FRAMES:
        return []
    pictures = np.stack([thumbs[i] for i in indices.tolist()]).reshape(len(indices), -1)
    step_s = float(np.median(np.diff(pts_s))) if len(pts_s) > 1 else 0.0
    is_blend = np.zeros(len(indices), bool)
    for span_s in _HALF_SPANS_S:
        half = max(2, round(span_s / step_s)) if step_s > 0 else 2
        # Where the fast search left frames out, neighbours here are none in the video.
        whole = indices[2 * half :] - indices[: -2 * half] == 2 * half
        for start in range(0, len(whole), _CHUNK):
            part = pictures[start : start + _CHUNK + 2 * half].astype(np.float32)
            good = _blends(part, half) & whole[start : start + _CHUNK]
            is_blend[start + half : start + half + len(good)] |= good
    stretches: list[tuple[int, int]] = []
    for frame in indices[is_blend].tolist():
        if stretches and frame - stretches[-1][1] <= WINDOW // 4:
            stretches[-1] = (stretches[-1][0], frame)
        else:
            stretches.append((frame, frame))
    return stretches


def _blends(pictures: np.ndarray, half: int) -> np.ndarray:
    """Return whether each picture but the first and last `half` is a blend of those `half` before
    and behind it: (F - 2 half,) bool of (F, P) grey levels."""
    before, at, behind = pictures[: -2 * half], pictures[half:-half], pictures[2 * half :]
    change = behind - before
    power = np.maximum((change**2).sum(axis=1), 1e-6)
    share = ((at - before) * change).sum(axis=1) / power
    rest = at - before - share[:, None] * change
    residual = np.sqrt((rest**2).sum(axis=1) / power)
    contrast = [p.std(axis=1) for p in (before, behind)]
    likeness = (
        (before - before.mean(axis=1, keepdims=True))
        * (behind - behind.mean(axis=1, keepdims=True))
    ).mean(axis=1) / np.maximum(contrast[0] * contrast[1], 1e-6)
    is_other = (likeness < _MAX_LIKENESS) | (np.minimum(*contrast) < _MIN_CONTRAST)
    is_between = (share > _BLEND[0]) & (share < _BLEND[1])
    is_change = np.sqrt(power / pictures.shape[1]) > _MIN_CHANGE
    return np.asarray(is_other & is_between & is_change & (residual < _MAX_RESIDUAL))
