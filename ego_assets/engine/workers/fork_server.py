"""The standard library's fork server, without the folder and the socket that it leaves behind.

It listens at a socket in a folder `pymp-…` among the temporary files, which only a process that
ends in peace removes. Ours loses its name as soon as it is bound: whoever starts the server keeps
the file itself open, and reaches it through that. Nothing is left to remove, and the length of the
temporary folder's name does not matter. (To an abstract socket, without any file, every user of the
machine could connect: CVE-2022-42919.)
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from multiprocessing import forkserver, resource_tracker, spawn, util
from pathlib import Path

_SERVE = (
    # An import may take long: `undertaker`, the last one, takes this back.
    "import ctypes; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); "
    "from multiprocessing.forkserver import main; main({}, {}, {!r}, **{!r})"
)
_FILES = Path("/proc/self/fd")


class _NamelessForkServer(forkserver.ForkServer):
    """As its base. Only the process that has started it can ask for processes."""

    _lock: threading.Lock
    _preload_modules: list[str]
    _forkserver_pid: int | None
    _forkserver_alive_fd: int | None
    _file: int | None = None

    def ensure_running(self) -> None:
        """Start the server if there is none."""
        if sys.platform != "linux" or not _FILES.is_dir():
            super().ensure_running()
            return
        with self._lock:
            if self._forkserver_pid is not None:
                if not os.waitpid(self._forkserver_pid, os.WNOHANG)[0]:
                    return
                if self._forkserver_alive_fd is not None:
                    os.close(self._forkserver_alive_fd)
                self._forkserver_pid = self._forkserver_alive_fd = None
            self._start()

    def _start(self) -> None:
        resource_tracker.ensure_running()
        wanted = ("main_path", "sys_path")
        data = spawn.get_preparation_data("ignore")
        data = {name: value for name, value in data.items() if name in wanted}
        with socket.socket(socket.AF_UNIX) as listener:
            if self._file is not None:
                os.close(self._file)
            self._file = _bind(listener)
            listener.listen()
            closing, alive = os.pipe()
            given = [listener.fileno(), closing]
            code = _SERVE.format(*given, self._preload_modules, data)
            flags = util._args_from_interpreter_flags()  # type: ignore[attr-defined]
            try:
                process = subprocess.Popen([sys.executable, *flags, "-c", code], pass_fds=given)
            except BaseException:
                os.close(alive)
                raise
            finally:
                os.close(closing)
        self._forkserver_address = str(_FILES / str(self._file))
        self._forkserver_alive_fd = alive
        self._forkserver_pid = process.pid
        process.returncode = 0  # it is not Popen's to wait for


def _bind(listener: socket.socket) -> int:
    """Bind to a name that is gone again when this returns. The descriptor is what remains of it."""
    folder = os.open(tempfile.gettempdir(), os.O_PATH | os.O_DIRECTORY)
    name = f"ego-{secrets.token_hex(8)}"
    try:
        # Through the descriptor, since an address may have no more than 107 bytes.
        listener.bind(str(_FILES / str(folder) / name))
        try:
            return os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


def use_nameless_fork_server() -> None:
    """Have this process' fork server be one that leaves nothing behind."""
    forkserver._forkserver.__class__ = _NamelessForkServer
