"""Decodes a stretch of a video, ahead of its reader and with bounded memory.

Here: frames, pictures; in software or on a GPU. Not here: opening (`containers`), which
frames there are (`frame_index`), their colours (`colour`) and fields (`deinterlace`), cuts
(`ego_assets.videos.cuts`).
"""

from __future__ import annotations

import os
import queue
import threading
from bisect import bisect_right
from collections import deque
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
from ego_assets.media.frame_index import index_frames
from ego_assets.operator import BadInputError, Frame
from resources.raw.limits import BYTES_IN_FLIGHT

SOFTWARE = "software"
_FEW_THREADS, _LIBAV_THREADS = 3, 16
_STOP = object()
_Item = TypeVar("_Item")


def _time_of(packet: Any) -> int | None:
    found: int | None = packet.dts if packet.pts is None else packet.pts
    return found


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
    not decode are left out, and so are those that a decoder makes up where the stream is damaged,
    up to the next keyframe (`damaged` has them, `withheld` counts those that came out of the
    decoder); the others keep their indices.
    stream_index: of the video stream, as the manifest has it; None: the largest.
    Raises BadInputError if the stretch is not in the video.
    """

    def __init__(
        self,
        path: Path,
        start_frame: int,
        end_frame: int,
        max_bytes_in_flight: int = BYTES_IN_FLIGHT,
        hardware: bool = False,
        stream_index: int | None = None,
    ) -> None:
        self.path = path
        self.index = index_frames(path, stream_index)
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
        self.withheld = 0
        self._spoilt = set(self.index.spoilt)
        self._threads = _decoder_threads(self.width * self.height, max_bytes_in_flight)
        self._device, self.decoded_by = None, SOFTWARE
        if hardware:
            self._device, why = nvdec.find(self.index.codec)
            self.decoded_by = nvdec.NAME if self._device else f"{SOFTWARE}: {why}"

    @property
    def damaged(self) -> list[int]:
        """Frames of the stretch that are not to be trusted, as far as has been read."""
        return sorted(f for f in self._spoilt if self.start_frame <= f < self.end_frame)

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
        """As `_indexed`. Raises HardwareDecodingError, _DamagedPictureError.

        A picture is kept back until what it refers to has been decoded: then it is known whether
        it is to be trusted.
        """
        seen = -1
        kept: deque[tuple[int, Any]] = deque()
        for picture in self._pictures(first):
            index = self.index.nearest(picture.pts) if picture.pts is not None else None
            if index is None or index <= seen or index < first or index in self.index.misplaced:
                continue
            seen = index
            if index <= last:
                kept.append((index, picture))
            while kept and self.index.known_after[kept[0][0]] <= index:
                yield from self._trusted(*kept.popleft())
            if index >= last and not kept:
                return
        for each in kept:
            yield from self._trusted(*each)

    def _trusted(self, index: int, picture: Any) -> Iterator[tuple[int, Any]]:
        if index in self._spoilt:
            self.withheld += 1
        else:
            yield index, convertible(picture)

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
            stream.thread_type = "NONE" if self._is_damaged else "AUTO"
            # With several, dav1d tells of a damaged packet when it gets a later one.
            alone = self._is_damaged and self.index.codec == "av1"
            stream.codec_context.thread_count = 1 if alone else self._threads
            if position > 0:
                container.seek(int(self.index.keyframe_pts[position]), stream=stream)
            packets = self._packets(container, stream, position)
            while True:
                packet, begin = None, None
                try:
                    packet, begin = next(packets)
                    for picture in packet.decode():
                        progress.moved()
                        if picture.is_corrupt:
                            self._spoil(picture.pts, begin)
                        yield picture
                except (StopIteration, av.error.EOFError):
                    return
                except MemoryError:
                    raise  # libav's own too: no fault of the packet
                except av.FFmpegError as error:
                    unless_of_storage(error, self.path)
                    if not self._is_damaged:
                        must_be_damage(error, self.path)
                    self._spoil(None if packet is None else _time_of(packet), begin)
                    # The decoder goes on with the next packet.

    def _packets(
        self, container: Any, stream: Any, position: int
    ) -> Iterator[tuple[Any, int | None]]:
        """Packets from a keyframe on, and when that is shown; whole ones, as `_is_cut_off` has it.

        Those of a group that began before the place that was found are left out.
        """
        begin = None if position > 0 else -(2**63)
        for packet in container.demux(stream):
            if begin is None and packet.size:
                if not packet.is_keyframe:
                    continue
                begin = _time_of(packet)
            if not (packet.is_corrupt and self._is_cut_off(packet)):
                yield packet, begin

    def _spoil(self, pts: int | None, begin: int | None) -> None:
        """What has this time stamp is damaged, and so is all that refers to it.

        begin: of the keyframe where decoding began: what is shown before it lacks its references
        for no other reason. Raises _DamagedPictureError while several threads decode: how damage is
        hidden depends on what the others have done by then.
        """
        if pts is not None and begin is not None and pts < begin:
            return
        if not self._is_damaged:
            raise _DamagedPictureError
        if pts is not None and (frame := self.index.nearest(pts)) is not None:
            self._spoilt |= self.index.spoilt_by(frame)

    def _is_cut_off(self, packet: Any) -> bool:
        """Whether the file ends inside of this packet: the index leaves it out.

        Its error, in the last packet, would make libav's threads lose pictures before it.
        """
        return packet.pts is None or packet.pts not in self.index.pts

    def _pictures_on_device(self, position: int) -> Generator[Any, None, None]:
        """As `_pictures_from`. Software hides damage in its own way: so what is damaged is its."""
        with nvdec.errors_told(), open_media(self.path, self._device) as container:
            stream: Any = container.streams[self.index.stream_index]
            stream.thread_type = "NONE"  # the device is what is parallel
            if position > 0:
                container.seek(int(self.index.keyframe_pts[position]), stream=stream)
            for packet in container.demux(stream):
                if packet.is_corrupt and self._is_cut_off(packet):
                    continue
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
