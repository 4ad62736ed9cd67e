"""Raw videos in folders of this machine: their uris, what there is, and what must not be read.

Whoever may put files into a raw folder is not trusted: a link may lead anywhere, and opening a pipe
waits for ever. Here: names and kinds of files. Not here: their content, S3 (`raw`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

ENCODED = "file://"
LISTING_PAGE = 1000
OUT_OF_FOLDER = "a link that leads out of its folder is not followed"
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class RawRefusedError(ValueError):
    """What lies at a uri must not be read: a link, a pipe, a device. The message says which."""


class RawMovedError(ValueError):
    """A folder of a raw file's path is a link by now. It may have been moved on purpose: what was
    made of the file is not to be dropped for it."""


@dataclass(frozen=True)
class RawEntry:
    """A file as a listing shows it; refused: why it is not taken.

    position: where a later listing of its place goes on after it. An entry without a uri is no
    file: it only says how far a listing has come that finds nothing.
    """

    uri: str
    byte_size: int
    version: str
    position: str
    refused: str = ""


def uri_of(path: Path) -> str:
    """The uri of a local path, which may hold any bytes."""
    return _uri_of_text(str(path))


def _uri_of_text(text: str) -> str:
    if text.isprintable() and not text.startswith(ENCODED):
        return text
    return ENCODED + quote_from_bytes(os.fsencode(text))


def path_of(uri: str) -> Path:
    """The local path of a uri that is not remote."""
    if uri.startswith(ENCODED):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(ENCODED))))
    return Path(uri)


def resolved(place: str) -> Path:
    """The file or folder that a person named, all links followed. Raises FileNotFoundError."""
    path = path_of(place)
    try:
        path = path.expanduser()
        real = Path(os.path.realpath(path, strict=True))
        mode = real.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"no file or folder {path}") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise FileNotFoundError(f"no file or folder {path}: {_why(error)}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FileNotFoundError(f"no file or folder {path}: it is {kind_of(mode)}")
    return real


@dataclass
class _Level:
    """A folder whose children are being listed; after: parts of a position in it."""

    position: str
    children: Iterator[os.DirEntry[str]]
    after: tuple[str, ...]


def scan_folder(root: Path, suffixes: frozenset[str], after: str = "") -> Iterator[RawEntry]:
    """The files under a folder, depth first and by name, `after` a position.

    Whatever an entry does, the others are listed. Raises FileNotFoundError if the folder itself
    cannot be read.
    """
    children, why = _children(str(root))
    if why:
        raise FileNotFoundError(f"the folder {root} cannot be listed: {why}")
    stack = [_Level("", children, tuple(after.split("/")) if after else ())]
    since_told = 0
    while stack:
        level = stack[-1]
        child = next(level.children, None)
        if child is None:
            stack.pop()
            if since_told >= LISTING_PAGE:
                since_told = 0
                yield RawEntry("", 0, "", level.position)
            continue
        name = child.name
        first = level.after[0] if level.after else ""
        if name[0] == "." or name < first or (name == first and len(level.after) == 1):
            continue
        since_told += 1
        here = f"{level.position}/{name}" if level.position else name
        try:
            if child.is_dir(follow_symlinks=False):
                children, why = _children(child.path)
                stack.append(_Level(here, children, level.after[1:] if name == first else ()))
                if why:
                    yield _refused(child.path, here, f"a folder that cannot be listed: {why}")
                continue
            entry = _look_at(child, root, here, suffixes)
        except FileNotFoundError:  # gone since the folder was read
            entry = None
        except (OSError, RuntimeError, ValueError) as error:
            entry = _refused(child.path, here, _why(error))
        if entry is not None:
            yield entry
        elif since_told >= LISTING_PAGE:
            since_told = 0
            yield RawEntry("", 0, "", here)


def _children(folder: str) -> tuple[Iterator[os.DirEntry[str]], str]:
    """What is in a folder, by name, and what keeps us from reading (all of) it."""
    found: list[os.DirEntry[str]] = []
    why = ""
    try:
        with os.scandir(folder) as entries:
            found.extend(entries)
    except (FileNotFoundError, NotADirectoryError):  # gone since its parent was read
        pass
    except OSError as error:
        why = _why(error)
    return iter(sorted(found, key=lambda child: child.name)), why


def _look_at(
    child: os.DirEntry[str], root: Path, position: str, suffixes: frozenset[str]
) -> RawEntry | None:
    """The entry of what is no folder; None if it is not listed. Raises OSError."""
    is_video = suffix_of(child.name) in suffixes
    if child.is_symlink():
        return _linked(child.path, root, position, is_video)
    if not is_video:
        return None
    found = child.stat()
    if stat.S_ISREG(found.st_mode):
        uri = _uri_of_text(child.path)
        return RawEntry(uri, found.st_size, str(found.st_mtime_ns), position)
    return _refused(child.path, position, f"{kind_of(found.st_mode)}, not a file")


def suffix_of(name: str) -> str:
    """As of a Path, which takes ten times as long to make: this is done for every raw file."""
    _, dot, suffix = name.rpartition(".")
    return (dot + suffix).lower()


def _linked(link: str, root: Path, position: str, is_video: bool) -> RawEntry | None:
    """Of a link: the file in the same place that it leads to. Raises OSError."""
    try:
        target = Path(os.path.realpath(link, strict=True))
        found = target.stat()
    except OSError as error:
        if not is_video:  # it may be anything
            return None
        if isinstance(error, FileNotFoundError):
            return _refused(link, position, "a link that leads to nothing")
        raise
    is_folder = stat.S_ISDIR(found.st_mode)
    if not (is_video or is_folder):
        return None
    if not target.is_relative_to(root):
        return _refused(link, position, OUT_OF_FOLDER)
    if is_folder:  # what is in it is listed where it lies
        return None
    if not stat.S_ISREG(found.st_mode):
        return _refused(link, position, f"a link to {kind_of(found.st_mode)}, not to a file")
    return entry_of(target, position)


def entry_of(path: Path, position: str) -> RawEntry:
    found = path.stat()
    return RawEntry(uri_of(path), found.st_size, str(found.st_mtime_ns), position)


def _refused(path: str, position: str, why: str) -> RawEntry:
    return RawEntry(_uri_of_text(path), 0, "", position, why)


def kind_of(mode: int) -> str:
    """What a file of this mode is, for a sentence."""
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "something else")


def _why(error: Exception) -> str:
    """What keeps an entry from being read, to follow a colon. Always the same for one fault: what
    was told once is known by it."""
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


def check_local(uri: str) -> os.stat_result:
    """The state of a local raw file, which is a plain file where it was listed.

    Raises RawRefusedError if it is something else by now, RawMovedError if its folder is reached by
    a link (listings name files by paths without links), FileNotFoundError if nothing is there.
    """
    path = path_of(uri)
    try:
        found = path.lstat()
        real = os.path.realpath(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{uri} is not there (any more)") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise RawRefusedError(f"{uri}: {_why(error)}") from error
    if stat.S_ISLNK(found.st_mode):
        raise RawRefusedError(f"{uri}: a link by now, which is not followed")
    if not stat.S_ISREG(found.st_mode):
        raise RawRefusedError(f"{uri}: {kind_of(found.st_mode)} by now, not a file")
    if real != str(path.absolute()):
        raise RawMovedError(
            f"{uri}: a folder of its path is a link by now, which is not followed: name the folder "
            "where the files lie, or put them back"
        )
    return found
