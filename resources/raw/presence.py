"""Where a raw file is: there, away with its place, or gone; and what tells one version from
another.

A file that is not found says nothing by itself: an unmounted disk takes all files of a folder
along, a deletion takes one. So its surroundings decide. Whoever may put files into a raw folder is
not trusted: a link may lead anywhere, and opening a pipe waits for ever.

Here: looking. Not here: listing places and reading files (`raw`), what a run does about a file that
is not there (`ego_assets.engine`).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resources.raw.plain_files import OF_STORAGE, kind_of
from resources.raw.s3.objects import bucket_and_key, head_of
from resources.raw.uris import is_remote, path_of, uri_of

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
_ABSENT = frozenset([errno.ENOENT, errno.ENOTDIR])
_IMPOSSIBLE = frozenset([errno.ELOOP, errno.ENAMETOOLONG])


class RawRefusedError(ValueError):
    """What lies at a uri must not be read: a link, a pipe, a device. The message says which."""


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


class RawMovedError(RawGoneError):
    """A folder of a raw file's path is a link by now, which is not followed. It may have been moved
    on purpose: what was made of the file stays."""


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
    """The state of a local file. Raises RawRefusedError, RawAwayError, RawGoneError."""
    try:
        found = check_plain(path)
    except (RawMovedError, RawRefusedError):
        raise
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            raise RawRefusedError(f"{uri_of(path)}: {why_not(error)}") from error
        raise _absence(path, error) from error
    except ValueError as error:
        raise RawRefusedError(f"{uri_of(path)}: {why_not(error)}") from error
    parts = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    now_ns = time.time_ns()
    is_racy = any(abs(now_ns - t) < RACY_NS for t in (found.st_ctime_ns, found.st_mtime_ns))
    return RawState(found.st_size, listed_version(found), ":".join(map(str, parts)), is_racy)


def check_plain(path: Path) -> os.stat_result:
    """The state of a plain file at a path without links, as listings name files.

    Raises RawRefusedError if it is something else by now, RawMovedError if its folder is reached by
    a link, OSError or ValueError if nothing can be seen there.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise RawRefusedError(f"{uri_of(path)}: a link by now, which is not followed")
    if not stat.S_ISREG(found.st_mode):
        raise RawRefusedError(f"{uri_of(path)}: {kind_of(found.st_mode)} by now, not a file")
    if os.path.realpath(path) != str(path.absolute()):
        raise RawMovedError(
            errno.ENOENT,
            "a folder of its path is a link by now, which is not followed: name the folder where "
            "the files lie, or put them back",
            uri_of(path),
        )
    return found


def why_not(error: Exception) -> str:
    """What keeps a file from being read, to follow a colon. Always the same for one fault: what was
    told once is known by it."""
    number = getattr(error, "errno", None)
    if number == errno.ELOOP:
        return "a link that leads in a circle"
    if number == errno.ENAMETOOLONG:
        return "its path is longer than the system opens (names 255 bytes, paths 4,095)"
    if number in (errno.EACCES, errno.EPERM):
        return "this user may not read it (permission denied)"
    if number is not None:
        return f"it cannot be read ({os.strerror(number)})"
    return f"it cannot be read ({type(error).__name__})"


def unread_error(error: BaseException, *paths: Path) -> OSError | None:
    """What an error, or one that led to it, says of one of these files: it could not be read."""
    names = {str(p) for p in paths}
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in OF_STORAGE | {errno.EIO}:
            name = seen.filename
            if name is not None and os.fsdecode(name).removeprefix("file:") in names:
                return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _absence(path: Path, error: OSError) -> OSError:
    if error.errno not in _ABSENT:
        why = f"its place does not answer: {error.strerror}"
        return RawAwayError(error.errno, why, uri_of(path))
    try:
        if next(neighbours(path), None) is not None:
            why = "not there, though other videos of its folder are"
            return RawGoneError(errno.ENOENT, why, uri_of(path))
        why = "not there, nor is any other video of its folder"
    except OSError as above:
        why = f"not there, nor is its folder ({above.strerror})"
    return RawAwayError(errno.ENOENT, why, uri_of(path))


def neighbours(path: Path) -> Iterator[Path]:
    """The other videos in the folder of a file, and the file itself. A note that says what to mount
    there is none, nor is the calibration that a video has left behind. Raises OSError."""
    suffixes = VIDEO_SUFFIXES | {path.suffix.lower()}
    with os.scandir(path.parent) as found:
        for child in found:
            if child.name.startswith(".") or Path(child.name).suffix.lower() not in suffixes:
                continue
            if child.is_file(follow_symlinks=False):
                yield Path(child.path)


def raw_version(uri: str) -> tuple[int | str, ...] | None:
    """What changes when the bytes do, without reading them; None if there is no such file.

    A local file that is a link by now, or is reached through one, is not there any more.
    """
    if not is_remote(uri):
        try:
            found = check_plain(path_of(uri))
        except (OSError, ValueError):
            return None
        return found.st_size, found.st_mtime_ns
    head = head_of(*bucket_and_key(uri))
    return (head["ContentLength"], head["ETag"]) if head else None
