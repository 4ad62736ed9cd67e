"""Decoding: the one way in which media files are opened, indexed and turned into frames.

Here: opening with restrictions, the index of frames, frames of a stretch of a video. Not here:
what a file is worth (`probe`), cuts (`clips`).

Media files are hostile input. Only the `file` protocol and the formats listed here are opened:
a playlist, an SDP or a concat script that calls itself `.mp4` is refused before it can name
another file or a server, and references of a MOV file to outside data are not followed.
"""

from __future__ import annotations

import errno
import os
import queue
import stat
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import av
import av.container
import av.stream
import av.video.frame
import numpy as np
from av.video.reformatter import VideoReformatter

from ego_assets.media import nvdec, progress
from ego_assets.operator import BadInputError, Frame
from resources.raw.limits import BYTES_IN_FLIGHT
from resources.raw.plain_files import OF_STORAGE, read_blocks

_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg",
    "enable_drefs": "0",
    "use_absolute_path": "0",
    "max_streams": "64",
}
MAX_PICTURE_PIXELS = 16384 * 8640
"""No decoder makes a larger picture, whatever a stream says of itself half way through."""
ORDERED_PICTURES = 64
"""So many tell whether a stream's times are in order: more than any decoder holds back."""
SOFTWARE = "software"
_FEW_THREADS, _LIBAV_THREADS = 3, 16
_STOP = object()
_Item = TypeVar("_Item")


def open_media(path: Path | str, hardware: Any = None) -> av.container.InputContainer:
    """Open a media file for reading. To be closed by the caller (it is a context manager).

    hardware: an `av.codec.hwaccel.HWAccel` that decodes its video; nothing else is different.
    Raises BadInputError if it is no media file of a known format; OSError, such as
    FileNotFoundError, if it cannot be read.
    """
    path = Path(path)
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # to open a pipe would be to wait for ever
        raise BadInputError(f"{path}: not a file")
    if found.st_size == 0:
        raise BadInputError(f"{path}: the file is empty")
    try:
        # `file:` keeps a name such as `concat:a.mp4` from being read as a protocol.
        container = av.open(
            f"file:{path}", options=_OPTIONS, metadata_errors="replace", hwaccel=hardware
        )
    except PermissionError:
        raise
    except (av.FFmpegError, ValueError, OSError) as error:
        unless_of_storage(error, path)
        words = f"no media file of a known format ({libav_says(error)})"
        raise BadInputError(f"{path}: {words}") from error
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.codec_context.options = {"max_pixels": str(MAX_PICTURE_PIXELS)}
    return container


def libav_says(error: Exception) -> str:
    """What libav or the system has to say, without what it may quote of the file."""
    number = getattr(error, "errno", None)
    words = getattr(error, "strerror", None)
    if isinstance(error, av.FFmpegError) and words:
        return str(words)
    return os.strerror(number) if isinstance(number, int) else type(error).__name__


def unless_of_storage(error: BaseException, path: Path) -> None:
    """Raise an error of libav's again if it is no damage of the file: it could not be read.

    As Python has it: what handles damage must not catch it.
    """
    if isinstance(error, OSError) and error.errno in OF_STORAGE:
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def choose_video_stream(container: av.container.InputContainer) -> Any | None:
    """The stream that is meant to be seen: the default one, else the largest; no cover pictures."""
    streams = [
        s
        for s in container.streams.video
        if s.codec_context is not None and not _has(s, av.stream.Disposition.attached_pic)
    ]
    if not streams:
        return None
    return max(
        streams,
        key=lambda s: (
            s.width * s.height > 0,
            _has(s, av.stream.Disposition.default),
            s.width * s.height,
            -s.index,
        ),
    )


def _has(stream: Any, flag: av.stream.Disposition) -> bool:
    return bool(stream.disposition & flag)


