"""What a container promised, for files that end before they should.

MP4 and MOV, Matroska and WebM, and AVI say in their headers how long their parts are: a file that
is shorter was cut off. Others (MPEG-TS, live recordings) promise nothing. The counts of frames in
headers are believed of such files alone, since those of whole ones may be wrong, or count frames
that an edit list hides.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from resources.raw.plain_files import open_regular

_MAX_PARTS = 100_000
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_CLOCK = re.compile(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d{1,9})?)")


class Promise(NamedTuple):
    """What the headers say that a video stream has. None: they do not say."""

    frames: int | None
    seconds: float | None


def promise_of(container: Any, stream: Any) -> Promise:
    """Return what the headers of an open file say of one of its streams."""
    frames = int(stream.frames or 0) or _tagged_frames(stream)
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif (found := _CLOCK.fullmatch(_tag(stream, "DURATION")[:18])) is not None:
        hours, minutes, rest = found.groups()
        seconds = 3600.0 * int(hours) + 60.0 * int(minutes) + float(rest)
    else:
        seconds = (container.duration or 0) / 1e6
    return Promise(frames or None, seconds if seconds > 0 else None)


def _tagged_frames(stream: Any) -> int:
    text = _tag(stream, "NUMBER_OF_FRAMES")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _tag(stream: Any, name: str) -> str:
    """A tag of Matroska's, which may name a language behind its own name."""
    found = (v for k, v in stream.metadata.items() if k.upper().partition("-")[0] == name)
    return str(next(found, "")).strip()


def is_cut_off(path: Path, container: str) -> bool:
    """Whether a file is shorter than its own headers say. container: the demuxer's name."""
    reader = next((r for name, r in _READERS.items() if name in container.split(",")), None)
    if reader is None:
        return False
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        return reader(file, size)


def _boxes_end_behind(file: BinaryIO, size: int) -> bool:
    place = 0
    for _ in range(_MAX_PARTS):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            return False
        length, name = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        if length < 8 or not all(32 <= c < 127 or c == 0xA9 for c in name):
            return False  # to the end of the file, or no box
        place += length
        if place > size:
            return True
    return False


def _riff_ends_behind(file: BinaryIO, size: int) -> bool:
    place = 0
    for _ in range(_MAX_PARTS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or head[:4] != b"RIFF":
            return False
        length = struct.unpack("<I", head[4:])[0]
        if length < 12:
            return False
        place += 8 + length
        if place > size:
            return True
        place += place % 2
    return False


def _segment_ends_behind(file: BinaryIO, size: int) -> bool:
    place = 0
    for _ in range(8):
        file.seek(place)
        head = file.read(12)
        if len(head) < 12:
            return False
        name = int.from_bytes(head[:4], "big")
        if name not in (_EBML, _SEGMENT):
            return False
        width = 9 - head[4].bit_length()
        if width > 8:
            return False
        mask = (1 << 7 * width) - 1
        length = int.from_bytes(head[4 : 4 + width], "big") & mask
        if length == mask:  # live: not known
            return False
        place += 4 + width + length
        if name == _SEGMENT:
            return place > size
    return False


_READERS = {
    "mp4": _boxes_end_behind,
    "matroska": _segment_ends_behind,
    "avi": _riff_ends_behind,
}
"""By one of the names of a demuxer."""
