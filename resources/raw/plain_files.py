"""Opens files that come with raw data: plain ones only, and never waiting for somebody else.

Opening a named pipe waits until somebody writes to it, reading a device may never end, and a link
may lead anywhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

READ_BLOCK = 4 * 2**20
OF_STORAGE = frozenset(
    [
        *(errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT),
        *(errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.EREMOTEIO, errno.EHOSTDOWN),
        *(errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ESHUTDOWN),
    ]
)
"""What a system call says of a file whose place is away, and no decoder says of damage. EIO is not
among them: libav says that of a file that ends too early, too."""
_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotAFileError(ValueError):
    """Something else than a plain file lies there; the message says what."""


def kind_of(mode: int) -> str:
    """What a file of this mode is, for a sentence."""
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "something else")


def open_regular(path: Path) -> BinaryIO:
    """Open a plain file for reading; the last part of its path may be no link.

    Raises NotAFileError, OSError.
    """
    _check_plain(path.lstat().st_mode)
    # Another one may lie there by now: a pipe does not keep us waiting, a link is not followed.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotAFileError("it is a link, not a file") from error
        raise
    try:
        _check_plain(os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a plain file, with bounded memory. Raises NotAFileError, OSError that names the
    file."""
    try:
        with open_regular(path) as file:
            while block := file.read(READ_BLOCK):
                yield block
    except OSError as error:  # of a reading that fails, it has no name
        raise OSError(error.errno, error.strerror, str(path)) from error


def _check_plain(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotAFileError(f"it is {kind_of(mode)}, not a file")


def read_beside(path: Path, max_bytes: int) -> bytes | None:
    """The bytes of a small file beside a video: a plain one, reached without leaving the folder;
    None if there is none.

    Raises NotAFileError, which says why it is not read and quotes nothing; OSError that names the
    file if that says nothing of the file, but of where it lies.
    """
    folder = path.parent
    too_large = f"it is larger than {max_bytes // 2**20} MiB"
    try:
        if path.is_symlink():
            path = _target(path, folder)
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > max_bytes:
                raise NotAFileError(too_large)
            data = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # no file can have that name
            return None
        if error.errno in OF_STORAGE | {errno.EIO}:
            raise OSError(error.errno, error.strerror, str(path)) from error
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        raise NotAFileError(f"it cannot be read ({why})") from error
    if len(data) > max_bytes:
        raise NotAFileError(too_large)
    return data


def _target(link: Path, folder: Path) -> Path:
    """The file that a link leads to, if that lies in its folder or below it."""
    try:
        target = Path(os.path.realpath(link, strict=True))
    except FileNotFoundError:
        raise NotAFileError("it is a link that leads to nothing") from None
    except OSError as error:
        why = "in a circle" if error.errno == errno.ELOOP else "to what cannot be read"
        raise NotAFileError(f"it is a link that leads {why}") from None
    if not target.is_relative_to(os.path.realpath(folder)):
        raise NotAFileError("it is a link that leads out of its folder, which is not followed")
    return target
