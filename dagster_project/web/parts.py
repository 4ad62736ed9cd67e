"""Start processes that end when their parent does, with all that they have started."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

from resources.processes import with_parent
from resources.processes.program import Program

_LOOK_S = 0.05


class Parts:
    """Processes by name. A context manager: all of them are stopped at its end."""

    def __init__(self) -> None:
        self._running: dict[str, Program] = {}
        self._remains: list[Program] = []
        """Processes that ended and were started again, and left runs behind that go on."""

    def start(
        self,
        name: str,
        module: str,
        *arguments: str,
        python: str = sys.executable,
        keep: Sequence[int] = (),
    ) -> None:
        """Run a Python module as a process that inherits the descriptors in `keep`."""
        if name in self._running:
            self._remains.append(self._running[name])
        command = [python, with_parent.__file__, module, *arguments]
        self._running[name] = Program(command, keeps=keep, stdin=subprocess.PIPE)

    def status(self, name: str) -> int | None:
        """Exit status of a process. None while it runs, and if it was not started."""
        self._remains = [program for program in self._remains if program.is_running()]
        program = self._running.get(name)
        return None if program is None else program.status

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        programs = [*self._running.values(), *self._remains]
        for program in programs:
            assert program.process.stdin is not None
            program.process.stdin.close()
            if program.status is not None:  # and cannot interrupt its session itself
                program.signal(signal.SIGINT)
        deadline = time.monotonic() + with_parent.GRACE_S
        # A second Ctrl-C: somebody cannot wait.
        with suppress(KeyboardInterrupt):
            while any(p.is_running() for p in programs) and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
        for program in programs:
            program.kill()
