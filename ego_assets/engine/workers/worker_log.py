"""What a worker says on its standard error: a file without a name, which dies with who has it open.

A folder of such files would outlive a supervisor that is killed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from multiprocessing import reduction
from typing import IO, Any

KEPT_BYTES = 64 * 2**10


class WorkerLog:
    """Made by the supervisor, handed to a worker as an argument of its process."""

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self._file = file or tempfile.TemporaryFile()  # noqa: SIM115  (its owner closes it)

    def fileno(self) -> int:
        return self._file.fileno()

    def tail(self, lines: int = 30) -> str:
        """The last lines that were said."""
        size = os.fstat(self.fileno()).st_size
        # Both sides share one place in the file: it is read without moving that.
        text = os.pread(self.fileno(), KEPT_BYTES, max(0, size - KEPT_BYTES))
        return "\n".join(text.decode(errors="replace").splitlines()[-lines:])

    def close(self) -> None:
        self._file.close()

    def __reduce__(self) -> tuple[Callable[[Any], WorkerLog], tuple[Any]]:
        return _received, (reduction.DupFd(self.fileno()),)


def _received(handle: Any) -> WorkerLog:
    return WorkerLog(os.fdopen(handle.detach(), "r+b", buffering=0))
