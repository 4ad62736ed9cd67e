"""Answer requests for what lies beside Dagster's UI: pictures of shards, and the guide.

An ASGI application around Dagster's. Here: which path is whose, and that nothing but reading is
possible. Not here: who may ask (`guard`), what is drawn and where it is kept
(`ego_assets.media.pictures`), pages (`guide`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from dagster_project.web.guard import App, Receive, Scope, Send
from ego_assets.media.pictures import EXTENSIONS, Pictures

Answer = Callable[[str], Response | None]
"""What is below a path, by the rest of the path; None: nothing is."""
HEADERS = {
    "cache-control": "no-cache",  # what is there may be replaced at any time
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
}
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
