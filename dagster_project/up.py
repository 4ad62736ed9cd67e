"""Runs `dagster dev` for `ego up`, so that nothing is left of it whatever is killed.

It has a session of its own, so that who kills our group does not kill it, too: it hears from the
kernel that we are dead, and ends as if it were asked to, with what it started. A run that goes on
is not ended: it is the instance's, and the next `ego up` finds it. What is killed there leaves its
sockets in a temporary folder that is all its own, and goes with it, with us, or at the next start.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

from ego_assets.operators.temporary import sweep, temporary_folder_of_a_program

_SERVE = "import sys; from dagster_project.up import serve; serve(int(sys.argv.pop(1)))"


def run_dagster(arguments: Sequence[str], environment: dict[str, str]) -> int:
    """Run `dagster` until it ends, or Ctrl-C or SIGTERM ends it. Return its exit status."""
    from resources.lake.scratch import default_root

    sweep()  # what killed ones have left
    # A shell's background job inherits an ignored SIGINT, and then nothing would stop it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with temporary_folder_of_a_program() as (temporary, descriptor):
        scratch = os.environ.get("EGO_SCRATCH") or str(default_root())
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(os.getpid()), *arguments],
            env=os.environ | {"EGO_SCRATCH": scratch} | temporary | environment,
            start_new_session=True,
            pass_fds=[descriptor],
        )
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            status = process.wait()
    return status


def serve(parent: int) -> None:
    """Be `dagster`, until the parent ends us, or its death does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            return
    atexit.register(shutil.rmtree, os.environ["TMPDIR"], True)
    sys.argv[0] = "dagster"
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)
