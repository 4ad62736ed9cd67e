"""Which link is fetched when, and how fast: turns of hosts, waits, bytes a second, stalls."""

from __future__ import annotations

import heapq
import math
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from ego_assets.intake.links.lists import Link

SLOWEST = 1024
"""Bytes a second that are more than a stall."""


@dataclass
class Job:
    """A link, and how often it was tried."""

    link: Link
    attempts: int = 0


@dataclass
class _Host:
    ready: deque[Job] = field(default_factory=deque)
    running: int = 0
    not_before: float = 0.0


class Turns:
    """Hands out jobs to threads, host by host, so that a slow host does not keep the others."""

    def __init__(self, jobs: Iterable[Job], per_host: int, pause_s: float) -> None:
        self._per_host, self._pause_s = per_host, pause_s
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._later: list[tuple[float, int, Job]] = []
        self._numbers = count()
        self._change = threading.Condition()
        self._is_over = False
        self.left = 0
        for job in jobs:
            self._hosts.setdefault(job.link.host, _Host()).ready.append(job)
            self.left += 1

    def take(self) -> Job | None:
        """The next job, once there is one; None when all are over. To be given back."""
        with self._change:
            while self.left and not self._is_over:
                wait_s = self._due()
                for name, host in list(self._hosts.items()):
                    early_s = host.not_before - time.monotonic()
                    if not host.ready and not host.running and early_s <= 0:
                        del self._hosts[name]
                    if not host.ready or host.running >= self._per_host:
                        continue
                    if early_s > 0:
                        wait_s = min(wait_s, early_s)
                        continue
                    host.running += 1
                    host.not_before = time.monotonic() + self._pause_s
                    self._hosts.move_to_end(name)
                    return host.ready.popleft()
                self._change.wait(wait_s)
        return None

    def done(self, job: Job) -> None:
        with self._change:
            self._hosts[job.link.host].running -= 1
            self.left -= 1
            self._change.notify_all()

    def again(self, job: Job, after_s: float, host_after_s: float = 0.0) -> None:
        """Have a job later, and any other one of its host not before so many seconds."""
        with self._change:
            host, now = self._hosts[job.link.host], time.monotonic()
            host.running -= 1
            host.not_before = max(host.not_before, now + host_after_s)
            heapq.heappush(self._later, (now + after_s, next(self._numbers), job))
            self._change.notify_all()

    def end(self) -> None:
        """No job is handed out from now on."""
        with self._change:
            self._is_over = True
            self._change.notify_all()

    def _due(self) -> float:
        """Ready what has waited long enough. Returns how long the next one waits."""
        while self._later and self._later[0][0] <= time.monotonic():
            job = heapq.heappop(self._later)[2]
            self._hosts.setdefault(job.link.host, _Host()).ready.append(job)
        return max(0.001, self._later[0][0] - time.monotonic()) if self._later else 3600.0


class Throttle:
    """So many bytes a second, of all threads together; 0: no limit."""

    def __init__(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, byte_count: int, stop: threading.Event) -> None:
        """Wait until these bytes are within the rate."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + byte_count / self._rate
            wait_s = self._free_at - now
        stop.wait(wait_s)


class StallWatch:
    """Shuts a connection down when its time is up: a byte now and then resets any time limit of a
    socket."""

    def __init__(self) -> None:
        self.is_over = False
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None
        self._fires_at = self._until = math.inf

    def over(self, connection: socket.socket, seconds: float) -> None:
        """Begin with a connection that was made."""
        self._socket = connection.dup()
        self.start(seconds)

    def start(self, seconds: float) -> None:
        """For each block: no timer is made while one runs that fires before."""
        self._until = time.monotonic() + seconds
        if self._timer is None or self._until < self._fires_at:
            self._set(self._until)

    def stop(self) -> None:
        self._until = math.inf

    def close(self) -> None:
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.close()

    def _set(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = until
        self._timer = threading.Timer(max(0.0, until - time.monotonic()), self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        self._timer = None
        until = self._until
        if until > time.monotonic():
            if until < math.inf:
                self._set(until)
            return
        self.is_over = True
        with suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
