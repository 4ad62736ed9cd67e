"""Answer requests for what lies beside Dagster's UI: pictures and galleries of shards, the guide.

An ASGI application around Dagster's. Here: which path is whose, and that nothing but reading is
possible. Not here: who may ask (`guard`), what is drawn and where it is kept
(`ego_assets.media.pictures`, `ego_assets.galleries`), pages (`guide`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import cache
from html import escape

from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from dagster_project.web.guard import App, Receive, Scope, Send
from ego_assets.galleries.files import PAGE, TYPES, URL, GalleryFiles, url_of
from ego_assets.galleries.page import with_later
from ego_assets.galleries.troubles import later_troubles
from ego_assets.media.pictures import EXTENSIONS, Pictures
from resources.lake import Lake
from resources.ledger import Ledger

Answer = Callable[[str], Response | None]
"""What is below a path, by the rest of the path; None: nothing is."""
HEADERS = {
    "cache-control": "no-cache",  # what is there may be replaced at any time
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
}
_GALLERY_RULES = {
    "content-security-policy": "default-src 'none'; img-src 'self' data:; media-src 'self'; "
    "style-src 'unsafe-inline'"
}

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
_LISTED = 1000
_LOG = logging.getLogger("dagster-webserver")


class Beside:
    """Answers requests below some paths, and passes all others on to `app`."""

    def __init__(self, app: App, answers: Mapping[str, Answer]) -> None:
        self.app = app
        self.answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first, _, below = str(scope.get("path", "")).removeprefix("/").partition("/")
        answer = self.answers.get(f"/{first}") if scope["type"] == "http" else None
        if answer is None:
            await self.app(scope, receive, send)
            return
        response = await run_in_threadpool(_response, scope["method"], answer, below)
        await response(scope, receive, send)


def _response(method: str, answer: Answer, below: str) -> Response:
    if method not in ("GET", "HEAD"):
        return PlainTextResponse("This can only be read.\n", 405, {"allow": "GET, HEAD"})
    try:
        found = answer(below)
    except Exception as error:  # the lake is away: the UI goes on without
        _LOG.warning("%r cannot be shown: %s: %s", below, type(error).__name__, error)
        return PlainTextResponse("This cannot be read; the server's log says why.\n", 503)
    return found or PlainTextResponse("There is nothing of that name.\n", 404)


def pictures_of(pictures: Pictures) -> Answer:
    """The pictures of a lake, by TABLE/SHARD or TABLE/latest."""

    def answer(below: str) -> Response | None:
        table, _, name = below.partition("/")
        found = pictures.read(table, name)
        if found is None:
            return None
        media, data = found
        file = f'inline; filename="{table}-{name}.{EXTENSIONS[media]}"'
        return Response(data, 200, HEADERS | {"content-disposition": file}, media)

    return answer


class RangedResponse(Response):
    """Bytes, or the one range of them that a request asks for: a browser seeks in videos so."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = dict(scope["headers"]).get(b"range", b"").decode("latin-1")
        size = len(self.body)
        self.headers["accept-ranges"] = "bytes"
        if found := _RANGE.fullmatch(asked):  # else all of it, as for several ranges
            first, last = int(found[1]), min(int(found[2] or size), size - 1)
            if first >= size:
                self.status_code, self.body = 416, b""
                self.headers["content-range"] = f"bytes */{size}"
            elif first <= last:
                self.status_code, self.body = 206, self.body[first : last + 1]
                self.headers["content-range"] = f"bytes {first}-{last}/{size}"
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def galleries_of(lake: Lake) -> Answer:
    """The galleries of a lake, by SHARD/ and SHARD/FILE, and a list of them.

    A page is shown with what went wrong after it was made.
    """
    files = GalleryFiles(lake)
    ledger = cache(lambda: Ledger.of(lake.location))

    def up_to_date(page: bytes, shard: str) -> bytes:
        try:
            return with_later(page.decode(), later_troubles(lake, ledger(), shard)).encode()
        except Exception as error:  # the page says where else to look
            _LOG.warning("failures of %s cannot be read: %s", shard, error)
            return page

    def answer(below: str) -> Response | None:
        shard, slash, name = below.partition("/")
        if not shard:
            return HTMLResponse(_list_of(lake), headers=HEADERS)
        key = files.key(shard, name or PAGE)
        if key is None:
            return None
        if not slash:
            return RedirectResponse(url_of(shard))  # so that relative links work
        try:
            data = files.storage.read(key)
        except FileNotFoundError:
            return None
        if not name or name == PAGE:
            data = up_to_date(data, shard)
        media = TYPES[key[key.rindex(".") :]]
        return RangedResponse(data, 200, HEADERS | _GALLERY_RULES, media)

    return answer


def _list_of(lake: Lake) -> str:
    shards = lake.shards()[::-1]
    links = [f'<li><a href="{url_of(s)}">{escape(s)}</a></li>' for s in shards[:_LISTED]]
    more = len(shards) - len(links)
    rest = f"<p>… and {more:,} older ones, at {URL}/SHARD/.</p>" if more else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Galleries</title>'
        f"<h1>Galleries</h1><p>A shard has one once <code>galleries</code> is materialized.</p>"
        f"<ul>{''.join(links)}</ul>{rest}</html>"
    )
