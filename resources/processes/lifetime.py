"""How processes end: with their parent, with all that they have started, and why one did.

Here: what the kernel is asked for (Linux), and telling. Not here: starting any (`program`,
`fork_server`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, of that number, is gone, wherever this one
    hangs. If the parent is gone already, this process ends here."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def outlive_parent() -> None:
    """Take `die_with_parent` back."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def adopt_orphans() -> None:
    """Make what descendants leave behind when they end a child of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_tree(pid: int) -> None:
    """SIGKILL a process and everything below it."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        kill_descendants(root)
        root.kill()


def kill_descendants(root: psutil.Process) -> None:
    """SIGKILL all below a process. Frozen first, until no new one appears: none forks away."""
    frozen: dict[int, psutil.Process] = {}
    while found := [p for p in root.children(recursive=True) if p.pid not in frozen]:
        for process in found:
            frozen[process.pid] = process
            with suppress(psutil.NoSuchProcess):
                process.suspend()
    for process in frozen.values():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def kill_marked(variable: str, mark: str) -> Iterator[psutil.Process]:
    """SIGKILL all that have this among the marks in a variable of their environment, with
    everything below them."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if mark in process.environ().get(variable, "").split():
                kill_tree(process.pid)
                yield process


def is_running(process: psutil.Process) -> bool:
    """Tell whether a process is there, and more than an entry that nobody has reaped."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cause_of_death(status: int) -> str:
    """Complete "the process …". status: as of `subprocess`, negative for a signal."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"exited with status {status}"


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
