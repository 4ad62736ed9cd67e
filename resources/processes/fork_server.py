"""Processes that are forked with modules loaded: the side of their parent.

Here: one server for whoever wants one of its own, and one that a whole process shares. Not here:
what runs in the server and in what it forks (`forking`).
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, Pipe
from typing import Any

import psutil

from resources.processes.forking import PACKET, serve
from resources.processes.last_words import LastWords
from resources.processes.lifetime import cause_of_death, is_running, kill_marked, kill_tree

CLOSING_S = 5.0
MOST_DEATHS = 3
"""Of a server, in a row: then no other is started."""
TOO_OFTEN = (
    f"the server of the workers died {MOST_DEATHS} times in a row, most often because memory ran "
    "out and the kernel killed it: give the machine or its container more, or run fewer workers"
)
MARK_VARIABLE = "EGO_WORKERS_OF"
"""In the environment of all that a server and its processes start: the mark of that server, and of
those that it is below itself."""
_SERVE = (
    "import sys; sys.path[:] = {}; from resources.processes.forking import serve; serve({}, {})"
)


class ForkServerError(RuntimeError):
    """No process can be forked; the message says why."""


@dataclass
class Forked:
    """A process that a server has forked.

    connection: to and from it; ended: readable once it is dead, with all that it has started.
    words: what it said on its standard error, if that is kept.
    """

    pid: int
    pidfd: int
    connection: Connection
    ended: Connection
    words: LastWords | None = None
    status: int | None = None
    """Its exit status, negative for a signal, once `has_ended`; None if its server died with it."""

    def has_ended(self, timeout_s: float | None = 0.0) -> bool:
        """Wait until it is dead, with all that it has started."""
        if self.ended.closed:
            return True
        if not self.ended.poll(timeout_s):
            return False
        with suppress(EOFError, OSError):  # its server is dead, and it dies with that
            self.status = self.ended.recv()
        self.ended.close()
        return True

    @property
    def how(self) -> str:
        """How it has ended; completes "the process …"."""
        if self.status is not None:
            return cause_of_death(self.status)
        if self.ended.closed:
            return "was killed together with the server of the workers"
        return "has ended, and nobody says how" if self.is_gone() else "has not ended"

    def last_words(self) -> str:
        """Return the last lines of its standard error, if they are kept."""
        return self.words.tail() if self.words else ""

    def is_gone(self, timeout_s: float = 0.0) -> bool:
        """Wait until it is dead, whatever it leaves."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def say(self, what: Any) -> None:
        """Send it something; `ended` tells whether it died before it could hear that."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(what)

    def interrupt(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGINT)

    def kill(self) -> None:
        """Kill it with everything that it has started."""
        if not self.is_gone():
            kill_tree(self.pid)

    def close(self) -> None:
        """Let go of it, after its death."""
        self.connection.close()
        self.ended.close()
        os.close(self.pidfd)
        if self.words is not None:
            self.words.close()


class ForkServer:
    """A process that imports modules once, and forks processes that have them.

    main: "module:function" of what they do (`forking.Main`). needs: modules without which there is
    no use in any; modules: those that may be missing, with `path` in front of sys.path.
    environment: what the server has beside ours. own_group: Ctrl-C on a terminal does not reach it.
    """

    def __init__(
        self,
        main: str,
        needs: Sequence[str] = (),
        modules: Sequence[str] = (),
        *,
        path: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        own_group: bool = False,
    ) -> None:
        self.owner = os.getpid()
        self.ready = self.is_dead = False
        self.unloaded: dict[str, str] = {}
        self._lock = threading.Lock()
        self.mark = secrets.token_hex(8)
        marks = f"{os.environ.get(MARK_VARIABLE, '')} {self.mark}".strip()
        self.marked = {MARK_VARIABLE: marks}
        changed: dict[str, str] = {}
        if ahead := _taken_ahead(main):
            self.control, self.process = ahead.control, ahead.process
            changed = dict(os.environ.items() - ahead.environment.items())
        else:
            self.control, self.process = self._spawn(own_group)
        order: dict[str, Any] = {"main": main, "needs": [*needs], "modules": [*modules]}
        order |= {"path": [*path], "environment": changed | {**(environment or {}), **self.marked}}
        self.control.send(json.dumps(order).encode())

    def _spawn(self, own_group: bool) -> tuple[socket.socket, psutil.Process]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = psutil.Popen(
                [sys.executable, "-c", _SERVE.format(sys.path, theirs.fileno(), os.getpid())],
                pass_fds=[theirs.fileno()],
                env=os.environ | self.marked,
                process_group=0 if own_group else None,
            )
        return ours, process

    def fork(
        self,
        argument: Any,
        words: LastWords | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Forked:
        """Fork a process, and hand it its argument. Waits until the server is ready.

        words: where its standard error goes. environment: what it has beside what this process has
        now, and with it our `sys.path`; None: it has both as the server does. timeout_s: how long
        the server may take; one that takes longer is killed. Raises ForkServerError.
        """
        ours = None if environment is None else {**os.environ, **environment, **self.marked}
        connection, theirs = Pipe()
        ended, tells = Pipe(duplex=False)
        given = [theirs.fileno(), tells.fileno(), *([words.fileno()] if words else [])]
        with self._lock:
            with theirs, tells, suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self.control, [str(len(given)).encode()], given)
            try:
                if not ended.poll(timeout_s):
                    self.process.kill()
                    raise TimeoutError(f"the server of the workers took more than {timeout_s:g} s")
                said = ended.recv()  # its process id, or why there is none
                if isinstance(said, str):
                    raise OSError(said)
                forked = Forked(said, os.pidfd_open(said), connection, ended, words)
            except (EOFError, OSError) as error:
                connection.close()
                ended.close()
                raise ForkServerError(self._why_not(error)) from None
        forked.say((argument, ours, list(sys.path)))
        return forked

    def _why_not(self, error: Exception) -> str:
        """What this error of a fork means."""
        if isinstance(error, ProcessLookupError):
            return "the worker was killed as it was started"
        if isinstance(error, TimeoutError):
            return f"{error} to start one, and was killed"
        why = str(error) or "too many open files"  # what was handed over did not arrive
        while select.select([self.control], [], [], 0)[0]:
            if not self.hear():
                return "the server of the workers died while it started one"
        return f"this machine lets no further worker start: {why}"

    def hear(self) -> bool:
        """Take what the server says; False if it is dead. Raises ForkServerError if a module does
        not load."""
        try:
            packet = self.control.recv(PACKET)
        except ConnectionResetError:  # it died with a request unread; its own words come after this
            packet = self.control.recv(PACKET)
        if not packet:
            self.is_dead = True
            return False
        message = json.loads(packet)
        if "error" in message:
            raise ForkServerError(f"the modules to preload do not load:\n{message['error']}")
        self.ready, self.unloaded = True, message["unloaded"]
        return True

    def kill_strays(self) -> None:
        """Kill what the server's processes have started, after it died: else it does so itself."""
        psutil.wait_procs(list(kill_marked(MARK_VARIABLE, self.mark)), CLOSING_S)

    def close(self) -> None:
        """Have the server kill what is left, and end."""
        self.control.close()
        try:
            self.process.wait(CLOSING_S)
        except psutil.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_shared: dict[str, ForkServer] = {}
