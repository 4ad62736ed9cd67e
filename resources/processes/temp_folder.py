"""A temporary folder whose path is short enough for sockets."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

MAX_TEMP_BYTES = 70
"""Of the path of the temporary folder: the path of a socket has 107 at most, and those of
multiprocessing lie 32 bytes deeper."""
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


class TempFolderError(ValueError):
    """The temporary folder cannot be used for sockets; the message says what to do."""


def shorten_temp_folder() -> None:
    """Give a temporary folder with a long path a short name, for this process and its children.

    multiprocessing and Dagster put sockets there. The name is a link, so that all files still lie
    where TMPDIR says. Raises TempFolderError.
    """
    folder = tempfile.gettempdir()
    length = len(os.fsencode(folder))
    if length <= MAX_TEMP_BYTES:
        return
    for base in _SHORT_FOLDERS:
        with suppress(OSError):
            os.environ["TMPDIR"] = str(_short_link(Path(base), folder))
            tempfile.tempdir = None
            return
    raise TempFolderError(
        f"TMPDIR is {folder!r}, {length} bytes long, and the paths of sockets in it would be too "
        f"long: set it to a folder whose path has at most {MAX_TEMP_BYTES} bytes"
    )


def _short_link(base: Path, folder: str) -> Path:
    """A link to a folder, in a folder of this user alone. Raises OSError."""
    mine = base / f"ego-tmp-{os.getuid()}"
    with suppress(FileExistsError):
        mine.mkdir(mode=0o700)
    found = mine.lstat()
    is_ours = found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077
    if not (stat.S_ISDIR(found.st_mode) and is_ours):
        raise PermissionError(f"{mine} is not a folder of this user alone")
    link = mine / hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    with suppress(FileExistsError):
        link.symlink_to(folder)
    if os.readlink(link) != folder:  # noqa: PTH115  (bytes that are no text stay as they are)
        raise FileExistsError(f"{link} leads elsewhere")
    return link
