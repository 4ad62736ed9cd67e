"""Bytes under keys, published atomically. Here: the local folder. Not here: tables, Parquet.

A writer writes aside (in the folder `.aside`, on the same file system), syncs, and renames: a
reader sees the old file or the new one, never half of one, whatever kills the writer.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from resources.processes import Life, life_of, process_name
from resources.processes.silence import GRACE_S

ASIDE = ".aside"
LOCKS = "_locks"


class UnsafeKeyError(ValueError):
    """A key that would leave the lake, or that no file system takes."""


class ChangedError(RuntimeError):
    """Somebody else wrote the key in between."""


def check_key(key: str) -> str:
    """Return `key` if it is a relative, normal path of printable names; else raise."""
    bad = "\\" in key or not key.isprintable()
    if bad or any(p in {"", "..", "."} or len(p.encode()) > 200 for p in key.split("/")):
        raise UnsafeKeyError(f"not a safe key: {key!r}")
    return key


class LocalStorage:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = str(root)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "location": self.location}

    @cached_property
    def filesystem(self) -> Any:
        """pyarrow's, for reads by range."""
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem()

    def uri(self, key: str) -> str:
        return str(self.path(key))

    def arrow_path(self, key: str) -> str:
        """What `filesystem` calls the file: its plain path, of which nothing is escaped."""
        return str(self.path(key))

    def is_lake(self) -> bool:
        return self.root.is_dir()

    def version(self, key: str) -> str | None:
        """Of no use here: `lock` is enough."""
        return ""

    def identity(self, key: str) -> str | None:
        """Tells one file under a key from another that replaced it; None if there is none."""
        try:
            found = self.path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return f"{found.st_ino}.{found.st_size}.{found.st_mtime_ns}"

    def open(self, key: str) -> pa.NativeFile:
        """One version of a file, however often it is read. Raises FileNotFoundError.

        Not a file of Python's: Arrow's threads may read ahead in it while Python ends, and a
        thread that then asks for the interpreter takes the process down.
        """
        return pa.OSFile(str(self.path(key)), "rb")

    def sha256(self, key: str) -> str:
        return file_sha256(self.path(key))

    def size(self, key: str) -> int:
        return self.path(key).stat().st_size

    def move(self, key: str, target: str) -> None:
        where = self.path(target)
        where.parent.mkdir(parents=True, exist_ok=True)
        self.path(key).replace(where)

    def copy(self, key: str, target: str) -> None:
        """Publish a file under another key, too, in place of what is there. Files here are never
        written again, so that both may be one on disk."""
        where, aside = self.path(target), self._aside()
        where.parent.mkdir(parents=True, exist_ok=True)
        try:
            try:
                os.link(self.path(key), aside)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without links
                shutil.copyfile(self.path(key), aside)
            if not (where.exists() and where.samefile(aside)):  # then a rename does nothing
                aside.replace(where)
            _sync_folder(where.parent)
        finally:
            aside.unlink(missing_ok=True)

    def path(self, key: str) -> Path:
        return self.root / check_key(key)

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def read(self, key: str) -> bytes:
        """Raises FileNotFoundError."""
        return self.path(key).read_bytes()

    def write(self, key: str, data: bytes | memoryview, *, replace: bool = True) -> bool:
        """Publish `data` under `key`. With replace=False the first writer wins; tells if it did."""
        with self.open_aside(key, replace=replace) as target:
            target.write(data)
        return target.published

    @contextmanager
    def open_aside(
        self, key: str, *, replace: bool = True, version: str | None = ""
    ) -> Iterator[AsideFile]:
        """A file to fill; published under `key` when the block ends without an exception.

        version: of no use here: `lock` is enough.
        """
        target = self.path(key)
        aside = self._aside()
        try:
            with aside.open("xb") as raw:
                file = AsideFile(raw, aside)
                yield file
                raw.flush()
                os.fsync(raw.fileno())
            while not file.published:
                _make_folder(target.parent)
                try:
                    aside.replace(target) if replace else os.link(aside, target)
                except FileExistsError:
                    break
                except FileNotFoundError as error:
                    if not aside.exists():  # swept away by a machine whose clock is wrong
                        raise OSError(
                            errno.ESTALE, "was removed while it was written", str(aside)
                        ) from error
                    continue  # `drop_empty` was quicker
                file.published = True
            with suppress(FileNotFoundError):  # it was merged already, and its folder dropped
                _sync_folder(target.parent)
        finally:
            aside.unlink(missing_ok=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Only one process at a time is in here under `name`; a dead one is in here no more."""
        path = self.path(f"{LOCKS}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def sweep_aside(self, older_than_s: float, grace_s: float = GRACE_S) -> int:
        """Delete what killed writers left behind, and what is older. Returns how many files.

        grace_s: left to who seems to be gone, and may be of a machine that is a copy of this one.
        """
        count = 0
        with suppress(FileNotFoundError):
            for path in (self.root / ASIDE).iterdir():
                with suppress(FileNotFoundError):
                    age_s = time.time() - path.stat().st_mtime
                    life = life_of(path.name.rpartition(".")[0])
                    if life is Life.ALIVE:  # whatever the clock says
                        continue
                    if age_s > older_than_s or (life is Life.GONE and age_s >= grace_s):
                        path.unlink()
                        count += 1
        return count

    def _aside(self) -> Path:
        """A name for a file that is not there yet; it says who writes it."""
        folder = self.root / ASIDE
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{process_name()}.{uuid.uuid4().hex}"

    def list(self, prefix: str, begin: str = "") -> list[str]:
        """Keys of the files directly in the folder `prefix`, sorted; of those whose names begin
        with `begin`."""
        try:
            with os.scandir(self.path(prefix)) as found:
                names = [e.name for e in found if e.name.startswith(begin) and e.is_file()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(f"{prefix}/{name}" for name in names)

    def walk(self, prefix: str) -> Iterator[str]:
        """Keys of the files in the folders below `prefix`, one level deep."""
        try:
            with os.scandir(self.path(prefix)) as found:
                folders = sorted(e.name for e in found if e.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return
        for folder in folders:
            yield from self.list(f"{prefix}/{folder}")

    def everything(self) -> Iterator[str]:
        """Keys of all files, whatever folder they are in."""
        for folder, _, names in os.walk(self.root):
            above = Path(folder).relative_to(self.root).as_posix()
            yield from sorted(name if above == "." else f"{above}/{name}" for name in names)

    def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def purge(self, begin: str) -> int:
        """A file that was replaced or deleted here has left no earlier version."""
        return 0

    def drop_empty(self, prefix: str) -> None:
        """Remove the folder if nothing is in it: what looks into all of them is quicker then."""
        with suppress(OSError):
            self.path(prefix).rmdir()


class AsideFile:
    """The file that `open_aside` hands out; `published` tells how it ended."""

    def __init__(self, raw: BinaryIO, path: Path) -> None:
        self.raw = raw
        self.path = path
        self.published = False

    def write(self, data: bytes | memoryview) -> int:
        return self.raw.write(data)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_folder(folder: Path) -> None:
    """Makes a folder that `drop_empty` may remove at any moment, also while mkdir looks at it."""
    while not folder.is_dir():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            with suppress(FileNotFoundError):
                if not stat.S_ISDIR(folder.lstat().st_mode):
                    raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
