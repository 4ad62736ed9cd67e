"""Where a video is cut: PySceneDetect's detectors, fast, and the confirmation of what they propose.

Here: scores of frames, the decision of the detectors, which stretches of a video can do without
decoding. Not here: what is made of the cuts (`clips`), decoding (`decode`).

**Proposals.** PySceneDetect turns every frame into BGR, shrinks it to 256 pixels by looking at
four pixels for each that is left, and compares hue, saturation and value with the frame before.
Converting the picture costs more than all the rest, so each frame gets a *glance* first: a score of
the same kind from a few pixels. Only where the glance is not far below what a cut needs is the
frame *looked* at, with the very pixels and the very arithmetic of PySceneDetect 0.7
(`ContentDetector`, `AdaptiveDetector`), and only that score decides.

**Confirmation.** A content detector measures how much the pixels change from frame to frame; a
fast hand or a low frame rate changes many too. A real cut changes the colours of the whole picture
as well, so a proposal counts only if the colour histograms before and after it are far apart.

The fast search decodes only where the compressed stream hints at a cut (`packets`).
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from ego_assets.media.containers import libav_says, unless_of_storage
from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import FrameIndex, index_frames
from ego_assets.operator import BadInputError
from ego_assets.videos.glances import distance, fit, glance, histogram
from ego_assets.videos.packets import NoShortcutError, suspect_stretches
from ego_assets.videos.settings import ClipSettings
from ego_assets.videos.transitions.gradual import thumb
from resources.raw.limits import BYTES_IN_FLIGHT

LOOK_SIDE_PX = 256
GLANCE_SHARE, GLANCE_SLACK = 0.6, 1.0
"""A frame is looked at if its glance reaches this share of the limit, less the slack.

Glances lay between 0.90 and 1.22 of the true score in all test videos (scores above 4)."""
ADAPTIVE_WINDOW = 2
ADAPTIVE_MIN_SCORE = 15.0
ADAPTIVE_MAX_RATIO = 255.0

log = logging.getLogger(__name__)


@dataclass
class FoundCuts:
    """Cuts are given as the index of the first frame of each scene but the first, in order.

    proposed: by the detector; those of the exact search are PySceneDetect's, the fast search
    proposes only where it decodes. cuts: proposals confirmed by colour. thumbs: of the frames that
    were decoded, by index, if they were asked for. damaged: frames that are not to be trusted, as
    far as was decoded: they are compared with nothing, so that the edges of a hole are a cut only
    where the pictures on its two sides are two scenes.
    decoded_frames: how many frames were decoded in full. fallback: why the fast search decoded
    everything; None if it did not, or was not asked for.
    """

    proposed: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    thumbs: dict[int, np.ndarray] = field(default_factory=dict, compare=False)
    damaged: set[int] = field(default_factory=set)
    decoded_frames: int = 0
    fallback: str | None = None


def find_cuts(
    path: Path,
    settings: ClipSettings,
    max_bytes_in_flight: int = BYTES_IN_FLIGHT,
    stream_index: int | None = None,
) -> FoundCuts:
    """Cuts of a video. Raises BadInputError if it does not decode."""
    index = index_frames(path, stream_index)
    reason = None
    if settings.search == "fast":
        try:
            stretches = suspect_stretches(path, index, settings)
            return _search(path, index, settings, stretches, max_bytes_in_flight)
        except (NoShortcutError, BadInputError) as error:
            reason = str(error)
            log.info("%s: every frame is decoded: %s", path, reason)
    whole = [(0, len(index) - 1)]
    found = _search(path, index, settings, whole, max_bytes_in_flight)
    found.fallback = reason
    return found


# -- a stretch, frame by frame -------------------------------------------------------------------


def _search(
    path: Path,
    index: FrameIndex,
    settings: ClipSettings,
    stretches: list[tuple[int, int]],
    max_bytes_in_flight: int,
) -> FoundCuts:
    """The cuts at frames first + 1 to last of each stretch (first, last)."""
    found = FoundCuts(damaged=set(index.spoilt))
    try:
        _search_into(found, path, index, settings, stretches, max_bytes_in_flight)
    except av.error.OSError as error:  # libav, of a picture whose matrix it lacks
        unless_of_storage(error, path)
        words = f"a picture cannot be converted: {libav_says(error)}"
        raise BadInputError(f"{path}: {words}") from error
    return found


def _search_into(
    found: FoundCuts,
    path: Path,
    index: FrameIndex,
    settings: ClipSettings,
    stretches: list[tuple[int, int]],
    max_bytes_in_flight: int,
) -> None:
    for first, last in stretches:
        detector = (
            _PySceneDetect(settings)
            if settings.search == "pyscenedetect"
            else _DETECTORS[settings.detector](settings)
        )
        start = max(0, first + 1 - detector.frames_before)
        end = min(len(index), last + 1 + detector.frames_after)
        frames = ClipFrames(path, start, end, max_bytes_in_flight, stream_index=index.stream_index)
        for before, at in detector.propose(_see(frames, found)):
            if first < at.index <= last:
                found.proposed.append(at.index)
                if distance(before.histogram, at.histogram) >= settings.min_histogram_distance:
                    found.cuts.append(at.index)
        found.damaged.update(frames.damaged)


def _see(frames: ClipFrames, found: FoundCuts) -> Iterator[_SeenFrame]:
    """All of `frames`, counted in `found`."""
    glancer = VideoReformatter()
    size: tuple[int, int] | None = None
    for number, picture in frames.read_pictures():
        size = size or (picture.width, picture.height)
        found.decoded_frames += 1
        if (picture.width, picture.height) == size:  # others cannot be compared
            turn = frames.index.rotation_deg
            small = glance(glancer, picture)
            found.thumbs[number] = thumb(small)
            yield _SeenFrame(number, picture, turn, small)


@dataclass
class _SeenFrame:
    """A decoded frame. What costs time is made when it is asked for."""

    index: int
    picture: Any
    rotation_deg: int
    glance: np.ndarray

    @cached_property
    def look(self) -> np.ndarray:
        """(h, w, 3) HSV of the pixels that PySceneDetect looks at, upright."""
        return cv2.cvtColor(self.pixels(), cv2.COLOR_BGR2HSV)

    def pixels(self) -> np.ndarray:
        """The same in BGR."""
        # OpenCV's reader, too, upsamples chroma bicubically and takes every video for BT.601.
        shown = self.picture.reformat(format="bgr24", interpolation="BICUBIC")
        full: np.ndarray = shown.to_ndarray()
        if self.rotation_deg:
            full = np.ascontiguousarray(np.rot90(full, -self.rotation_deg // 90))
        height, width = full.shape[:2]
        size = fit(width, height, LOOK_SIDE_PX)
        if size != (width, height):
            full = cv2.resize(full, size, interpolation=cv2.INTER_LINEAR)
        return full

    @cached_property
    def histogram(self) -> np.ndarray:
        return histogram(self.look)


def _score(before: np.ndarray, after: np.ndarray) -> float:
    """Mean change of hue, saturation and value: PySceneDetect's content score."""
    pixels = float(before.shape[0] * before.shape[1])
    hue, saturation, value, _ = cv2.sumElems(cv2.absdiff(before, after))
    return (hue / pixels + saturation / pixels + value / pixels) / 3.0


