"""The index of a video's frames, from demuxing alone.

Here, too: the pictures of its keyframes, which are a glance at a video. Not here: other pictures
(`decode`), what a file is worth (`ego_assets.videos.inspection`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from ego_assets.media import progress
from ego_assets.media.colour import UNTAGGED, Colours, colours_of, convertible
from ego_assets.media.containers import choose_video_stream, must_be_damage, open_media
from ego_assets.media.damage.reference_chain import MAX_GAP_SHARE, PacketChain
from ego_assets.media.damage.spoilt import known_after, misplaced, spoilt_by
from ego_assets.media.damage.trial import looks_damaged_and_is_not
from ego_assets.operator import BadInputError

ORDERED_PICTURES = 64
"""So many tell whether a stream's times are in order: more than any decoder holds back."""
_CHUNK_HEADER = 8
"""Bytes, in an AVI."""
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
    or None: not known;
    order: (P,) int64 frame of every packet as stored; keys: (K,) int64 places in it of keyframes;
    broken: frames whose packets are not whole, or come after lost ones, as the packets show;
    stored: packets with those that an edit list hides; ends_inside: whether the file ends inside of
    a packet, which is left out.
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
    order: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    broken: frozenset[int] = frozenset()
    stored: int = 0
    ends_inside: bool = False

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

    def spoilt_by(self, frame: int) -> set[int]:
        """Frames that are not to be trusted if the packet of this one is damaged."""
        return spoilt_by(frame, self.order, self.keys)

    @cached_property
    def spoilt(self) -> frozenset[int]:
        """Frames that are not to be trusted, as the packets show; decoding may find others."""
        return frozenset().union(*(self.spoilt_by(frame) for frame in self.broken))

    @cached_property
    def known_after(self) -> np.ndarray:
        """(F,) the frame that has to be decoded before it is known whether one is to be trusted."""
        return known_after(self.order, self.keys, len(self))

    @cached_property
    def misplaced(self) -> frozenset[int]:
        """Frames whose time stamps are wrong, as the order of packets shows: when they are to be
        shown is not known."""
        return misplaced(self.order)

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


def index_frames(path: Path, stream_index: int | None = None) -> FrameIndex:
    """Read every packet's time stamp. Raises BadInputError if there is no video in the file.

    stream_index: of the stream, as the manifest has it; None: that of `choose_video_stream`.
    """
    stat = path.stat()
    state = (stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns)
    return _index_frames(path, stream_index, *state)


@lru_cache(maxsize=8)
def _index_frames(path: Path, stream_index: int | None, *_state: int) -> FrameIndex:
    with open_media(path) as container:
        stream = choose_video_stream(container, stream_index)
        if stream is None:
            raise BadInputError(f"{path}: no video stream")
        # Before anything is decoded: decoders write over it.
        colours = of_container = colours_of(stream.codec_context)
        order = FIELD_ORDERS.get(int(stream.codec_context.field_order))
        packets = _read_packets(path, container, stream)
        if not packets.times:
            raise BadInputError(f"{path}: the video stream holds no frame")
        first = _first_picture(path, stream.index)
        rotation = 0 if first is None else round(-first.rotation / 90) * 90 % 360
        if first is not None:
            said = colours_of(first)
            colours, of_container = said.or_else(colours), colours.where_silent(said)
            if first.interlaced_frame and order in (None, PROGRESSIVE):
                order = "interlaced"
        width, height = stream.width, stream.height
        times = np.array(packets.times, dtype=np.int64)
        pts, frame = np.unique(times, return_inverse=True)
        keys = np.array(packets.keys or [0], np.int64)
        broken = packets.broken
        if (odd := packets.not_whole) and not looks_damaged_and_is_not(
            path, stream.index, times, keys, odd
        ):
            broken = sorted({*broken, *odd})
        if rotation in (90, 270):
            width, height = height, width
        return FrameIndex(
            stream_index=stream.index,
            codec=stream.codec_context.codec.canonical_name,
            time_base=stream.time_base,
            pts=pts,
            packet_bytes=np.bincount(frame, weights=packets.sizes).astype(np.int64),
            keyframe_pts=np.unique(times[keys]),
            end_pts=max(packets.end, int(pts[-1]) + 1),
            rotation_deg=rotation,
            width=width,
            height=height,
            is_stored_in_order=packets.times == sorted(packets.times),
            colours=colours,
            container_colours=of_container,
            field_order=order,
            order=frame,
            keys=keys,
            broken=frozenset(frame[broken].tolist()),
            stored=len(times) + packets.hidden,
            ends_inside=packets.ends_inside,
        )


