"""Serve the pictures of shards from the lake, beside the UI. An ASGI application around Dagster's.

Here: GET of `/previews/{table}/{shard}`, and of `/previews/{table}/latest`. Not here: who may ask
(`guard`), what is drawn and where it is kept (`ego_assets.media.pictures`).
"""

from __future__ import annotations

import logging

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from dagster_project.web.guard import App, Receive, Scope, Send
from ego_assets.media.pictures import EXTENSIONS, URL, Pictures

_HEADERS = {
    # A picture may be replaced at any time, and the one before is of no use.
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'",
}
_LOG = logging.getLogger("dagster-webserver")


class Previews:
    """Answers requests for pictures, and passes all others on to `app`."""

    def __init__(self, app: App, pictures: Pictures) -> None:
        self.app = app
        self.pictures = pictures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not f"{scope['path']}/".startswith(f"{URL}/"):
            await self.app(scope, receive, send)
            return
        response = await run_in_threadpool(self._answer, scope["method"], scope["path"])
        await response(scope, receive, send)

    def _answer(self, method: str, path: str) -> Response:
        if method not in ("GET", "HEAD"):
            return PlainTextResponse("Pictures can only be read.\n", 405, {"allow": "GET, HEAD"})
        table, _, name = path.removeprefix(f"{URL}/").partition("/")
        try:
            found = self.pictures.read(table, name)
        except Exception as error:  # the lake is away: the UI goes on without
            _LOG.warning("no picture %r: %s: %s", path, type(error).__name__, error)
            return PlainTextResponse("The lake cannot be read; the server's log says why.\n", 503)
        if found is None:
            return PlainTextResponse("There is no such picture.\n", 404)
        media, data = found
        file = f'inline; filename="{table}-{name}.{EXTENSIONS[media]}"'
        return Response(data, 200, _HEADERS | {"content-disposition": file}, media)
