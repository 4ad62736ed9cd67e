"""Shows that a run's process lives by a file that the process keeps locked.

The kernel frees the lock however the process ends, so a file that can be locked belongs to a run
that is gone: also after the machine or the container was restarted, where names of processes say
nothing any more. The files lie in DAGSTER_HOME. Where there is no file (the run is on a machine
with another DAGSTER_HOME, or of an older release), nothing follows.

On a network file system a lock may be known only to the machine that holds it. There, a file that
can be locked is believed only if it was written on this boot of this machine.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from resources.processes import Life, boot_id

FOLDER = "live_runs"
_SUFFIX = ".lock"
_LOCAL = frozenset(
    [
        "apfs",
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "hfs",
        "jfs",
        "nilfs2",
        "overlay",
        "ramfs",
        "reiserfs",
        "tmpfs",
        "ufs",
        "xfs",
        "zfs",
    ]
)
"""File systems that one kernel has to itself: all who can see the file see the lock."""
_ATTEMPTS = 5
_held: set[int] = set()


class RunLocks:
    """The locks of the runs of a Dagster instance."""

    def __init__(self, home: str | Path) -> None:
        """home: the instance's root directory, which is DAGSTER_HOME."""
        self._folder = Path(home) / FOLDER

    def take(self, run_id: str) -> RunLock | None:
        """Lock the run's file until `release`, or until this process ends.

        None if the folder cannot be written: then the run is judged as one without a file.
        """
        for _ in range(_ATTEMPTS):
            aside = self._folder / f".{secrets.token_hex(8)}{_SUFFIX}"
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            except OSError:
                return None
            _held.add(descriptor)
            lock = RunLock(self._file(run_id), descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                os.write(descriptor, boot_id().encode())
                os.fsync(descriptor)
                # Nobody ever sees the file under its name without the lock.
                aside.replace(lock.path)
                self._sync()
            except FileNotFoundError:  # somebody swept it before it was locked
                lock.close()
            except OSError:
                lock.close()
                with suppress(OSError):
                    aside.unlink()
                return None
            else:
                return lock
        return None

    @contextmanager
    def held(self, run_id: str) -> Iterator[None]:
        """Keep the run's file locked, if it can be."""
        lock = self.take(run_id)
        try:
            yield
        finally:
            if lock:
                lock.release()

    def life_of(self, run_id: str) -> Life:
        """Tell whether the run's process lives, as far as its file tells."""
        return self._life(self._file(run_id))

    def run_ids(self) -> list[str]:
        """Return the runs that have a file."""
        with suppress(OSError):
            names = [f.name for f in self._folder.iterdir() if f.name.endswith(_SUFFIX)]
            return [n.removesuffix(_SUFFIX) for n in names if not n.startswith(".")]
        return []

    def forget(self, run_id: str) -> None:
        """Remove the file of a run, unless its process may live."""
        self._remove(self._file(run_id))

    def sweep(self) -> None:
        """Remove what processes left that were killed while they made a file."""
        with suppress(OSError):
            for path in self._folder.glob(f".*{_SUFFIX}"):
                self._remove(path)

    # -- inside ------------------------------------------------------------------------------

    def _file(self, run_id: str) -> Path:
        return self._folder / f"{run_id}{_SUFFIX}"

    def _life(self, path: Path) -> Life:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (OSError, ValueError):
            return Life.UNKNOWN
        try:
            # Shared, so that two who look do not take each other for the run.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            boot = os.read(descriptor, 100).decode(errors="replace")
        except BlockingIOError:
            return Life.ALIVE
        except OSError:
            return Life.UNKNOWN
        finally:
            os.close(descriptor)
        is_ours = bool(boot) and boot == boot_id()
        return Life.GONE if is_ours or self._is_local() else Life.UNKNOWN

    def _is_local(self) -> bool:
        return _file_system(self._folder) in _LOCAL

    def _remove(self, path: Path) -> None:
        if self._life(path) is Life.GONE:
            with suppress(OSError):
                path.unlink()

    def _sync(self) -> None:
        """Make the name of a file outlast a power cut."""
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # some file systems cannot
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


class RunLock:
    """A lock that this process holds."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._owner: int | None = os.getpid()

    def release(self) -> None:
        """Remove the file and free the lock: the run has ended. May be called again."""
        if self._owner != os.getpid():  # released already, or a fork's copy
            return
        with suppress(OSError):
            mine, there = os.fstat(self._descriptor), self.path.stat()
            if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Free the lock."""
        self._owner = None
        _held.discard(self._descriptor)
        os.close(self._descriptor)


def _file_system(folder: Path) -> str:
    """Return the type of the file system that holds a folder; empty if it cannot be told."""
    real = Path(os.path.realpath(folder))
    try:
        mounts = {Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)}
    except (OSError, RuntimeError):
        return ""
    return next((mounts[place] for place in (real, *real.parents) if place in mounts), "")


def _let_go() -> None:
    """A fork must not keep the lock when the run's process is gone."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)
