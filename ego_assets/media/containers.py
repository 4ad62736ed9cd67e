"""Opens media files, the one way in which that is done, and says what libav's errors mean.

Media files are hostile input. Only the `file` protocol and the formats listed here are opened:
a playlist, an SDP or a concat script that calls itself `.mp4` is refused before it can name
another file or a server, and references of a MOV file to outside data are not followed.

Not here: the index of frames (`frame_index`), decoding (`decode`).
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.container
import av.stream

from ego_assets.operator import BadInputError
from resources.raw.plain_files import OF_STORAGE, read_blocks

_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg",
    "enable_drefs": "0",
    "use_absolute_path": "0",
    "max_streams": "64",
}
_STILLS = av.stream.Disposition.timed_thumbnails | av.stream.Disposition.still_image
_PACKETS_LOOKED_AT = 1024
"""Streams are stored side by side, so that many seconds of each are among these."""
MAX_PICTURE_PIXELS = 16384 * 8640
"""No decoder makes a larger picture, whatever a stream says of itself half way through."""


def open_media(source: Path | str | io.RawIOBase, hardware: Any = None) -> Any:
    """Open a media file for reading. To be closed by the caller: an `av` InputContainer, which is a
    context manager.

    source: a path, or an open file that can be sought in. hardware: an `av.codec.hwaccel.HWAccel`
    that decodes its video; nothing else is different. Raises BadInputError if it is no media file
    of a known format; OSError, such as FileNotFoundError, if it cannot be read.
    """
    if isinstance(source, io.RawIOBase):
        path = Path(getattr(source, "name", ""))
        opened: Any = source
    else:
        path = Path(source)
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # to open a pipe would be to wait for ever
            raise BadInputError(f"{path}: not a file")
        if found.st_size == 0:
            raise BadInputError(f"{path}: the file is empty")
        # `file:` keeps a name such as `concat:a.mp4` from being read as a protocol.
        opened = f"file:{path}"
    try:
        container = av.open(opened, options=_OPTIONS, metadata_errors="replace", hwaccel=hardware)
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


def choose_video_stream(
    container: av.container.InputContainer, index: int | None = None
) -> Any | None:
    """The largest real video: no cover picture, thumbnail or single picture if there is another.

    index: of the stream to take instead; None is returned if it is no video with a decoder.

    Streams come in any order, and muxers call the first the default one, which may be the small
    proxy of a camera. Of streams of one size the default one is taken, then the first.
    """
    streams = video_streams(container)
    if index is not None:
        return next((s for s in streams if s.index == index), None)
    if len(streams) < 2:
        return streams[0] if streams else None
    counts = _picture_counts(container, streams)
    return max(
        streams,
        key=lambda s: (
            s.width * s.height > 0,
            min(counts[s.index], 1 if _has(s, _STILLS) else 2),
            s.width * s.height,
            _has(s, av.stream.Disposition.default),
            -s.index,
        ),
    )


def video_streams(container: av.container.InputContainer) -> list[Any]:
    """Streams of moving pictures that have a decoder."""
    return [
        s
        for s in container.streams.video
        if s.codec_context is not None and not _has(s, av.stream.Disposition.attached_pic)
    ]


def _picture_counts(
    container: av.container.InputContainer, streams: Sequence[Any]
) -> dict[int, int]:
    """Pictures of each stream, by its index; where the file does not count them, up to 2 of its
    beginning."""
    counts = {s.index: s.frames for s in streams}
    open_ends = {index for index, count in counts.items() if count < 1}
    if not open_ends:
        return counts
    path = Path(container.name.removeprefix("file:"))
    with open_media(path) as again:  # the caller reads the packets of the other from the first on
        try:
            for packet in islice(again.demux(), _PACKETS_LOOKED_AT):
                index = packet.stream.index
                if packet.size and index in open_ends:
                    counts[index] = max(counts[index], 0) + 1
                    if counts[index] == 2:
                        open_ends.remove(index)
                if not open_ends:
                    break
        except av.FFmpegError as error:
            must_be_damage(error, path)  # what came before it counts
    return counts


def _has(stream: Any, flag: av.stream.Disposition) -> bool:
    return bool(stream.disposition & flag)


def must_be_damage(error: BaseException, path: Path) -> None:
    """Raise OSError if the file could not be read. libav says EIO of damage, too: then it is
    read."""
    unless_of_storage(error, path)
    if isinstance(error, OSError) and error.errno == errno.EIO:
        for _ in read_blocks(path):
            pass
