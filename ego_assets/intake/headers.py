"""Reads the headers of new files, in a child process.

Intake must go on whatever a file does to libav: one that crashes it or keeps it for ever takes the
child along, and its duration is guessed. Not here: what the durations are for (`shards`).
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from resources.processes.fork_server import Forked, ForkServerError, fork_from_shared

LIMIT_S = 20.0
"""For one header, and for the start of the child."""
MAX_LOST = 3
"""Children lost to files; then no other is started, and durations are guessed."""
MIN_BYTES = 64
"""No smaller file has a header."""
MAIN = "ego_assets.intake.headers:serve"


@dataclass(frozen=True)
class Header:
    """What the header of a file claims. duration_s: 0 if it claims none; formats: libav's names of
    its container; fault: why it is no video, in words that quote nothing; empty: it is one."""

    duration_s: float = 0.0
    formats: str = ""
    fault: str = ""


class HeaderReader:
    """A child process that opens files, forked when first needed from a server that this process
    keeps: to start one costs more than hundreds of headers. A context manager."""

    def __init__(self) -> None:
        self.lost = 0
        self._child: Forked | None = None

    def __enter__(self) -> HeaderReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def duration_s(self, path: Path) -> float:
        """What the header of a file claims; 0 if that cannot be told."""
        if self.lost >= MAX_LOST or not _may_have_header(path):
            return 0.0
        found = self.header(path)
        return 0.0 if found is None else found.duration_s

    def header(self, path: Path) -> Header | None:
        """The header of a file; None if whoever reads it dies, or comes to no end."""
        try:
            self._child = self._child or fork_from_shared(MAIN, (), None, timeout_s=LIMIT_S)
            self._child.say(path)
            if self._child.connection.poll(LIMIT_S):
                found: Header = self._child.connection.recv()
                return found
        except (OSError, EOFError, ForkServerError):
            pass
        self.lost += 1  # it died, or hung, or this machine lets no other start
        self._end()
        return None

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.close()
            self._child = None


def _may_have_header(path: Path) -> bool:
    try:
        return path.stat().st_size >= MIN_BYTES
    except OSError:
        return False


def serve(connection: Connection, _: Any) -> None:
    """What the child does: say what is in the header of each file that it is asked for."""
    with suppress(EOFError):
        while True:
            connection.send(read_header(connection.recv()))


def read_header(path: Path) -> Header:
    """What the header of a file claims, whatever is wrong with it."""
    from ego_assets.media.containers import open_media, video_streams
    from ego_assets.operator import BadInputError

    try:
        with open_media(path) as container:
            duration_s = (container.duration or 0) / 1e6
            return Header(
                duration_s if math.isfinite(duration_s) else 0.0,
                container.format.name,
                "" if video_streams(container) else "no video in it",
            )
    except BadInputError as error:
        return Header(fault=str(error).removeprefix(f"{path}: "))
    except Exception as error:
        return Header(fault=f"its header cannot be read ({type(error).__name__})")


def header_duration_s(path: Path) -> float:
    """What the header of a file claims; 0 if it claims nothing, or cannot be read."""
    return read_header(path).duration_s
