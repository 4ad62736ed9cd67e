"""A helper process in another Python environment, and the requests that go to it.

Here: its start, its limits, its end, its last words. Not here: what it does, or the format of the
messages (`foundationpose_bridge`).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from ego_assets.models.weights import WeightsError
from ego_assets.objects.foundationpose import child as far_side
from resources.devices.leases import LEASE_VARIABLE, hold

HELLO_S = 60.0
LAST_WORDS_CHARS = 2000
_OURS = ("EGO_", "AWS_", "DAGSTER_", "PYTHON", "VIRTUAL_ENV")
"""What of our environment another's program must not have: secrets, and our own Python."""


class BridgeError(RuntimeError):
    """The process answered with an error, died, hung, or sent what is no message."""


class BridgeMemoryError(MemoryError):
    """There was not enough memory, on its device or for it."""


class LastWords:
    """What a process wrote to stdout and stderr, the end of it; read so that it never blocks."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._kept = b""
        self._thread = threading.Thread(target=self._drain, args=(stream,), daemon=True)
        self._thread.start()

    def _drain(self, stream: IO[bytes]) -> None:
        with suppress(OSError, ValueError):
            while part := os.read(stream.fileno(), 65536):
                self._kept = (self._kept + part)[-4 * LAST_WORDS_CHARS :]
        stream.close()

    def text(self) -> str:
        """The end of it, once the process is dead."""
        self._thread.join(1.0)
        return self._kept.decode(errors="replace").strip()[-LAST_WORDS_CHARS:]


class Bridge:
    """One process at a time. Whatever goes wrong with it, it is killed, and can be started anew."""

    def __init__(self, python: str, script: Path, checkout: Path) -> None:
        # Whole, since it runs in the checkout: a bare name would be looked for there first.
        found = shutil.which(python or sys.executable)
        self.command = [str(Path(found).absolute()) if found else python, str(script)]
        self.checkout = checkout
        self.hello: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start it and hear its greeting. Raises WeightsError: then it is not set up."""
        if not Path(self.command[0]).is_absolute():
            raise WeightsError(f"{self.command[0]} cannot be started: there is no such program")
        ours, theirs = socket.socketpair()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        # As if its environment were activated: compilers (ninja) lie beside its interpreter.
        places = [str(Path(self.command[0]).parent), environment.get("PATH", os.defpath)]
        environment["PATH"] = os.pathsep.join(places)
        with theirs, _held_lease() as lease:
            arguments = [str(theirs.fileno()), str(os.getpid()), str(self.checkout)]
            try:
                self._process = subprocess.Popen(
                    [*self.command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    cwd=self.checkout,
                    env=environment,
                    pass_fds=[theirs.fileno(), *lease],
                    start_new_session=True,  # what it starts is killed with it
                )
            except OSError as error:
                ours.close()
                raise WeightsError(f"{self.command[0]} cannot be started: {error}") from error
        self._socket = ours
        self._words = LastWords(self._process.stdout)  # type: ignore[arg-type]
        self._end = weakref.finalize(self, _kill, self._process, ours)
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
        process = self._process
        self.close()
        status = "" if process is None or process.returncode == -signal.SIGKILL else _ended(process)
        words = self._words.text()
        return BridgeError(f"{text}{status}{f'; its last words: {words}' if words else ''}")

    def close(self) -> None:
        """Kill it, with all that it started."""
        if self._process is not None:
            self._end()
            self._process = None


@contextmanager
def _held_lease() -> Iterator[list[int]]:
    """A hold of this process's device, if it has one, to be left to a process that uses it, too."""
    path = os.environ.get(LEASE_VARIABLE)
    held = [hold(path)] if path else []
    try:
        yield held
    finally:
        for descriptor in held:
            os.close(descriptor)


def _ended(process: subprocess.Popen[bytes]) -> str:
    return f" (exit status {process.returncode})"


def _kill(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    connection.close()
    with suppress(OSError, subprocess.TimeoutExpired):
        process.wait(0.2)  # it may be on its way out: its own exit status says more than ours
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
