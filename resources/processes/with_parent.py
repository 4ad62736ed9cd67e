"""Run a module until the process that started it lets go of it, or is gone.

`python with_parent.py MODULE ARGUMENT…`, in a session of its own, with a pipe as stdin. The other
end of the pipe is the parent's alone, and the kernel closes it however the parent ends. The whole
session is interrupted then, as by a Ctrl-C in a terminal: the module, and what it has started.
The last to end removes the temporary folder that the parent made for all of them.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

GRACE_S = 60
_let_go = threading.Event()


def _stop_with_pipe(pipe: int) -> None:
    while os.read(pipe, 4096):
        pass
    _let_go.set()
    os.killpg(0, signal.SIGINT)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the module of the command line as the main program."""
    # A background job of a shell ignores SIGINT, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        pipe = os.dup(0)  # not inherited by what the module starts
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        threading.Thread(target=_stop_with_pipe, args=(pipe,), daemon=True).start()
        del sys.argv[0]
        sys.path[0] = str(Path.cwd())  # as `python -m` has it
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        sys.exit(0)
    finally:
        # `temporary.OUTER_VARIABLE`, which another interpreter could not import.
        if _let_go.is_set() and "EGO_OUTER_TMPDIR" in os.environ:
            shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)


if __name__ == "__main__":
    main()
