"""Temporary folders of which others can tell that their owner is dead, and remove them.

An owner that is killed removes nothing. So it keeps a lock on its folder, which the kernel frees on
any death, and whoever calls `sweep` removes the folders without one.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from multiprocessing import util
from pathlib import Path

PREFIX = "ego-own-"  # short: paths of sockets are
MARK = ".made-by-ego-assets"
"""A file in each of these folders: nobody else's is removed, whatever its name."""
_NAME = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}")
OUTER_VARIABLE = "EGO_OUTER_TMPDIR"
"""The temporary folder of a process that has one of its own for its lifetime."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that is there while the block runs."""
    folder, descriptor = make_temporary_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def make_temporary_folder() -> tuple[Path, int]:
    """Make a folder, and return it with the descriptor that keeps it: it is swept once all copies
    of that are closed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):  # swept before it could be locked
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # a file system without locks, where nothing is swept
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                (folder / MARK).touch()
                return folder, descriptor
            os.close(descriptor)


@contextmanager
def temporary_folder_of_a_program() -> Iterator[dict[str, str]]:
    """Make a folder for all temporary files of other programs while the block runs. Yields the
    environment that has them use it."""
    outer = tempfile.gettempdir()
    folder, descriptor = make_temporary_folder()
    try:
        yield {"TMPDIR": str(folder), OUTER_VARIABLE: outer}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def leave_folder_of_program() -> None:
    """Use the machine's temporary folder again, in this process and those that it starts: what it
    caches there is meant to stay."""
    if outer := os.environ.pop(OUTER_VARIABLE, ""):
        os.environ["TMPDIR"], tempfile.tempdir = outer, None


def own_folder_of_multiprocessing() -> None:
    """Have what the standard library's multiprocessing needs a folder for in this process (pools,
    managers) use one of these, made when it is first asked for."""
    util.get_temp_dir = lambda: _folder_of(os.getpid())
    # Whoever cleared the exit functions of the process that we were forked from cleared this, too.
    atexit.unregister(util._exit_function)  # type: ignore[attr-defined]
    atexit.register(util._exit_function)  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def _folder_of(pid: int) -> str:
    folder, _ = make_temporary_folder()
    util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-100)
    return str(folder)


def sweep() -> int:
    """Remove the folders whose owners are dead. Return how many."""
    count = 0
    with suppress(FileNotFoundError):
        for folder in Path(tempfile.gettempdir()).iterdir():
            if _NAME.fullmatch(folder.name):
                with suppress(OSError):
                    count += _remove_if_dead(folder)
    return count


def _remove_if_dead(folder: Path) -> bool:
    # It may be a link, or somebody else's: /tmp is open to all.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner may have been killed before it could leave its mark.
        inside = [entry.name for entry in folder.iterdir()]
        if inside and MARK not in inside:
            return False
        shutil.rmtree(folder)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
