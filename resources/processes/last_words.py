"""What a process says on its standard error: a file without a name, which dies with who has it
open. A folder of such files would outlive a parent that is killed; a pipe would block whoever
writes to it while the parent does not read.
"""

from __future__ import annotations

import fcntl
import os
import tempfile

KEPT_BYTES = 64 * 2**10
MOST_BYTES = 16 * 2**20


class LastWords:
    """Made by a parent, and handed to a child as its standard error."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (its owner closes it)
        # Both sides share one place in the file; so it may be cut off below who writes.
        fcntl.fcntl(self.fileno(), fcntl.F_SETFL, os.O_APPEND)

    def fileno(self) -> int:
        return self._file.fileno()

    def tail(self, lines: int = 30) -> str:
        """Return the last lines that were said."""
        size = os.fstat(self.fileno()).st_size
        text = os.pread(self.fileno(), KEPT_BYTES, max(0, size - KEPT_BYTES))
        return "\n".join(text.decode(errors="replace").splitlines()[-lines:])

    def trim(self) -> None:
        """Let go of what was said, if it has become too much to keep."""
        if os.fstat(self.fileno()).st_size > MOST_BYTES:
            os.ftruncate(self.fileno(), 0)

    def close(self) -> None:
        self._file.close()
