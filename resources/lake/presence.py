"""Where a raw file is: there, away with its place, or gone; and what tells one version from
another.

A file that is not found says nothing by itself: an unmounted disk takes all files of a folder
along, a deletion takes one. So its surroundings decide. Here: looking. Not here: listing places and
reading files (`raw`), what a run does about a file that is not there (`ego_assets.stages`).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".mov",
        ".m4v",
        ".mkv",
        ".webm",
        ".avi",
        ".ts",
        ".mts",
        ".m2ts",
        ".mpg",
        ".mpeg",
        ".3gp",
        ".flv",
        ".wmv",
        ".ogv",
    ]
)
RACY_NS = 2_000_000_000
"""A file that changed this recently may change once more without its times telling: file systems
count time in ticks."""
_ABSENT = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG])
UNREADABLE = frozenset(
    [
        *(errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),
        *(errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.EREMOTEIO, errno.EHOSTDOWN),
        *(errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ESHUTDOWN),
    ]
)
"""What a system call says of a file whose place is away, and no decoder says of damage. EIO is not
among them: libav says that of a file that ends too early, too."""


class _OfFile(OSError):
    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}" if self.filename else str(self.strerror)


class RawAwayError(_OfFile):
    """The place of a raw file is away, like a disk that is not mounted: waiting may help."""


class RawUnreadError(RawAwayError):
    """A raw file is there and could not be read: its place was away for a moment, or its server
    does not answer. It may also be the disk that is broken."""


class RawGoneError(_OfFile, FileNotFoundError):
    """A raw file is not there, and its neighbours are: it was deleted, or moved."""


@dataclass(frozen=True)
class RawState:
    """What a raw file is known by without reading it.

    version: as a listing tells it (`listed_version`, or an ETag). identity: equal as long as nobody
    has changed the file; no part of it names a device, since a mount may get another number each
    time. is_racy: it changed a moment ago (`RACY_NS`), and may change again without its identity
    telling.
    """

    byte_size: int
    version: str
    identity: str
    is_racy: bool = False

    @property
    def text(self) -> str:
        """The identity, to be compared with later; empty if that would prove nothing."""
        return "" if self.is_racy else self.identity


def listed_version(found: os.stat_result) -> str:
    """The version of a local file as a listing tells it: another one whenever the file changes,
    also if its size and modification time are put back."""
    return f"{found.st_mtime_ns}:{found.st_ino}:{found.st_ctime_ns}"


def look_at(path: Path) -> RawState:
    """The state of a local file. Raises RawAwayError, RawGoneError."""
    try:
        found = path.stat()
    except OSError as error:
        raise _absence(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise RawGoneError(errno.ENOENT, "this is no file any more", str(path))
    changed_ns = max(found.st_ctime_ns, found.st_mtime_ns)
    parts = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    is_racy = abs(time.time_ns() - changed_ns) < RACY_NS
    return RawState(found.st_size, listed_version(found), ":".join(map(str, parts)), is_racy)


def unread_error(error: BaseException, *paths: Path) -> OSError | None:
    """What an error, or one that led to it, says of one of these files: it could not be read."""
    names = {str(p) for p in paths}
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in UNREADABLE | {errno.EIO}:
            name = seen.filename
            if name is not None and os.fsdecode(name).removeprefix("file:") in names:
                return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _absence(path: Path, error: OSError) -> OSError:
    if error.errno not in _ABSENT:
        why = f"its place does not answer: {error.strerror}"
        return RawAwayError(error.errno, why, str(path))
    try:
        if next(neighbours(path), None) is not None:
            why = "not there, though other videos of its folder are"
            return RawGoneError(errno.ENOENT, why, str(path))
        why = "not there, nor is any other video of its folder"
    except OSError as above:
        why = f"not there, nor is its folder ({above.strerror})"
    return RawAwayError(errno.ENOENT, why, str(path))


def neighbours(path: Path) -> Iterator[Path]:
    """The other videos in the folder of a file, and the file itself. A note that says what to mount
    there is none, nor is the calibration that a video has left behind. Raises OSError."""
    suffixes = VIDEO_SUFFIXES | {path.suffix.lower()}
    with os.scandir(path.parent) as found:
        for child in found:
            is_shown = not child.name.startswith(".")
            if is_shown and Path(child.name).suffix.lower() in suffixes and child.is_file():
                yield Path(child.path)
