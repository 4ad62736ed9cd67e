"""Fetches what is behind a web page, with yt-dlp, in a process of its own for each link.

That process connects to no private address, and starts no program: it has no post-processors,
external downloaders, plug-ins or configuration files. Its generic extractor, which fetches what any
page names, is not asked. Here: the parent's side, and what the process may not do. Not here: files
that a link leads to directly (`fetch`).
"""

from __future__ import annotations

import io
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from importlib import util
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ego_assets.intake.links.addresses import is_public
from ego_assets.intake.links.outcome import Got, IngestError, LinkError, RefusedError
from ego_assets.intake.links.pace import SLOWEST
from ego_assets.intake.links.parts import LinkPart
from ego_assets.intake.links.settings import IngestSettings
from resources.processes.fork_server import ForkServer, ForkServerError
from resources.processes.last_words import LastWords

MAIN = "ego_assets.intake.links.pages:serve"
INSTALL = "--yt-dlp needs yt-dlp: pip install 'ego-assets[ingest]'"
_LOOK_S = 0.5
"""Between two looks at whether to stop."""
_SENDS = {"socket.sendto", "socket.sendmsg"}
_STARTS = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.")


@dataclass(frozen=True)
class _Order:
    """What a process is to do. cookies: the text of a file of cookies."""

    url: str
    folder: Path
    settings: IngestSettings
    allow_private: bool
    cookies: str
    bytes_per_s: float


class PageFetcher:
    """Fetches what yt-dlp understands. A context manager, for many threads at once.

    stop: set when no more is to be fetched. Raises IngestError if yt-dlp is not installed.
    """

    def __init__(
        self,
        settings: IngestSettings,
        stop: threading.Event,
        *,
        allow_private: bool,
        cookies: str = "",
    ) -> None:
        if util.find_spec("yt_dlp") is None:
            raise IngestError(INSTALL)
        self._settings, self._allow_private, self._cookies = settings, allow_private, cookies
        self._stop = stop
        without = {"YTDLP_NO_PLUGINS": "1"}
        self._server = ForkServer(MAIN, needs=["yt_dlp"], environment=without)

    def __enter__(self) -> PageFetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def fetch(self, url: str, part: LinkPart) -> Got | None:
        """Bring the video of a page into a part; None if the link is for no extractor but the
        generic one. Raises LinkError, IngestError."""
        # Nothing tells whether a page still has the file of which a part came before.
        shutil.rmtree(part.pages, ignore_errors=True)
        part.pages.mkdir(mode=0o700)
        rate = self._settings.max_mb_per_s * 1e6 / self._settings.concurrency
        order = _Order(url, part.pages, self._settings, self._allow_private, self._cookies, rate)
        try:
            if (said := self._work(order)) is None:
                return None
            name, license_ = said
            # Not all of yt-dlp's loaders count what they get.
            _must_fit((part.pages / name).stat().st_size, self._settings)
            with part.writing(0, "", None):
                pass
            (part.pages / name).replace(part.path)
            return Got(None, license_)
        finally:
            shutil.rmtree(part.pages, ignore_errors=True)

    def _work(self, order: _Order) -> tuple[str, str] | None:
        """Have a process do it. Returns the name of the file, and what its license is."""
        try:
            child = self._server.fork(order, LastWords())
        except ForkServerError as error:
            raise IngestError(str(error)) from error
        try:
            # It also asks a page or two before the first byte comes.
            patience_s = 3 * order.settings.stall_s
            began, at, came = time.monotonic(), 0, 0
            while (waited_s := time.monotonic() - began) < patience_s or came:
                if self._stop.is_set():
                    raise LinkError("stopped", may_help=True)
                if waited_s >= patience_s:
                    if came < SLOWEST * waited_s:
                        break
                    began, came = time.monotonic(), 0
                if not child.connection.poll(_LOOK_S):
                    continue
                kind, *rest = child.connection.recv()
                if kind == "error":
                    raise rest[0]
                if kind == "done":
                    return None if rest[0] is None else (rest[0], rest[1])
                came, at = came + max(0, rest[0] - at), rest[0]
            raise LinkError("yt-dlp comes to no end, or next to nothing comes", may_help=True)
        except EOFError:
            raise LinkError("yt-dlp has crashed", may_help=True) from None
        finally:
            child.kill()
            child.close()


def _must_fit(byte_count: int, settings: IngestSettings) -> None:
    if byte_count > settings.max_gb * 1e9:
        raise RefusedError(f"larger than {settings.max_gb:g} GB (--max-gb)")


