"""A helper process in another Python environment, and the requests that go to it.

Here: its start, its limits, its end, its last words. Not here: what it does, or the format of the
messages (`foundationpose_bridge`).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.models.weights import WeightsError
from ego_assets.objects.foundationpose import child as far_side
from resources.devices.leases import hold_ours
from resources.processes.last_words import LastWords
from resources.processes.program import Program, environment_for

HELLO_S = 60.0
LAST_WORDS_CHARS = 2000
_OURS = ("EGO_", "AWS_", "DAGSTER_", "PYTHON", "VIRTUAL_ENV")
"""What of our environment another's program must not have: secrets, and our own Python."""


class BridgeError(RuntimeError):
    """The process answered with an error, died, hung, or sent what is no message."""


class BridgeMemoryError(MemoryError):
    """There was not enough memory, on its device or for it."""


class Bridge:
    """One process at a time. Whatever goes wrong with it, it is killed, and can be started anew."""

    def __init__(self, python: str, script: Path, checkout: Path) -> None:
        # Whole, since it runs in the checkout: a bare name would be looked for there first.
        found = shutil.which(python or sys.executable)
        self.command = [str(Path(found).absolute()) if found else python, str(script)]
        self.checkout = checkout
        self.hello: dict[str, Any] = {}
        self._program: Program | None = None

    @property
    def is_running(self) -> bool:
        return self._program is not None

    def start(self) -> None:
        """Start it and hear its greeting. Raises WeightsError: then it is not set up."""
        if not Path(self.command[0]).is_absolute():
            raise WeightsError(f"{self.command[0]} cannot be started: there is no such program")
        ours, theirs = socket.socketpair()
        self._words = LastWords()
        with theirs, _held_lease() as lease:
            arguments = [str(theirs.fileno()), str(os.getpid()), str(self.checkout)]
            try:
                self._program = Program(
                    [*self.command, *arguments],
                    keeps=[theirs.fileno(), *lease],
                    said_to=self._words,
                    cwd=self.checkout,
                    env=environment_for(self.command[0], _OURS),
                )
            except OSError as error:
                ours.close()
                raise WeightsError(f"{self.command[0]} cannot be started: {error}") from error
        self._socket = ours
        try:
            self.hello, _ = self._receive(HELLO_S, "its greeting")
        except BridgeError as error:
            raise WeightsError(f"{' '.join(self.command)} does not work: {error}") from error

    def ask(
        self, request: dict[str, Any], arrays: dict[str, np.ndarray], timeout_s: float
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(header, arrays) of the answer. Raises BridgeError or BridgeMemoryError. After those, and
        if it is interrupted, the process is dead: nobody knows what state it is in."""
        try:
            return self._ask(request, arrays, timeout_s)
        except BaseException:
            self.close()
            raise

    def _ask(
        self, request: dict[str, Any], arrays: dict[str, np.ndarray], timeout_s: float
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        what = f"its answer to `{request['op']}`"
        self._words.trim()
        self._socket.settimeout(timeout_s)
        try:
            far_side.send(self._socket, request, arrays)
        except OSError as error:
            raise self._failed(f"it takes no `{request['op']}`: {error}") from error
        header, found = self._receive(timeout_s, what)
        if "error" in header:
            text = f"{what} is: {header['error']}"
            if header.get("memory"):
                raise BridgeMemoryError(text)
            raise self._failed(text)
        return header, found

    def _receive(self, timeout_s: float, what: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            return far_side.receive(self._socket, timeout_s)
        except TimeoutError as error:
            raise self._failed(f"{what} did not come within {timeout_s:g} s") from error
        except (EOFError, OSError) as error:
            raise self._failed(f"it ended before {what}") from error
        except far_side.MessageError as error:
            raise self._failed(f"{what} cannot be understood: {error}") from error

    def _failed(self, text: str) -> BridgeError:
        program = self._program
        self.close()
        status = None if program is None else program.status
        how = "" if status in (None, -signal.SIGKILL) else f" (exit status {status})"
        words = self._words.tail().strip()[-LAST_WORDS_CHARS:]
        return BridgeError(f"{text}{how}{f'; its last words: {words}' if words else ''}")

    def close(self) -> None:
        """Kill it, with all that it started."""
        if self._program is not None:
            self._socket.close()
            self._program.kill(grace_s=0.2)
            self._program = None


@contextmanager
def _held_lease() -> Iterator[list[int]]:
    """A hold of this process's device, if it has one, to be left to a process that uses it, too."""
    held = hold_ours()
    try:
        yield held
    finally:
        for descriptor in held:
            os.close(descriptor)
