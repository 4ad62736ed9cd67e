"""Decodes a stretch of a video, ahead of its reader and with bounded memory.

Here: frames, pictures, keyframes; in software or on a GPU. Not here: opening (`containers`), which
frames there are (`frame_index`), their colours (`colour`) and fields (`deinterlace`), cuts
(`ego_assets.videos.cuts`).
"""

from __future__ import annotations

import os
import queue
import threading
from bisect import bisect_right
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np

from ego_assets.media import nvdec, progress
from ego_assets.media.colour import RgbConverter, convertible
from ego_assets.media.containers import libav_says, must_be_damage, open_media, unless_of_storage
from ego_assets.media.deinterlace import deinterlaced
from ego_assets.media.frame_index import FrameIndex, index_frames
from ego_assets.operator import BadInputError, Frame
from resources.raw.limits import BYTES_IN_FLIGHT

SOFTWARE = "software"
_FEW_THREADS, _LIBAV_THREADS = 3, 16
_STOP = object()
_Item = TypeVar("_Item")


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

    def time_of(self, frame_index: int) -> float:
        """See `FrameSource`."""
        return float(self.index.pts_s[frame_index])

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

    def walk(
        self, first: int, scale: float = 1.0
    ) -> Generator[tuple[int, Callable[[], Frame]], None, None]:
        """(index, what makes its frame) of every frame from `first` on, in the caller's thread.

        For those who stop and go: nothing is decoded ahead but by libav's threads, and a frame that
        is not made is not converted. Raises BadInputError if decoding breaks off.
        """
        converter = RgbConverter(self.index.container_colours)
        last = self.end_frame - 1
        try:
            for index, picture in self._whole_pictures(first, last, range(first, last + 1)):
                yield index, partial(self._frame, converter, picture, index, scale)
        except (BadInputError, MemoryError, FileNotFoundError, PermissionError):
            raise  # libav's own have these types, too
        except (av.FFmpegError, ValueError) as error:
            raise self._broken_off(error) from error

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
            broken = self._broken_off(error)
            broken.__cause__ = error
            put(broken)
        except BaseException as error:  # it is raised where the frames are read
            put(error)

    def _broken_off(self, error: Exception) -> BadInputError:
        return BadInputError(f"{self.path}: decoding broke off: {libav_says(error)}")

    def _decode(self, scale: float, wanted: list[int] | None) -> Iterator[Frame]:
        first = wanted[0] if wanted else self.start_frame
        last = wanted[-1] if wanted else self.end_frame - 1
        chosen = set(wanted) if wanted is not None else range(first, last + 1)
        converter = RgbConverter(self.index.container_colours)
        for index, picture in self._whole_pictures(first, last, chosen):
            if index in chosen:
                yield self._frame(converter, picture, index, scale)

    def _whole_pictures(
        self, first: int, last: int, chosen: Container[int]
    ) -> Iterator[tuple[int, Any]]:
        """As `_indexed`; interlaced pictures are deinterlaced, and come with some that are not
        chosen."""
        if not self.index.is_interlaced:
            for index, picture in self._indexed(first, last):
                if index in chosen and picture.interlaced_frame:
                    first = index
                    break  # once more from here on, with the picture before it
                yield index, picture
            else:
                return
        pictures = self._indexed(max(first - 1, 0), min(last + 1, len(self.index) - 1))
        neighbours = (p for p in pictures if any(p[0] + d in chosen for d in (-1, 0, 1)))
        yield from (p for p in deinterlaced(neighbours) if p[0] >= first)

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
            yield index, convertible(picture)
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
                        must_be_damage(error, self.path)
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

    def _frame(self, converter: RgbConverter, picture: Any, index: int, scale: float) -> Frame:
        turned = self.index.rotation_deg in (90, 270)
        width, height = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        size = (height, width) if turned else (width, height)
        image = converter.convert(picture, *size, shrinks=scale < 1)
        if self.index.rotation_deg:
            # Our turn is clockwise, numpy's is not.
            image = np.ascontiguousarray(np.rot90(image, -self.index.rotation_deg // 90))
        return Frame(index, self.time_of(index), image, width / self.width)
