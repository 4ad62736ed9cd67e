"""Opens media files, the one way in which that is done, and says what libav's errors mean.

Media files are hostile input. Only the `file` protocol and the formats listed here are opened:
a playlist, an SDP or a concat script that calls itself `.mp4` is refused before it can name
another file or a server, and references of a MOV file to outside data are not followed.

Not here: the index of frames (`frame_index`), decoding (`decode`).
"""

from __future__ import annotations

import errno
import os
import stat
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
STILL_CODECS = frozenset({"png", "mjpeg", "bmp", "gif", "webp", "tiff", "jpeg2000"})
MAX_PICTURE_PIXELS = 16384 * 8640
"""No decoder makes a larger picture, whatever a stream says of itself half way through."""


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
    """The largest real video: no cover picture, thumbnail or single picture if there is another.

    Streams come in any order, and muxers call the first the default one, which may be the small
    proxy of a camera. Of streams of one size the default one is taken, then the first.
    """
    streams = video_streams(container)
    if not streams:
        return None
    return max(
        streams,
        key=lambda s: (
            s.width * s.height > 0,
            not _is_still(s),
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


def _is_still(stream: Any) -> bool:
    """Whether it looks like one picture, or thumbnails, beside a video."""
    flags = av.stream.Disposition.timed_thumbnails | av.stream.Disposition.still_image
    return _has(stream, flags) or (
        stream.codec_context.codec.canonical_name in STILL_CODECS and stream.frames <= 1
    )


def _has(stream: Any, flag: av.stream.Disposition) -> bool:
    return bool(stream.disposition & flag)


def must_be_damage(error: BaseException, path: Path) -> None:
    """Raise OSError if the file could not be read. libav says EIO of damage, too: then it is
    read."""
    unless_of_storage(error, path)
    if isinstance(error, OSError) and error.errno == errno.EIO:
        for _ in read_blocks(path):
            pass