def serve(connection: Connection, order: _Order) -> None:
    """What the process does: fetch one link."""
    refused = forbid(order.allow_private)
    try:
        connection.send(("done", *_fetched(order, connection)))
    except LinkError as error:
        connection.send(("error", error))
    except Exception as error:
        # Messages of yt-dlp quote pages.
        found = LinkError(f"yt-dlp: {type(error).__name__}", may_help=True)
        if refused:
            found = RefusedError("it leads to a private address: --allow-private allows that")
        elif getattr(getattr(error, "exc_info", (None, None))[1], "expected", False):
            found = LinkError("yt-dlp: the page has no video for us, or wants to know who we are")
        connection.send(("error", found))


def forbid(allow_private: bool) -> list[str]:
    """Have this process start no program and, unless allowed, connect to no private address, for
    good and whatever library it uses. Returns a list that names addresses as they are refused."""
    refused: list[str] = []

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event.startswith(_STARTS):
            raise PermissionError(f"{event} is not allowed here")
        if event == "socket.connect" or (event in _SENDS and given[1]):
            # Libraries resolve names and connect to numbers: a name here would be resolved behind
            # our back.
            where = given[1][0] if isinstance(given[1], tuple) else ""
            if not allow_private and not is_public(str(where)):
                refused.append(str(where))
                raise PermissionError("a private address")

    sys.addaudithook(hook)
    return refused


def _fetched(order: _Order, connection: Connection) -> tuple[str | None, str]:
    """(name of the file, license); no name if the link is not for us. Raises LinkError, and what
    yt-dlp raises."""
    from yt_dlp import YoutubeDL
    from yt_dlp.extractor import gen_extractor_classes

    class Plain(YoutubeDL):  # type: ignore[misc]
        def build_request_director(self, handlers: Any, preferences: Any = None) -> Any:
            """With Python's sockets alone: others would not ask the hook."""
            chosen = [each for each in handlers if each.RH_KEY == "Urllib"]
            return super().build_request_director(chosen, preferences)

    if not any(
        extractor.IE_NAME != "generic" and extractor.suitable(order.url)
        for extractor in gen_extractor_classes()
    ):
        return None, ""

    def tell(progress: dict[str, Any]) -> None:
        byte_count = int(progress.get("downloaded_bytes") or 0)
        _must_fit(byte_count, order.settings)  # what is loaded in pieces has no size to begin with
        connection.send(("goes on", byte_count))

    with Plain(options_of(order) | {"progress_hooks": [tell]}) as loader:
        found = loader.extract_info(order.url, download=False)
        if not found or "entries" in found:
            raise LinkError("a list of videos: put the links of its videos in a list")
        found = loader.process_ie_result(found, download=True)
        for each in found.get("requested_downloads") or ():
            path = Path(each.get("filepath") or "")
            if path.is_file() and path.parent == order.folder:
                return path.name, str(found.get("license") or "")[:200]
    raise LinkError(f"yt-dlp brought no file: larger than {order.settings.max_gb:g} GB, perhaps")


def options_of(order: _Order) -> dict[str, Any]:
    """What yt-dlp is told, as a library: as such it reads no configuration."""
    settings = order.settings
    lines = f"[height<=?{settings.height}]"
    return {
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "logger": _Silent(),
        "outtmpl": {"default": f"{str(order.folder).replace('%', '%%')}/video.%(ext)s"},
        "allowed_extractors": ["default", "-generic"],
        # A stream with pictures alone beats a smaller one with sound: to join two takes a program.
        "format": f"bv*[ext=mp4]{lines}[protocol^=http]/bv*[ext=mp4]{lines}/bv*{lines}",
        "extract_flat": "in_playlist",
        "noplaylist": True,
        "max_filesize": round(settings.max_gb * 1e9),
        "ratelimit": order.bytes_per_s or None,
        "socket_timeout": settings.stall_s,
        "retries": 0,
        "extractor_retries": 0,
        "fragment_retries": 2,
        "continuedl": False,
        "hls_prefer_native": True,
        "fixup": "never",
        "postprocessors": [],
        "cachedir": False,
        "usenetrc": False,
        "updatetime": False,
        "proxy": "",
        "cookiefile": io.StringIO(order.cookies) if order.cookies else None,
    }


class _Silent:
    """Messages quote pages: what is to be said is said by exceptions."""

    def debug(self, message: str) -> None:
        """Say nothing."""

    info = warning = error = debug