def _worth_a_look(before: _SeenFrame, after: _SeenFrame, limit: float) -> bool:
    return _score(before.glance, after.glance) >= GLANCE_SHARE * limit - GLANCE_SLACK


class _Content:
    """A cut is where the score reaches the threshold."""

    frames_before, frames_after = 1, 0

    def __init__(self, settings: ClipSettings) -> None:
        # Below PySceneDetect's own 27: two scenes lit alike lie under it, and false alarms fall to
        # the histogram.
        self.threshold = 20.0 if settings.threshold is None else settings.threshold

    def propose(self, frames: Iterable[_SeenFrame]) -> Iterator[tuple[_SeenFrame, _SeenFrame]]:
        """Pairs of the last frame of a scene and the first of the next."""
        before = None
        for at in frames:
            if (
                before is not None
                and _worth_a_look(before, at, self.threshold)
                and _score(before.look, at.look) >= self.threshold
            ):
                yield before, at
            before = at


class _Adaptive:
    """A cut is where the score stands out from the scores around it."""

    frames_before, frames_after = ADAPTIVE_WINDOW + 1, ADAPTIVE_WINDOW

    def __init__(self, settings: ClipSettings) -> None:
        self.threshold = 3.0 if settings.threshold is None else settings.threshold

    def propose(self, frames: Iterable[_SeenFrame]) -> Iterator[tuple[_SeenFrame, _SeenFrame]]:
        """Pairs of the last frame of a scene and the first of the next."""
        window: deque[_SeenFrame] = deque(maxlen=2 * ADAPTIVE_WINDOW + 2)
        for frame in frames:
            if not window:
                window.append(frame)  # the first frame's score is that of no change
            window.append(frame)
            if len(window) == window.maxlen and self._stands_out(list(window)):
                yield window[ADAPTIVE_WINDOW], window[ADAPTIVE_WINDOW + 1]

    def _stands_out(self, window: list[_SeenFrame]) -> bool:
        before, at = window[ADAPTIVE_WINDOW], window[ADAPTIVE_WINDOW + 1]
        if not _worth_a_look(before, at, ADAPTIVE_MIN_SCORE):
            return False
        score = _score(before.look, at.look)
        if score < ADAPTIVE_MIN_SCORE:
            return False
        pairs = list(itertools.pairwise(window))
        del pairs[ADAPTIVE_WINDOW]
        around = sum(_score(a.look, b.look) for a, b in pairs) / (2.0 * ADAPTIVE_WINDOW)
        ratio = ADAPTIVE_MAX_RATIO if around < 1e-5 else min(score / around, ADAPTIVE_MAX_RATIO)
        return ratio >= self.threshold


class _PySceneDetect:
    """The library's own detectors: every frame is looked at."""

    frames_before, frames_after = 1, 0

    def __init__(self, settings: ClipSettings) -> None:
        from scenedetect import AdaptiveDetector, ContentDetector

        given = _DETECTORS[settings.detector](settings).threshold
        self.detector: Any = (
            ContentDetector(threshold=given, min_scene_len=0)
            if settings.detector == "content"
            else AdaptiveDetector(adaptive_threshold=given, min_scene_len=0)
        )

    def propose(self, frames: Iterable[_SeenFrame]) -> Iterator[tuple[_SeenFrame, _SeenFrame]]:
        """Pairs of the last frame of a scene and the first of the next."""
        from scenedetect import FrameTimecode

        recent: deque[_SeenFrame] = deque(maxlen=2 * ADAPTIVE_WINDOW + 2)
        for frame in frames:
            recent.append(frame)
            # Detectors count frames: a rate is asked for, and has no meaning here.
            found = self.detector.process_frame(
                FrameTimecode(frame.index, fps=30.0), frame.pixels()
            )
            for cut in found:
                for before, at in itertools.pairwise(recent):
                    if at.index == cut.frame_num:
                        yield before, at


_DETECTORS: dict[str, type[_Content] | type[_Adaptive]] = {
    "content": _Content,
    "adaptive": _Adaptive,
}
