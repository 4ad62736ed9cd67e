"""The process that forks processes, and how one of them begins and ends.

Its parent (`fork_server` is that side) starts one. It imports what the others will need once, and
then forks: a process starts in milliseconds, with everything loaded. It is one thread without state
worth keeping. It and each process that it forks are *subreapers*: what their descendants leave
behind stays below them. So when a process dies, what it leaves, and nothing of the others, becomes
the server's child and is killed; when the parent dies, the server sees it and kills everything.
Should the server itself be killed, the kernel kills what it has forked (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import psutil

from resources.processes.lifetime import (
    adopt_orphans,
    die_with_parent,
    kill_descendants,
    kill_tree,
    outlive_parent,
)
from resources.processes.owned_folders import own_folder_of_multiprocessing, sweep
from resources.processes.temp_folder import shorten_temp_folder

PACKET = 65536
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
ORPHANS_S, STUCK_S = 0.3, 10.0

Main = Callable[[Connection, Any], None]
"""What a forked process does: (connection to the parent, argument). `INTERRUPTS` are blocked until
it takes them."""


def serve(descriptor: int, parent: int) -> None:
    """Entry point of the server: `python -c "…serve(3, 4711)"`."""
    control = socket.socket(fileno=descriptor)
    # Ctrl-C and a stopping service reach the whole group: the parent decides what they mean.
    # Blocked, and not ignored: a process gets one that came before it was ready for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    adopt_orphans()
    die_with_parent(parent)  # an import may never end
    if not (packet := control.recv(PACKET)):
        return
    order = json.loads(packet)
    os.environ.update(order["environment"])
    gc.disable()  # an import makes no garbage, and is a fifth slower with collections
    try:
        shorten_temp_folder()
        main = load(order["main"])
        for module in order["needs"]:
            importlib.import_module(module)
        unloaded = _preload(order["modules"], order["path"])
    except BaseException:
        _send(control, error=traceback.format_exc()[-8000:])
        return
    gc.collect()
    gc.freeze()  # a collection in a process would copy every page that it shares with us
    gc.enable()
    server = _Server(control, main)
    outlive_parent()  # from now on we see the parent's death, and end what is below us
    sys.stdout.flush()  # or each process would say it again
    sys.stderr.flush()
    _send(control, ready=True, unloaded=unloaded)
    server.run()


def load(name: str) -> Any:
    """Return what "module:attribute" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _preload(modules: list[str], path: list[str]) -> dict[str, str]:
    """Import what there is. What is not found here, a process may still find by its own means."""
    unloaded = {}
    before = list(sys.path)
    sys.path[:0] = path
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            unloaded[module] = str(error)[:1000]
    sys.path[:] = before
    return unloaded


class _Server:
    def __init__(self, control: socket.socket, main: Main) -> None:
        self.control = control
        self.main = main
        self.forked: dict[int, tuple[int, Connection]] = {}  # pidfd → pid, whom to tell of its end
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)
        # Something that the parent has forked may keep the socket open longer than it lives.
        self.parent = os.pidfd_open(os.getppid())
        self.selector.register(self.parent, selectors.EVENT_READ)

    def run(self) -> None:
        while True:
            for key, _ in self.selector.select():
                if key.fd in self.forked:
                    self._bury(key.fd)
                elif key.fd == self.parent or not self._fork():
                    self._end()
                    return

    def _end(self) -> None:
        """The parent is gone: nothing of what is below us stays, nor its temporary files."""
        below = psutil.Process().children(recursive=True)
        kill_descendants(psutil.Process())
        psutil.wait_procs(below, STUCK_S)
        sweep()

    def _fork(self) -> bool:
        """Start the process that is asked for; False if the parent is gone."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self.control, PACKET, 3)
        except ConnectionResetError:  # it did not even read our last words
            packet = b""
        if not packet:
            return False
        if len(descriptors) != int(packet):  # they are not handed over if we have too many
            for received in descriptors:
                os.close(received)
            return True
        connection, ended, *words = descriptors
        tells, server = Connection(ended, readable=False), os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # a limit of this machine: processes at work go on
            _tell(tells, f"{type(error).__name__}: {error}")
            tells.close()
            pid = None
        if pid == 0:
            tells.close()
            self._become(server, connection, *words)
        for given in (connection, *words):
            os.close(given)
        if pid is not None:
            pidfd = os.pidfd_open(pid)
            self.forked[pidfd] = pid, tells
            _tell(tells, pid)
            self.selector.register(pidfd, selectors.EVENT_READ)
        return True

    def _become(self, server: int, connection: int, words: int | None = None) -> None:
        """Be the process that was forked, from its beginning to its end."""
        status = 1
        try:
            die_with_parent(server)
            adopt_orphans()  # what becomes the server's child is killed with the next that ends
            self.selector.close()
            self.control.close()
            for pidfd, (_, other) in self.forked.items():
                os.close(pidfd)
                other.close()
            os.close(self.parent)
            atexit._clear()  # what the server is to do at its end is no child's
            if words is not None:
                os.dup2(words, 2)
                os.close(words)
                sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            faulthandler.enable(file=sys.stderr)
            own_folder_of_multiprocessing()
            with Connection(connection) as pipe:
                argument, environment, path = pipe.recv()
                if environment is not None:
                    os.environ.clear()
                    os.environ.update(environment)
                    sys.path[:], tempfile.tempdir = path, None
                self.main(pipe, argument)
            status = 0
            atexit._run_exitfuncs()  # as `os._exit` does not
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _bury(self, pidfd: int) -> None:
        """Kill what a dead process has left, and tell the parent of its end."""
        self.selector.unregister(pidfd)
        _, status = os.waitpid(self.forked[pidfd][0], 0)
        ours = {pid for other, (pid, _) in self.forked.items() if other != pidfd}
        deadline = time.monotonic() + STUCK_S  # not even SIGKILL ends one that hangs in a driver
        # The children of one that ends become ours in turn: until there is none.
        while orphans := [p for p in psutil.Process().children() if p.pid not in ours]:
            # Those of multiprocessing end by themselves, and tidy up what is shared as they do.
            _, staying = psutil.wait_procs(orphans, ORPHANS_S)
            for orphan in staying:
                kill_tree(orphan.pid)
            if time.monotonic() > deadline:
                break
        if status:
            sweep()
        _, tells = self.forked.pop(pidfd)
        _tell(tells, os.waitstatus_to_exitcode(status))
        tells.close()
        os.close(pidfd)


def _tell(tells: Connection, what: int | str) -> None:
    with suppress(OSError):  # the parent does not listen any more
        tells.send(what)


def _send(control: socket.socket, **message: Any) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # the parent is gone: `run` will see it
        control.send(json.dumps(message).encode())
