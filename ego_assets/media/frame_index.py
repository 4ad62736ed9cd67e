"""The index of a video's frames, from demuxing alone.

Not here: pictures (`decode`), what a file is worth (`ego_assets.videos.inspection`).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from ego_assets.media import progress
from ego_assets.media.colour import UNTAGGED, Colours, colours_of
from ego_assets.media.containers import choose_video_stream, must_be_damage, open_media
from ego_assets.operator import BadInputError

ORDERED_PICTURES = 64
"""So many tell whether a stream's times are in order: more than any decoder holds back."""
PROGRESSIVE = "progressive"
FIELD_ORDERS = {1: PROGRESSIVE, 2: "tt", 3: "bb", 4: "tb", 5: "bt"}
"""libav's numbers, and ffprobe's names: the field that is stored first, and that shown first."""


@dataclass(frozen=True)
class FrameIndex:
    """Every coded frame of a video stream in presentation order, from demuxing alone.

    pts: (F,) int64 time stamps in units of time_base, strictly ascending;
    packet_bytes: (F,) int64 size of what is stored for each of them;
    keyframe_pts: (K,) time stamps at which decoding can begin; end_pts: end of the last frame;
    is_stored_in_order: whether packets lie in the file as their time stamps have it;
    colours: as the first picture says, or else the container; container_colours: what only the
    container says, for pictures that say nothing (what the first picture says too, libav may have
    from there); field_order: of `FIELD_ORDERS`, or `interlaced` where only the first picture tells,
    or None: not known.
    """

    stream_index: int
    codec: str
    time_base: Fraction
    pts: np.ndarray
    packet_bytes: np.ndarray
    keyframe_pts: np.ndarray
    end_pts: int
    rotation_deg: int
    width: int
    height: int
    is_stored_in_order: bool
    colours: Colours = UNTAGGED
    container_colours: Colours = UNTAGGED
    field_order: str | None = None

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def is_interlaced(self) -> bool:
        """Whether pictures may consist of two fields, each of its own moment, from the first on.

        In other videos later pictures still may: each says so.
        """
        return self.field_order not in (None, PROGRESSIVE)

    @cached_property
    def pts_s(self) -> np.ndarray:
        """(F,) seconds since the first frame."""
        seconds: np.ndarray = (self.pts - self.pts[0]) * float(self.time_base)
        return seconds

    @property
    def duration_s(self) -> float:
        """End of the last frame since the first."""
        return float((self.end_pts - int(self.pts[0])) * self.time_base)

    def nearest(self, pts: int) -> int | None:
        """Index of the frame with this time stamp, give or take half an interval; else None."""
        position = bisect_left(self.pts, pts)
        best = min(
            (p for p in (position - 1, position) if 0 <= p < len(self.pts)),
            key=lambda p: abs(int(self.pts[p]) - pts),
        )
        gap = self.end_pts - int(self.pts[0])
        half = max(1, gap // max(1, 2 * len(self.pts)))
        return best if abs(int(self.pts[best]) - pts) <= half else None


def index_frames(path: Path) -> FrameIndex:
    """Read every packet's time stamp. Raises BadInputError if there is no video in the file."""
    stat = path.stat()
    return _index_frames(path, stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns)


@lru_cache(maxsize=8)
def _index_frames(path: Path, *_state: int) -> FrameIndex:
    with open_media(path) as container:
        stream = choose_video_stream(container)
        if stream is None:
            raise BadInputError(f"{path}: no video stream")
        # Before anything is decoded: decoders write over it.
        colours = of_container = colours_of(stream.codec_context)
        order = FIELD_ORDERS.get(int(stream.codec_context.field_order))
        times, sizes, keys, end = _read_packets(path, container, stream)
        if not times:
            raise BadInputError(f"{path}: the video stream holds no frame")
        first = _first_picture(path, stream.index)
        rotation = 0 if first is None else round(-first.rotation / 90) * 90 % 360
        if first is not None:
            said = colours_of(first)
            colours, of_container = said.or_else(colours), colours.where_silent(said)
            if first.interlaced_frame and order in (None, PROGRESSIVE):
                order = "interlaced"
        width, height = stream.width, stream.height
        pts, frame = np.unique(np.array(times, dtype=np.int64), return_inverse=True)
        if rotation in (90, 270):
            width, height = height, width
        return FrameIndex(
            stream_index=stream.index,
            codec=stream.codec_context.codec.canonical_name,
            time_base=stream.time_base,
            pts=pts,
            packet_bytes=np.bincount(frame, weights=sizes).astype(np.int64),
            keyframe_pts=np.unique(np.array(keys or times[:1], dtype=np.int64)),
            end_pts=max(end, int(pts[-1]) + 1),
            rotation_deg=rotation,
            width=width,
            height=height,
            is_stored_in_order=times == sorted(times),
            colours=colours,
            container_colours=of_container,
            field_order=order,
        )


def _read_packets(
    path: Path, container: Any, stream: Any
) -> tuple[list[int], list[int], list[int], int]:
    """Times and sizes of the packets, times of the keyframes, end of the last one."""
    times: list[int] = []
    sizes: list[int] = []
    keys: list[int] = []
    end = 0
    step = _nominal_step(stream)
    try:
        for packet in container.demux(stream):
            progress.moved()
            if packet.size == 0 or packet.is_discard:
                continue
            at = packet.pts if packet.pts is not None else packet.dts
            if at is None:  # AVI and raw streams: counted
                at = times[-1] + step if times else 0
            times.append(at)
            sizes.append(packet.size)
            end = max(end, at + (packet.duration or step))
            if packet.is_keyframe:
                keys.append(at)
    except av.FFmpegError as error:
        must_be_damage(error, path)  # a damaged tail: what came before it is the video
    return times, sizes, keys, end


def _nominal_step(stream: Any) -> int:
    rate = stream.average_rate or stream.guessed_rate or Fraction(30)
    return max(1, round(1 / (rate * stream.time_base))) if stream.time_base else 1


def _first_picture(path: Path, stream_index: int) -> Any | None:
    """The first picture as it is stored, which says how it is to be shown; None: none decodes."""
    with open_media(path) as container:
        stream: Any = container.streams[stream_index]
        try:
            picture = next(container.decode(stream))
        except (av.FFmpegError, StopIteration) as error:
            must_be_damage(error, path)
            return None
        return picture


def has_times_of_decoding(path: Path, index: FrameIndex) -> bool:
    """Whether the time stamps say when a picture is decoded instead of when it is shown.

    So it is with B-frames in AVI, which has no room for other times: pictures come out of the
    decoder with times that go back. Raises BadInputError if the file does not open.
    """
    if not index.is_stored_in_order:
        return False
    with open_media(path) as container:
        stream: Any = container.streams[index.stream_index]
        if not stream.codec_context.has_b_frames:
            return False
        stream.thread_type = "AUTO"
        try:
            shown = [p.pts for p in islice(container.decode(stream), ORDERED_PICTURES)]
        except av.FFmpegError as error:
            must_be_damage(error, path)
            return False  # `probe` says what is wrong with it
    times = [t for t in shown if t is not None]
    return times != sorted(times)
