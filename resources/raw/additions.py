"""Adds files to the raw lake, a folder or an `s3://` prefix: the one thing that ever does.

A file appears whole, under a name that nothing had; none is ever replaced, changed or deleted. Not
here: where files come from.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resources.lake.s3.storage import S3Storage
from resources.lake.storage import ChangedError, check_key, file_sha256
from resources.raw.presence import VIDEO_SUFFIXES
from resources.raw.s3.objects import first_object
from resources.raw.scratch import Scratch, ScratchError
from resources.raw.uris import is_remote, path_of, uri_of

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
"""Of Linux."""
ASIDE = ".ingest"
"""Of a folder: what is not whole yet. Listings pass over names that begin with a dot."""

IN_SCRATCH = "ingest"
"""The same for S3; each place has a folder of its own, whose name begins so."""


def folders_aside(uris: Iterable[str]) -> list[Path]:
    """Where files may lie that are not whole yet, by what lies in the raw lake."""
    above = {parent for uri in uris if not is_remote(uri) for parent in path_of(uri).parents}
    found = [parent / ASIDE for parent in sorted(above)]
    with suppress(ScratchError):
        found += sorted(Scratch.of_machine().root.glob(f"{IN_SCRATCH}*"))
    return [folder for folder in found if folder.is_dir()]


class RawFolder:
    """A folder of the raw lake, made if it is not there. Raises OSError."""

    def __init__(self, place: str) -> None:
        path = path_of(place).expanduser()
        path.mkdir(parents=True, exist_ok=True)
        self.root = path.resolve(strict=True)

    @contextmanager
    def aside(self) -> Iterator[Path]:
        """A folder for what is not whole yet, from which `add` takes it."""
        folder = self.root / ASIDE
        folder.mkdir(mode=0o700, exist_ok=True)
        yield folder

    def add(self, path: Path, name: str) -> bool:
        """Have a file that is aside, and on the disk, under a name. False if that is taken.

        Where the file system has no links, it is moved, in one step that replaces nothing; where it
        cannot do that either, a file that gets the same name at that moment may be replaced.
        """
        target = self._path(name)
        try:
            os.link(path, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not _moved(path, target):
                return False
        self._sync(target.parent)
        return True

    def write(self, name: str, data: bytes) -> bool:
        """Have a small file. False if the name is taken."""
        with self.aside() as folder:
            path = folder / uuid.uuid4().hex
            try:
                with path.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                return self.add(path, name)
            finally:
                path.unlink(missing_ok=True)

    def uri(self, name: str) -> str:
        return uri_of(self.root / check_key(name))

    def size(self, name: str) -> int | None:
        """In bytes; None if there is no such file."""
        path = self.root / check_key(name)
        return path.stat().st_size if path.is_file() else None

    def sha256(self, name: str) -> str:
        return file_sha256(self.root / check_key(name))

    def video_named(self, stem: str) -> str | None:
        """The name of a video that is called so, whatever its suffix; None if there is none."""
        names = (f"{stem}{suffix}" for suffix in sorted(VIDEO_SUFFIXES))
        return next((name for name in names if self.size(name) is not None), None)

    def _path(self, name: str) -> Path:
        target = self.root / check_key(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(self.root):
            raise OSError(f"{target.parent} is a link that leads out of {self.root}")
        return target

    @staticmethod
    def _sync(folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _moved(path: Path, target: Path) -> bool:
    """Rename a file; False if the name is taken."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        rename = libc.renameat2
    except AttributeError:  # another system than Linux, or an old one
        number = errno.ENOSYS
    else:
        places = _AT_FDCWD, os.fsencode(path), _AT_FDCWD, os.fsencode(target)
        if rename(*places, _RENAME_NOREPLACE) == 0:
            return True
        number = ctypes.get_errno()
    if number == errno.EEXIST or os.path.lexists(target):
        return False
    if number not in {*_NO_LINKS, errno.EINVAL}:  # of file systems that cannot do it
        raise OSError(number, os.strerror(number), str(target))
    path.rename(target)
    return True


class RawPrefix:
    """A prefix of a bucket; what is not whole yet lies in the scratch space. Raises botocore's
    errors, ScratchError."""

    def __init__(self, place: str) -> None:
        self._storage = S3Storage(place)

    @contextmanager
    def aside(self) -> Iterator[Path]:
        place = hashlib.sha256(self._storage.uri("x").encode()).hexdigest()[:16]
        with Scratch.of_machine().own_folder(f"{IN_SCRATCH}-{place}") as folder:
            yield folder

    def add(self, path: Path, name: str) -> bool:
        try:
            self._storage.put_file(name, path, {"IfNoneMatch": "*"})
        except ChangedError:
            return False
        return True

    def write(self, name: str, data: bytes) -> bool:
        return self._storage.write(name, data, replace=False)

    def uri(self, name: str) -> str:
        return self._storage.uri(name)

    def size(self, name: str) -> int | None:
        return self._storage.size(name) if self._storage.exists(name) else None

    def sha256(self, name: str) -> str:
        return self._storage.sha256(name)

    def video_named(self, stem: str) -> str | None:
        uris = {self.uri(f"{stem}{suffix}"): f"{stem}{suffix}" for suffix in VIDEO_SUFFIXES}
        found = first_object(sorted(uris))
        return None if found is None else uris[found]


RawTarget = RawFolder | RawPrefix


def open_target(place: str) -> RawTarget:
    """Where files are to be added. Raises OSError, ValueError."""
    return RawPrefix(place) if is_remote(place) else RawFolder(place)
