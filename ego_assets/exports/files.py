"""Writes files of an export so that errors say where, and that a crash leaves nothing half done."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from ego_assets.exports.grid import ExportError

IN_LAKE = "exports"
"""Folder of a lake that data sets are written to, if a person names no other place."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors of the disk say which file they are about; libraries often leave that out."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    with naming(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


UNFINISHED = ".unfinished"
"""Suffix of a folder that is being made, or removed: nobody may take it for a whole one."""


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A folder to write to, which gets its name when the block ends without an error.

    It replaces a folder of that name.
    """
    aside = folder.with_name(folder.name + UNFINISHED)
    with naming(aside):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    try:
        yield aside
        for path in (*aside.rglob("*"), aside):
            sync(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(folder)
    aside.rename(folder)


def remove(folder: Path) -> None:
    """Remove a folder so that a crash leaves all of it under its name, or nothing."""
    aside = folder.with_name(folder.name + UNFINISHED)
    with naming(folder):
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(FileNotFoundError):
            folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other exports out of the folder while the block runs."""
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportError(f"{folder}: another export is writing to it") from None
        yield
    finally:
        os.close(descriptor)


def is_inside(name: str) -> bool:
    """Whether a relative name, joined to a folder, stays in it."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
