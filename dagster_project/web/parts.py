"""Start processes that end when their parent does, with all that they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

import psutil

from dagster_project.web import with_parent
from resources.processes import has_own_proc

_LOOK_S = 0.05


class Parts:
    """Processes by name. A context manager: all of them are stopped at its end."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._remains: list[subprocess.Popen[bytes]] = []
        """Processes that ended and were started again, and left runs behind that go on."""

    def start(
        self,
        name: str,
        module: str,
        *arguments: str,
        python: str = sys.executable,
        keep: Sequence[int] = (),
    ) -> None:
        """Run a Python module as a process that inherits the descriptors in `keep`.

        It gets a session of its own: a Ctrl-C in the terminal is for the parent alone to see.
        """
        if name in self._running:
            self._remains.append(self._running[name])
        command = [python, with_parent.__file__, module, *arguments]
        self._running[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=keep, start_new_session=True
        )

    def status(self, name: str) -> int | None:
        """Exit status of a process. None while it runs, and if it was not started."""
        self._remains = [process for process in self._remains if _is_running(process)]
        process = self._running.get(name)
        return None if process is None else process.poll()

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        processes = [*self._running.values(), *self._remains]
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            if process.poll() is not None:  # and cannot interrupt its session itself
                _signal(process, signal.SIGINT)
        deadline = time.monotonic() + with_parent.GRACE_S
        # A second Ctrl-C: somebody cannot wait.
        with suppress(KeyboardInterrupt):
            while any(map(_is_running, processes)) and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
        for process in processes:
            _signal(process, signal.SIGKILL)
            process.wait()


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process lives, or another one of its session (a run of a code server)."""
    if process.poll() is None:
        return True
    # As the first process of a container we inherit what it left behind, and have to reap it.
    with suppress(ChildProcessError):
        while os.waitpid(-process.pid, os.WNOHANG) != (0, 0):
            pass
    if not _signal(process, 0):
        return False
    # The rest may have ended, too: where init does not reap, it stays in the group for ever.
    return not has_own_proc() or any(
        _group(other) == process.pid and other.info["status"] != psutil.STATUS_ZOMBIE
        for other in psutil.process_iter(["status"])
    )


def _group(process: psutil.Process) -> int | None:
    with suppress(OSError):
        return os.getpgid(process.pid)
    return None


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to the whole session of a process. False if nothing of it lives."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True