_sharing = threading.Lock()


def fork_from_shared(
    main: str,
    needs: Sequence[str],
    argument: Any,
    words: LastWords | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> Forked:
    """Fork a process from the server that this process has for `main` as long as it lives; one that
    was killed is started again. As `ForkServer.fork`, but it has our environment."""
    for _ in range(MOST_DEATHS):
        server = _shared_server(main, needs)
        try:
            return server.fork(argument, words, environment or {}, timeout_s)
        except ForkServerError:
            if not (server.ready and server.is_dead):
                raise
            server.process.wait()
    raise ForkServerError(TOO_OFTEN)


def _shared_server(main: str, needs: Sequence[str]) -> ForkServer:
    with _sharing:
        server = _shared.get(main)
        if server is not None and server.owner == os.getpid():
            if is_running(server.process):
                return server
            server.kill_strays()
            server.process.wait()  # its socket stays: another thread may be about to use it
        _shared[main] = ForkServer(main, needs)
        return _shared[main]


def shared_pids() -> set[int | None]:
    """Return the process ids of the servers that this process has for whoever wants one, with those
    of the standard library: they are why what comes later starts fast."""
    return {
        forkserver._forkserver._forkserver_pid,  # type: ignore[attr-defined]
        resource_tracker._resource_tracker._pid,  # type: ignore[attr-defined]
        *(s.process.pid for s in _shared.values() if s.owner == os.getpid()),
    }


@dataclass(frozen=True)
class _Ahead:
    """A server that was forked before it is asked for. main: what it is kept for; empty: whatever
    is first. environment: ours when it was forked."""

    main: str
    control: socket.socket
    process: psutil.Process
    environment: dict[str, str]


_ahead: list[_Ahead] = []


def _taken_ahead(main: str) -> _Ahead | None:
    return _ahead.pop() if _ahead and _ahead[-1].main in ("", main) else None


@contextmanager
def server_ready(main: str = "", own_group: bool = False) -> Iterator[None]:
    """Have the next server of this process start at once: it is forked now, and has loaded what
    this process has.

    Only for a process with one thread, which has opened nothing that a fork must not share. main:
    keep it for a server of that; own_group: as of `ForkServer`.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            if own_group:
                os.setpgid(0, 0)
            ours.close()
            atexit._clear()  # what the parent is to do at its end
            serve(theirs.detach(), parent)
        finally:
            os._exit(0)
    if own_group:
        with suppress(ProcessLookupError):  # whichever of both is first
            os.setpgid(pid, pid)
    theirs.close()
    _ahead.append(_Ahead(main, ours, psutil.Process(pid), dict(os.environ)))
    try:
        yield
    finally:
        while _ahead:  # it was not asked for
            ahead = _ahead.pop()
            ahead.control.close()
            ahead.process.wait()
