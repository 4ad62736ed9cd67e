"""A program on a terminal, as a person sees and interrupts it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
EGO = [sys.executable, "-c", "from dagster_project.cli import main; main()"]


class PseudoTerminal:
    """Runs a command on it; `shown` is all that it printed, without control sequences."""

    def __init__(self, command: list[str], columns: int = 80, **environment: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        path = os.pathsep.join(sys.path)
        # Its size is the terminal's own, whatever the tests before have said of theirs.
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=kept | {"PYTHONPATH": path, "TERM": "xterm"} | environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self._raw = b""

    @property
    def shown(self) -> str:
        return SEQUENCES.sub("", self._raw.decode(errors="replace"))

    def read_until(self, is_there: Callable[[str], bool]) -> None:
        """Read on until it is there, or the program closed the terminal."""
        deadline = time.monotonic() + 300
        while not is_there(self.shown):
            assert time.monotonic() < deadline, self.shown[-3000:]
            if select.select([self.master], [], [], 1)[0]:
                try:
                    self._raw += os.read(self.master, 65536)
                except OSError:  # closed
                    return

    def press_ctrl_c(self) -> None:
        os.write(self.master, b"\x03")

    def end(self) -> int:
        """Read what is left. Returns the exit status."""
        self.read_until(lambda _: False)
        return self.process.wait(60)


def _take_terminal() -> None:
    """In the child. pytest may itself run in the background, and ignore Ctrl-C."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def on_terminal(
    command: list[str], columns: int = 80, **environment: str
) -> Iterator[PseudoTerminal]:
    """Run a command on a terminal; it ends with the block."""
    terminal = PseudoTerminal(command, columns, **environment)
    try:
        yield terminal
    finally:
        if terminal.process.poll() is None:
            os.killpg(terminal.process.pid, signal.SIGKILL)
            terminal.process.wait(60)
        os.close(terminal.master)
