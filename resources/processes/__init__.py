"""Names of processes that other processes may ask about: whether their owner still lives.

A name says on which boot of a machine, in which PID namespace, under which number and at which
clock tick since that boot its process began: `host@boot-pidns-timens:pid:tick`. None of it follows
the clock on the wall, and two containers that share a host name differ. Whoever cannot tell so
(another boot or namespace, a name of an older release, no /proc of one's own) has to go by
heartbeats: `resources.processes.silence`. Runs also hold a lock: `resources.processes.run_locks`.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from pathlib import Path

_NAME = re.compile(r".*@([0-9a-f]{16}-\d+-\d+):(\d{1,10}):(\d+)")
_HOST_CHARACTERS = 48
"""The ledger has room for 128 in all."""
_PROC = Path("/proc")


class Life(Enum):
    """What can be said of the owner of a name."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


def process_name() -> str:
    """Return the name of this process. Where it has no identity, the name is only unique."""
    host = socket.gethostname()[:_HOST_CHARACTERS]
    with suppress(OSError, ValueError, IndexError):
        return f"{host}@{_here()}:{os.getpid()}:{_look_at('self').began}"
    return f"{host}:{os.getpid()}:{_random(os.getpid())}"


def life_of(name: str | None) -> Life:
    """Tell whether the process of that name lives, as far as can be told from here."""
    found = _NAME.fullmatch(name or "")
    if found is None:
        return Life.UNKNOWN
    pid, began = int(found[2]), int(found[3])
    try:
        if pid == 0 or found[1] != _here():
            return Life.UNKNOWN
        os.kill(pid, 0)
    except ProcessLookupError:
        return Life.GONE
    except PermissionError:
        pass  # it is somebody else's
    except (OSError, OverflowError):
        return Life.UNKNOWN
    # /proc may be that of another namespace, hide the processes of others, or not be there.
    with suppress(OSError, ValueError, IndexError):
        if has_own_proc():
            there = _look_at(str(pid))
            is_same = there.began == began and not there.has_ended
            return Life.ALIVE if is_same else Life.GONE
    return Life.UNKNOWN


def is_gone(name: str | None) -> bool:
    """Tell whether the process of that name surely lives no more."""
    return life_of(name) is Life.GONE


def has_own_proc() -> bool:
    """Tell whether /proc shows the processes of this process' own PID namespace: else numbers in
    it mean others than here."""
    with suppress(OSError):
        return os.readlink(_PROC / "self") == str(os.getpid())  # noqa: PTH115
    return False


def boot_id() -> str:
    """Return what names this boot of this machine; empty where the kernel does not tell."""
    with suppress(OSError):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        if re.fullmatch("[0-9a-f]{32}", boot):
            return boot
    return ""


RUN_TAG = "ego/process"
"""Tag of a Dagster run: the process that executes it."""


def run_tag(run_id: str) -> str:
    """Return the value of the tag for this process; with the run's id, since a run that is started
    again may inherit the tags of the one before."""
    return f"{run_id} {process_name()}"


def life_of_run(run_id: str, tag: str) -> Life:
    """Tell whether the process that executes the run lives, as far as can be told from here."""
    of_run, _, name = tag.partition(" ")
    return life_of(name) if of_run == run_id else Life.UNKNOWN


# -- inside --------------------------------------------------------------------------------------


class _Process:
    """A line of /proc/…/stat."""

    def __init__(self, line: str) -> None:
        # The name of the program may hold spaces and parentheses.
        fields = line.rpartition(")")[2].split()
        self.began = int(fields[19])
        # The first thread may end before the others do.
        self.has_ended = fields[0] in "ZX" and int(fields[17]) <= 1


def _look_at(pid: str) -> _Process:
    return _Process((_PROC / pid / "stat").read_text(errors="replace"))


def _here() -> str:
    """Where numbers and ticks of processes are comparable. Raises OSError, ValueError.

    The ticks of a process are shown as of the reader's time namespace.
    """
    boot = boot_id()
    pids = (_PROC / "self/ns/pid").stat().st_ino
    try:
        times = (_PROC / "self/ns/time").stat().st_ino
    except FileNotFoundError:  # a kernel before 5.6
        times = 0
    if not boot:
        raise ValueError("the kernel gives no boot id")
    return f"{boot[:16]}-{pids}-{times}"


@lru_cache(maxsize=8)
def _random(pid: int) -> int:
    return secrets.randbits(48)
