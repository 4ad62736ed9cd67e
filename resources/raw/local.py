"""Raw videos in folders of this machine: what there is, and what must not be read.

Whoever may put files into a raw folder is not trusted: a link may lead anywhere, and opening a pipe
waits for ever. Here: names and kinds of files. Not here: their content, S3 (`raw`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resources.raw.plain_files import kind_of
from resources.raw.presence import listed_version, why_not
from resources.raw.uris import path_of, uri_of, uri_of_text

LISTING_PAGE = 1000
OUT_OF_FOLDER = "a link that leads out of its folder is not followed"


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
        raise FileNotFoundError(f"no file or folder {path}: {why_not(error)}") from error
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
            entry = _refused(child.path, here, why_not(error))
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
        why = why_not(error)
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
        uri = uri_of_text(child.path)
        return RawEntry(uri, found.st_size, listed_version(found), position)
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
    return RawEntry(uri_of(path), found.st_size, listed_version(found), position)


def _refused(path: str, position: str, why: str) -> RawEntry:
    return RawEntry(uri_of_text(path), 0, "", position, why)
