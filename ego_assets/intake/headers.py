"""Reads durations from the headers of new files, in a child process.

Intake must go on whatever a file does to libav: one that crashes it or keeps it for ever takes the
child along, and its duration is guessed. Not here: what the durations are for (`shards`).
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

LIMIT_S = 20.0
"""For one header, and the start of the child."""
MAX_LOST = 3
"""Children lost to files; then no other is started, and durations are guessed."""
MIN_BYTES = 64
"""No smaller file has a header."""
PR_SET_PDEATHSIG = 1
"""The kernel kills the child with who asks it, wherever it hangs."""
_SERVE = "import sys; sys.path[:] = {}; from ego_assets.intake.headers import serve; serve()"


class HeaderReader:
    """A child process that opens files, started when first needed. A context manager."""

    def __init__(self) -> None:
        self.lost = 0
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> HeaderReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def duration_s(self, path: Path) -> float:
        """What the header of a file claims; 0 if that cannot be told."""
        if self.lost >= MAX_LOST or not _may_have_header(path):
            return 0.0
        try:
            self._child = self._child or self._start()
            return self._ask(self._child, path)
        except (OSError, ValueError):  # it died, or hung, or this machine lets no other start
            self.lost += 1
            self._end()
            return 0.0

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _SERVE.format(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _ask(self, child: subprocess.Popen[bytes], path: Path) -> float:
        """Raises OSError or ValueError without an answer in time."""
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{json.dumps(str(path))}\n".encode())
        child.stdin.flush()
        answer = select.poll()
        answer.register(child.stdout, select.POLLIN)
        if not answer.poll(LIMIT_S * 1000):
            raise TimeoutError(f"no answer within {LIMIT_S:g} s")
        # An answer is short: it is there as a whole. None at all: the child is gone.
        return float(os.read(child.stdout.fileno(), 100))

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with suppress(OSError):  # what it was to be told is lost
                child.communicate()


def _may_have_header(path: Path) -> bool:
    try:
        return path.stat().st_size >= MIN_BYTES
    except OSError:
        return False


def serve() -> None:
    """What the child does: a path a line in, a duration a line out, until nobody asks."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for line in sys.stdin:
        sys.stdout.write(f"{header_duration_s(Path(json.loads(line)))}\n")
        sys.stdout.flush()


def header_duration_s(path: Path) -> float:
    """What the header of a file claims; 0 if it claims nothing, or cannot be read."""
    from ego_assets.media.containers import open_media

    # Whatever is wrong with it, the probe will say.
    with suppress(Exception), open_media(path) as container:
        duration_s = (container.duration or 0) / 1e6
        return duration_s if math.isfinite(duration_s) else 0.0
    return 0.0
