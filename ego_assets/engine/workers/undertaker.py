"""Imported by the fork server alone, as its last module: when it ends, since its supervisor was
killed, its workers end with it, and what they leave among the temporary files goes.

While it still imports it has nothing to do at its end, and dies with its parent at once.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from resources.processes.owned_folders import sweep


def _bury() -> None:
    with suppress(OSError, ValueError):
        if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115
            return  # numbers of another namespace
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for child in map(int, listed):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    sweep()


atexit.register(_bury)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG: none
