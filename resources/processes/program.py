"""Programs that this process starts, and that end with all that they have started.

Not here: processes that have our modules loaded (`fork_server`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from resources.processes import has_own_proc
from resources.processes.last_words import LastWords
from resources.processes.lifetime import kill_tree


class Program:
    """A program in a session of its own: a Ctrl-C in the terminal is for its parent alone to see.

    It is killed when nobody has this object any more. keeps: descriptors that it inherits; said_to:
    where its output goes. options: as of `subprocess.Popen`, whose exceptions it raises.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        keeps: Sequence[int] = (),
        said_to: LastWords | None = None,
        **options: Any,
    ) -> None:
        if said_to is not None:
            options |= {"stdin": subprocess.DEVNULL, "stdout": said_to, "stderr": said_to}
        self.process = subprocess.Popen(command, pass_fds=keeps, start_new_session=True, **options)
        self._end = weakref.finalize(self, _kill, self.process, os.getpid())

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self.process.poll()

    def signal(self, number: int) -> bool:
        """Send a signal to its whole session. False if nothing of it lives."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def is_running(self) -> bool:
        """Tell whether it lives, or another process of its session."""
        if self.status is None:
            return True
        # As the first process of a container we inherit what it left behind, and have to reap it.
        with suppress(ChildProcessError):
            while os.waitpid(-self.process.pid, os.WNOHANG) != (0, 0):
                pass
        if not self.signal(0):
            return False
        # The rest may have ended, too: where init does not reap, it stays in the group for ever.
        return not has_own_proc() or any(
            _group(other) == self.process.pid and other.info["status"] != psutil.STATUS_ZOMBIE
            for other in psutil.process_iter(["status"])
        )

    def kill(self, grace_s: float = 0.0) -> None:
        """End it, and all that it has started. grace_s: how long it may take to end by itself: its
        own exit status says more than ours."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_s)
        self._end()


def environment_for(program: str, hidden: tuple[str, ...]) -> dict[str, str]:
    """Return our environment for a program of another one, as if that were activated (compilers lie
    beside its interpreter). hidden: what begins so, it does not get."""
    found = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    places = [str(Path(program).parent), found.get("PATH", os.defpath)]
    return found | {"PATH": os.pathsep.join(places)}


def _kill(process: subprocess.Popen[bytes], parent: int) -> None:
    if os.getpid() != parent:
        return  # a copy of us
    if process.poll() is None:
        kill_tree(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _group(process: psutil.Process) -> int | None:
    with suppress(OSError):
        return os.getpgid(process.pid)
    return None
