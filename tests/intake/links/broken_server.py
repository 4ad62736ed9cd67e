"""A web server on this machine that does what real ones do: stall, break off, lie, redirect."""

from __future__ import annotations

import io
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np

PADDING = 400_000
Answer = Callable[["Asked"], None]


@cache
def video(seed: int = 0) -> bytes:
    """A small MP4 file, made larger by a box that nobody reads."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(10):
            picture = np.full((64, 64, 3), 20 * number + seed, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    noise = np.random.default_rng(seed).bytes(PADDING)
    return out.getvalue() + struct.pack(">I4s", len(noise) + 8, b"free") + noise


@dataclass
class Asked:
    """A request. number: how often the path was asked for before."""

    handler: BaseHTTPRequestHandler
    number: int

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.handler.headers.items()}

    def answer(
        self, status: int = 200, body: bytes = b"", *, length: int | None = None, **headers: str
    ) -> None:
        """length: what the header says; -1: nothing; None: the truth."""
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        if length != -1:
            self.handler.send_header("Content-Length", str(len(body) if length is None else length))
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def file(self, data: bytes, etag: str = '"one"') -> None:
        """A file as a good server sends it: from where it is asked for, if it is the same."""
        wanted, of = self.headers.get("range", ""), self.headers.get("if-range", etag)
        if wanted and of == etag:
            at = int(wanted.removeprefix("bytes=").rstrip("-"))
            where = f"bytes {at}-{len(data) - 1}/{len(data)}"
            self.answer(206, data[at:], ETag=etag, Content_Range=where)
        else:
            self.answer(200, data, ETag=etag)

    def half(self, data: bytes, etag: str = '"one"') -> None:
        """Half of a file, of which the whole was announced."""
        self.answer(200, data[: len(data) // 2], length=len(data), ETag=etag)


@dataclass
class Site:
    """The server. answers: by path; asked: (path, headers) of all requests, in their order; lines:
    the first of each."""

    root: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    most_at_once: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on(self, path: str, answer: Answer) -> str:
        """Answer a path. Returns its link."""
        self.answers[path] = answer
        return self.root + path

    def serve(self, path: str, data: bytes) -> str:
        return self.on(path, lambda asked: asked.file(data))

    def times(self, path: str) -> int:
        return len([each for each in self.asked if each[0] == path])

    def stall(self, seconds: float = 30.0) -> None:
        self.closing.wait(seconds)

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path
        with self._lock:
            number = self.times(path)
            asked = Asked(handler, number)
            self.asked.append((path, asked.headers))
            self.lines.append(handler.requestline)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self.answers.get(path, lambda a: a.answer(404))(asked)
        except OSError:  # whoever asked has gone
            pass
        finally:
            with self._lock:
                self._now -= 1


@contextmanager
def site() -> Iterator[Site]:
    """A server, for as long as the block runs."""
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.take(self)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found.take(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.root = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield found
    finally:
        found.closing.set()
        server.shutdown()
        server.server_close()


def dribble(asked: Asked, data: bytes, pause_s: float) -> None:
    """Send a byte now and then."""
    asked.answer(200, b"", length=len(data))
    for byte in data:
        asked.handler.wfile.write(bytes([byte]))
        asked.handler.wfile.flush()
        time.sleep(pause_s)