@dataclass
class _Packets:
    """Of a stream, as stored. times, sizes: of all that are shown; keys, broken, not_whole: places
    in them (the last: not broken otherwise); end: of the last one; hidden: how many an edit list
    hides."""

    times: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    not_whole: list[int] = field(default_factory=list)
    end: int = 0
    hidden: int = 0
    ends_inside: bool = False

    def drop_last(self) -> None:
        last = len(self.times) - 1
        self.end = max(self.times[:last]) + (self.end - self.times[last] if last else 0)
        del self.times[last], self.sizes[last]
        self.ends_inside = True
        self.keys = [place for place in self.keys if place != last]
        self.not_whole = [place for place in self.not_whole if place != last]


def _read_packets(path: Path, container: Any, stream: Any) -> _Packets:
    found = _Packets()
    step = _nominal_step(stream)
    chain = PacketChain(stream)
    damaged: set[int] = set()
    unlinked: set[int] = set()
    is_cut_off, before = False, None
    count = _AviCount(container, stream)
    try:
        for packet in container.demux(stream):
            progress.moved()
            if packet.size == 0:
                continue
            data = bytes(packet)
            at = packet.pts if packet.pts is not None else packet.dts
            is_late = None not in (packet.dts, before) and packet.dts - before > 1.5 * step
            before = packet.dts
            follows = chain.follows(data, packet.is_keyframe, 0 if at is None else at, is_late)
            if packet.is_discard:
                found.hidden += 1
                continue
            if at is None:  # AVI and raw streams: counted
                at = found.times[-1] + step if found.times else 0
            place = len(found.times)
            is_cut_off = packet.is_corrupt
            damaged |= count.early(packet, place)
            if is_cut_off:
                damaged.add(place)
            elif not chain.is_whole(data):
                found.not_whole.append(place)
            elif not follows:
                unlinked.add(place)
            found.times.append(at)
            found.sizes.append(packet.size)
            found.end = max(found.end, at + (packet.duration or step))
            if packet.is_keyframe:
                found.keys.append(place)
    except av.FFmpegError as error:
        must_be_damage(error, path)  # a damaged tail: what came before it is the video
    if is_cut_off and len(found.times) > 1:  # the file ends inside of it
        found.drop_last()
        damaged.discard(len(found.times))
    if len(unlinked) > MAX_GAP_SHARE * len(found.times):
        unlinked.clear()
    found.broken = sorted(damaged | unlinked)
    return found


class _AviCount:
    """Tells which packets of an AVI have times that are too early.

    AVI has no times: packets are counted, and behind a hole all would be early. Its index says, by
    where a packet lies, how many there were before it; an index that lacks entries says fewer.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        entries = stream.index_entries if container.format.name == "avi" else ()
        self._due = {entry.pos + _CHUNK_HEADER: entry.timestamp for entry in entries}
        self._reordered: set[int] = set()

    def early(self, packet: Any, place: int) -> set[int]:
        """The place of a packet that is early, and of the last one before it that is shown after
        others: libav takes the time of that from a packet behind it."""
        at = packet.dts
        is_early = at is not None and at < self._due.get(packet.pos, at)
        found = self._reordered | {place} if is_early else set()
        if packet.pts != at:
            self._reordered = {place}
        return found


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


def keyframe_pictures(path: Path, index: FrameIndex) -> Iterator[tuple[int, Any]]:
    """(index, libav's own picture, not turned) of the keyframes that decode; no other is decoded.

    Raises BadInputError if the file does not open, libav's errors if it is damaged, OSError if it
    cannot be read.
    """
    with open_media(path) as container:
        stream: Any = container.streams[index.stream_index]
        stream.thread_type = "AUTO"
        stream.codec_context.skip_frame = "NONKEY"
        pictures = container.decode(stream)
        while True:
            try:
                picture = next(pictures)
            except StopIteration:
                return
            except av.FFmpegError as error:
                must_be_damage(error, path)
                raise
            at = index.nearest(picture.pts) if picture.pts is not None else None
            if at is not None:
                yield at, convertible(picture)
