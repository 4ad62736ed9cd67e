"""Runs `dagster dev` for `ego up`, so that nothing is left of it whatever is killed.

It has a session of its own, so that who kills our group does not kill it, too: it hears from the
kernel that we are dead, and ends as if it were asked to, with what it started. A run that goes on
is not ended: it is the instance's, and the next `ego up` finds it. What is killed there leaves its
sockets in a temporary folder that is all its own, and goes with us, or with the next start.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from ego_assets.operators.temporary import sweep, temporary_folder_of_a_program
from resources.lake.scratch import default_root


def run_dagster(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run it until it ends, or Ctrl-C or SIGTERM ends it. Return its exit status."""
    sweep()  # what killed ones have left
    # A shell's background job inherits an ignored SIGINT, and then nothing would stop it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with temporary_folder_of_a_program() as (temporary, descriptor):
        scratch = os.environ.get("EGO_SCRATCH") or str(default_root())
        ours = os.getpid()
        process = subprocess.Popen(
            command,
            env=os.environ | {"EGO_SCRATCH": scratch} | temporary | environment,
            start_new_session=True,
            pass_fds=[descriptor],
            preexec_fn=lambda: _end_with_parent(ours),
        )
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            status = process.wait()
    return status


def _end_with_parent(parent: int) -> None:
    """PR_SET_PDEATHSIG: it is told to end when we are dead."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
