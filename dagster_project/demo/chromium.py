"""Takes a picture of a page in a Chromium that is on this machine, without a window.

It is asked over a pipe (`--remote-debugging-pipe`), so that no port is open. Not here: pages.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from resources.processes.program import Program

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOOK_S = 1.0
_ANSWER_S = 60.0
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    # WebGL without a GPU.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)

_START = """
import os, sys
from fcntl import F_DUPFD, fcntl
asked, answered = (fcntl(int(number), F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(asked, 3)
os.dup2(answered, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes the browser, which has the pipe at its descriptors 3 and 4."""


class BrowserError(Exception):
    """The browser did not do what it was asked for."""


def find_chromium() -> str | None:
    """The program, if this machine has one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def picture_of_page(
    program: str,
    url: str,
    folder: Path,
    is_drawn: Callable[[bytes], bool],
    *,
    size: tuple[int, int] = (1280, 900),
    limit_s: float = 30.0,
) -> bytes:
    """Open a page and return a PNG of it: the first that `is_drawn`, or the last within `limit_s`.

    folder: for what the browser writes. Raises BrowserError.
    """
    asked, answered = os.pipe(), os.pipe()
    flags = [*_FLAGS, f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # it refuses to start otherwise; the page is our own
    with (folder / "chromium.log").open("wb") as log:
        browser = Program(
            [sys.executable, "-c", _START, str(asked[0]), str(answered[1]), program, *flags, url],
            keeps=(asked[0], answered[1]),
            stdout=log,
            stderr=log,
        )
    os.close(asked[0])
    os.close(answered[1])
    pipe = _Pipe(answered[0], asked[1])
    try:
        return _picture(pipe, url, is_drawn, limit_s)
    except (OSError, KeyError, ValueError) as error:
        raise BrowserError(f"{program}: {type(error).__name__}: {error}") from error
    finally:
        browser.kill()
        pipe.close()


def _picture(pipe: _Pipe, url: str, is_drawn: Callable[[bytes], bool], limit_s: float) -> bytes:
    deadline = time.monotonic() + limit_s
    session = _open_page(pipe, url, deadline)
    while True:
        answer = pipe.ask("Page.captureScreenshot", session, format="png")
        data = base64.b64decode(answer["data"])
        if is_drawn(data) or time.monotonic() > deadline:
            return data
        time.sleep(LOOK_S)


def _open_page(pipe: _Pipe, url: str, deadline: float) -> str:
    while True:
        for target in pipe.ask("Target.getTargets")["targetInfos"]:
            if target["type"] == "page" and target["url"] == url:
                name = {"targetId": target["targetId"], "flatten": True}
                session: str = pipe.ask("Target.attachToTarget", **name)["sessionId"]
                return session
        if time.monotonic() > deadline:
            raise BrowserError(f"{url} was not opened")
        time.sleep(LOOK_S / 10)


class _Pipe:
    """Questions and answers of Chrome's DevTools protocol: JSON, each ended by a zero byte."""

    def __init__(self, read_from: int, write_to: int) -> None:
        self._from, self._to = read_from, write_to
        self._number = 0
        self._rest = b""

    def ask(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Raises BrowserError, OSError."""
        self._number += 1
        question = {"id": self._number, "method": method, "params": params}
        if session:
            question["sessionId"] = session
        os.write(self._to, json.dumps(question).encode() + b"\0")
        deadline = time.monotonic() + _ANSWER_S
        while (answer := self._next(deadline)).get("id") != self._number:
            pass  # events
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        found: dict[str, Any] = answer["result"]
        return found

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise BrowserError(f"no answer within {_ANSWER_S:.0f} s")
            if not (more := os.read(self._from, 1 << 20)):
                raise BrowserError("the browser ended")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        for descriptor in (self._from, self._to):
            with suppress(OSError):
                os.close(descriptor)
