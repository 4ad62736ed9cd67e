"""What a step may change in its process, put back before the next step of a warm worker.

Here: everything that a fresh process would have had for itself, except imported modules, what they
cache and what is set in them (torch's default type, say): keeping a loaded model is what a warm
worker is for.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import sys
import threading
import warnings
from typing import Any

import psutil

from resources.processes.fork_server import shared_pids
from resources.processes.lifetime import is_running


class Surroundings:
    """A picture of the process. `restore` puts it back; `…_left` say what cannot be."""

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self.folder = os.getcwd()  # noqa: PTH109  (a name to go back to)
        self.umask = _umask()
        self.handlers = {s: signal.getsignal(s) for s in _catchable()}
        self.streams = (sys.stdin, sys.stdout, sys.stderr)
        self.hooks = (sys.excepthook, threading.excepthook, sys.gettrace(), sys.getprofile())
        self.argv, self.path = list(sys.argv), list(sys.path)
        self.filters = list(warnings.filters)
        root = logging.getLogger()
        self.logging = (root.level, list(root.handlers), list(root.filters), logging.root.disabled)
        self.silenced = logging.root.manager.disable
        self.limits = (sys.getrecursionlimit(), socket.getdefaulttimeout())
        self.cpus = os.sched_getaffinity(0)
        self.threads = set(threading.enumerate())

    def restore(self) -> None:
        """Raises OSError if the folder that we were in is gone."""
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        os.umask(self.umask)
        for number, handler in self.handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdin, sys.stdout, sys.stderr = self.streams
        sys.excepthook, threading.excepthook, trace, profile = self.hooks
        sys.settrace(trace)
        sys.setprofile(profile)
        sys.argv[:], sys.path[:] = self.argv, self.path
        warnings.filters[:] = self.filters  # type: ignore[index]
        root = logging.getLogger()
        level, root.handlers[:], root.filters[:], root.disabled = self.logging
        root.setLevel(level)
        logging.disable(self.silenced)
        recursion_limit, timeout = self.limits
        sys.setrecursionlimit(recursion_limit)
        socket.setdefaulttimeout(timeout)
        os.sched_setaffinity(0, self.cpus)
        reseed()

    def thread_left(self) -> str:
        """Name of a thread that the step started and that a process's end would wait for."""
        new = set(threading.enumerate()) - self.threads
        return next((t.name for t in new if not t.daemon), "")

    def process_left(self) -> int:
        """Id of a process that the step started and that still runs; 0: none."""
        stay = shared_pids()
        below = psutil.Process().children(recursive=True)
        return next((p.pid for p in below if p.pid not in stay and is_running(p)), 0)


def reseed() -> None:
    """No two steps draw the same numbers: not after one set a seed, not in two forked workers."""
    random.seed()
    modules: dict[str, Any] = sys.modules
    if "numpy.random" in modules:
        modules["numpy"].random.seed()
    if "torch" in modules:
        modules["torch"].seed()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _catchable() -> set[signal.Signals]:
    return {s for s in signal.valid_signals() if isinstance(s, signal.Signals)} - {
        signal.SIGKILL,
        signal.SIGSTOP,
    }