@dataclass(frozen=True)
class FrameIndex:
    """Every coded frame of a video stream in presentation order, from demuxing alone.

    pts: (F,) int64 time stamps in units of time_base, strictly ascending;
    packet_bytes: (F,) int64 size of what is stored for each of them;
    keyframe_pts: (K,) time stamps at which decoding can begin; end_pts: end of the last frame;
    is_stored_in_order: whether packets lie in the file as their time stamps have it.
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

    def __len__(self) -> int:
        return len(self.pts)

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
        times, sizes, keys, end = _read_packets(path, container, stream)
        if not times:
            raise BadInputError(f"{path}: the video stream holds no frame")
        rotation = _rotation(path, stream.index)
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
        _must_be_damage(error, path)  # a damaged tail: what came before it is the video
    return times, sizes, keys, end


def _nominal_step(stream: Any) -> int:
    rate = stream.average_rate or stream.guessed_rate or Fraction(30)
    return max(1, round(1 / (rate * stream.time_base))) if stream.time_base else 1


def _rotation(path: Path, stream_index: int) -> int:
    """Clockwise turn in degrees that makes the stored picture upright: 0, 90, 180, 270."""
    with open_media(path) as container:
        stream: Any = container.streams[stream_index]
        try:
            first: Any = next(container.decode(stream))
            rotation: float = first.rotation
            return round(-rotation / 90) * 90 % 360
        except (av.FFmpegError, StopIteration) as error:
            _must_be_damage(error, path)
            return 0


def _must_be_damage(error: BaseException, path: Path) -> None:
    """Raise OSError if the file could not be read. libav says EIO of damage, too: then it is
    read."""
    unless_of_storage(error, path)
    if isinstance(error, OSError) and error.errno == errno.EIO:
        for _ in read_blocks(path):
            pass


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
            _must_be_damage(error, path)
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
                _must_be_damage(error, path)
                raise
            at = index.nearest(picture.pts) if picture.pts is not None else None
            if at is not None:
                yield at, picture


class _DamagedPictureError(Exception):
    """A decoder with several threads came to a damaged picture."""


def _decoder_threads(pixels: int, max_bytes_in_flight: int) -> int:
    """How many threads a decoder gets, each with a picture in hand; 0: as many as libav sees fit.

    With fewer than a few, libav tells of damage at the end of a file in another way.
    """
    by_itself = min((os.cpu_count() or 1) + 1, _LIBAV_THREADS)
    most = max(_FEW_THREADS, max_bytes_in_flight // max(1, pixels * 3 // 2))
    return most if by_itself > most else 0


class ClipFrames:
    """Frames [start_frame, end_frame) of a video: a FrameSource.

    hardware: let the GPU of this process decode where that gives the same frames (`nvdec`); what
    it cannot decode, or finds damaged, is decoded in software. `decoded_by` tells.

    width, height: of the upright, full-size picture. Decoding runs ahead of the reader in a thread
    (PyAV releases the GIL), by at most `max_bytes_in_flight` bytes of pictures. Frames that do
    not decode are left out; the others keep their indices.
    Raises BadInputError if the stretch is not in the video.
    """

    def __init__(
        self,
        path: Path,
        start_frame: int,
        end_frame: int,
        max_bytes_in_flight: int = BYTES_IN_FLIGHT,
        hardware: bool = False,
    ) -> None:
        self.path = path
        self.index = index_frames(path)
        if not 0 <= start_frame < end_frame <= len(self.index):
            raise BadInputError(
                f"{path}: frames {start_frame} to {end_frame} of a video of {len(self.index)}: "
                "the file has changed since its manifest was made; run video_manifest again"
            )
        self.start_frame = start_frame
        self.end_frame = end_frame
        self.max_bytes_in_flight = max_bytes_in_flight
        self.width = self.index.width
        self.height = self.index.height
        self._is_damaged = False
        self._threads = _decoder_threads(self.width * self.height, max_bytes_in_flight)
        self._device, self.decoded_by = None, SOFTWARE
        if hardware:
            self._device, why = nvdec.find(self.index.codec)
            self.decoded_by = nvdec.NAME if self._device else f"{SOFTWARE}: {why}"

    def read(
        self, *, max_side_px: int | None = None, indices: Sequence[int] | None = None
    ) -> Iterator[Frame]:
        """Frames in presentation order; `indices` (sorted) picks some; `max_side_px` shrinks.

        Raises BadInputError if nothing decodes, or decoding breaks off.
        """
        wanted = None if indices is None else sorted(set(indices))
        if wanted is not None and not wanted:
            return
        scale = min(1.0, (max_side_px or 10**9) / max(self.width, self.height))
        frame_bytes = max(1, int(self.width * scale) * int(self.height * scale) * 3)
        slots = max(1, min(64, self.max_bytes_in_flight // frame_bytes - 1))
        yield from self._ahead(self._decode(scale, wanted), slots)

    def read_pictures(self) -> Iterator[tuple[int, Any]]:
        """(index, libav's own picture as it is stored, not turned) of every frame in order.

        For those who look at few pixels: nothing is converted. Raises as `read` does.
        """
        slots = max(1, min(8, self.max_bytes_in_flight // (self.width * self.height * 2)))
        yield from self._ahead(self._indexed(self.start_frame, self.end_frame - 1), slots)

    def _ahead(self, items: Iterator[_Item], slots: int) -> Iterator[_Item]:
        """The items, made ahead of the reader in a thread, at most `slots` of them.

        Raises BadInputError if there is none.
        """
        ahead: queue.Queue[Any] = queue.Queue(slots)
        stop = threading.Event()
        arguments = (self._fill_ahead, items, ahead, stop)
        thread = threading.Thread(target=copy_context().run, args=arguments, daemon=True)
        thread.start()
        count = 0
        try:
            while True:
                item = ahead.get()
                if item is _STOP:
                    break
                if isinstance(item, BaseException):
                    raise item
                count += 1
                yield item
        finally:
            stop.set()
            thread.join()
        if not count:
            raise BadInputError(
                f"{self.path}: none of the frames {self.start_frame} to {self.end_frame} decodes"
            )

    def _fill_ahead(
        self, items: Iterator[Any], ahead: queue.Queue[Any], stop: threading.Event
    ) -> None:
        def put(item: Any) -> bool:
            while not stop.is_set():
                try:
                    ahead.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        try:
            for item in items:
                if not put(item):
                    return
            put(_STOP)
        except (BadInputError, MemoryError, FileNotFoundError, PermissionError) as error:
            put(error)  # libav's own have these types, too
        except (av.FFmpegError, ValueError) as error:
            broken = BadInputError(f"{self.path}: decoding broke off: {libav_says(error)}")
            broken.__cause__ = error
            put(broken)
        except BaseException as error:  # it is raised where the frames are read
            put(error)

    def _decode(self, scale: float, wanted: list[int] | None) -> Iterator[Frame]:
        first = wanted[0] if wanted else self.start_frame
        last = wanted[-1] if wanted else self.end_frame - 1
        chosen = set(wanted) if wanted is not None else None
        # One for all frames; for each of them it would be set up, with threads, again.
        scaler = VideoReformatter()
        for index, picture in self._indexed(first, last):
            if chosen is None or index in chosen:
                yield self._frame(scaler, picture, index, scale)

    def _indexed(self, first: int, last: int) -> Iterator[tuple[int, Any]]:
        """(index, picture) of the frames from `first` to `last`, both included."""
        while first <= last:
            try:
                for index, picture in self._walk(first, last):
                    first = index + 1
                    yield index, picture
                return
            except nvdec.HardwareDecodingError as error:
                self._device, self.decoded_by = None, f"{SOFTWARE}: {error}"
            except _DamagedPictureError:
                self._is_damaged = True

    def _walk(self, first: int, last: int) -> Iterator[tuple[int, Any]]:
        """As `_indexed`. Raises HardwareDecodingError, _DamagedPictureError."""
        seen = -1
        for picture in self._pictures(first):
            index = self.index.nearest(picture.pts) if picture.pts is not None else None
            if index is None or index <= seen or index < first:
                continue
            if index > last:
                return
            seen = index
            yield index, picture
            if index == last:
                return

    def _pictures(self, first: int) -> Iterator[Any]:
        """Decoded pictures from the keyframe at or before frame `first` on.

        Some containers land behind the place that was asked for: then from a keyframe before.
        """
        target = int(self.index.pts[first])
        position = bisect_right(self.index.keyframe_pts, target) - 1
        step = 1
        while True:
            pictures = self._pictures_from(max(position, 0))
            head = next(pictures, None)
            late = head is not None and head.pts is not None and head.pts > target
            if position <= 0 or (head is not None and not late):
                break
            pictures.close()
            position, step = position - step, step * 2
        if head is not None:
            yield head
            yield from pictures

    def _pictures_from(self, position: int) -> Generator[Any, None, None]:
        """Decoded pictures from the keyframe at `position` of the index on."""
        if self._device is not None:
            yield from self._pictures_on_device(position)
            return
        with open_media(self.path) as container:
            stream: Any = container.streams[self.index.stream_index]
            # How damage is hidden depends on what other threads have done by then: with one, it is
            # the same every time.
            stream.thread_type = "NONE" if self._is_damaged else "AUTO"
            stream.codec_context.thread_count = self._threads
            if position > 0:
                container.seek(int(self.index.keyframe_pts[position]), stream=stream)
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets)
                    for picture in packet.decode():
                        progress.moved()
                        if picture.is_corrupt and not self._is_damaged:
                            raise _DamagedPictureError
                        yield picture
                except (StopIteration, av.error.EOFError):
                    return
                except MemoryError:
                    raise  # libav's own too: no fault of the packet
                except av.FFmpegError as error:
                    unless_of_storage(error, self.path)
                    if not self._is_damaged:
                        _must_be_damage(error, self.path)
                        raise _DamagedPictureError from error
                    # The decoder goes on with the next packet.

    def _pictures_on_device(self, position: int) -> Generator[Any, None, None]:
        """As `_pictures_from`. Software hides damage in its own way: so what is damaged is its."""
        with nvdec.errors_told(), open_media(self.path, self._device) as container:
            stream: Any = container.streams[self.index.stream_index]
            stream.thread_type = "NONE"  # the device is what is parallel
            if position > 0:
                container.seek(int(self.index.keyframe_pts[position]), stream=stream)
            for packet in container.demux(stream):
                for picture in packet.decode():
                    yield nvdec.as_software_has_it(picture)

    def _frame(self, scaler: VideoReformatter, picture: Any, index: int, scale: float) -> Frame:
        turned = self.index.rotation_deg in (90, 270)
        width, height = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        size = (height, width) if turned else (width, height)
        image: np.ndarray = scaler.reformat(
            picture,
            format="rgb24",
            width=size[0],
            height=size[1],
            interpolation="AREA" if scale < 1 else "BILINEAR",
            threads=1,
        ).to_ndarray()
        if self.index.rotation_deg:
            # Our turn is clockwise, numpy's is not.
            image = np.ascontiguousarray(np.rot90(image, -self.index.rotation_deg // 90))
        return Frame(index, float(self.index.pts_s[index]), image, width / self.width)
