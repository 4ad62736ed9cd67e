"""Refuse what other web sites ask of the UI. An ASGI application around Dagster's webserver.

The webserver has no passwords, so every page that a browser opens on this machine could start runs:
GraphQL executes mutations sent by GET or by a plain form, and nothing checks by which name the
server was addressed. Browsers say who asks, in headers that a page cannot forge (Host, Origin,
Sec-Fetch-*). Programs send none of these but Host, and may ask as before.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any

from dagster_project.web.hosts import Authority, is_allowed, is_same_origin, parse_authority

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

GRAPHQL_TYPES = {"", "application/json", "application/graphql"}
"""Forms and simple requests of other sites cannot have these types, except for none at all."""
NO_PAGES = ("graphql", "logs", "notebook", "dagit", "download_debug", "server_info", "dagit_info")
"""First parts of paths that answer data; every other GET is a page of the UI, or a file of one."""
ONCE = ("host", "origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "content-type")
HEADERS = (
    # Of this server alone: Dagster shows notebooks in a frame of its own page.
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_LOG = logging.getLogger("dagster-webserver")


class Guard:
    """Passes requests on to `app` that the UI's own pages, or programs, make to an allowed host."""

    def __init__(self, app: App, allowed: Iterable[Authority]) -> None:
        self.app = app
        self.allowed = tuple(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        why = self.refusal(scope)
        if why is None:
            await self.app(scope, receive, _with_headers(send))
            return
        what = f"{scope.get('method', 'websocket')} {_shown(scope['path'])}"
        client = (scope.get("client") or ("an unknown client",))[0]
        _LOG.warning("Refused %s of %s: %s", what, client, why)
        await _refuse(scope, receive, send, f"Refused: {why}\n")

    def refusal(self, scope: Scope) -> str | None:
        """Say why this request is refused, and what to do about it. None if it is not."""
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            if key in headers and key in ONCE:
                return f"the request has more than one header {key}"
            headers.setdefault(key, value.decode("latin-1"))
        host = parse_authority(headers.get("host", ""))
        if host is None or not self._is_ours(host, scope):
            name = _shown(headers.get("host", ""))
            again = str(host) if host else "NAME"
            return (
                f"this UI does not answer to the host {name}. If that is a name of this server, "
                f"allow it: ego up --allow-host {again}"
            )
        return _foreign(scope, headers, host) or _bad_graphql(scope, headers)

    def _is_ours(self, host: Authority, scope: Scope) -> bool:
        if is_allowed(host, self.allowed):
            return True
        # An address cannot be made to point elsewhere, as a name can (DNS rebinding).
        with suppress(ValueError, TypeError):
            reached = ipaddress.ip_address((scope.get("server") or ("",))[0])
            mapped = getattr(reached, "ipv4_mapped", None)
            return host.host == str(mapped or reached)
        return False


def _foreign(scope: Scope, headers: dict[str, str], host: Authority) -> str | None:
    origin = headers.get("origin")
    if origin is not None and not is_same_origin(origin, host):
        return (
            f"a page of {_shown(origin)} may not use this UI, which is at {host}. "
            "If a proxy is in between, let it pass on the Host header that the browser sent"
        )
    site = headers.get("sec-fetch-site", "none")
    if site in ("same-origin", "none"):
        return None
    is_link = (
        scope.get("method") in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    if is_link and _first_part(scope) not in NO_PAGES:
        return None
    return (
        f"another web site asks for this (Sec-Fetch-Site: {_shown(site)}). "
        f"Open http://{host} in the browser yourself"
    )


def _bad_graphql(scope: Scope, headers: dict[str, str]) -> str | None:
    if scope["type"] != "http" or _first_part(scope) != "graphql":
        return None
    if scope["method"] in ("GET", "HEAD"):
        # Without a query this is GraphiQL, a page.
        return "GraphQL is executed by POST only" if scope.get("query_string") else None
    kind = headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() in GRAPHQL_TYPES:
        return None
    return f"GraphQL is taken as application/json only, not as {_shown(kind)}"


def _first_part(scope: Scope) -> str:
    return next((part for part in scope["path"].split("/") if part), "")


def _shown(text: str) -> str:
    """What a stranger sent, fit for a log and a message."""
    return ascii(text if len(text) <= 100 else f"{text[:100]}…")


def _with_headers(send: Send) -> Send:
    async def send_more(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return send_more


async def _refuse(scope: Scope, receive: Receive, send: Send, words: str) -> None:
    if scope["type"] == "websocket":
        # The server answers 403. No words: browsers show a page none of them.
        await receive()
        await send({"type": "websocket.close"})
        return
    body = words.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *HEADERS,
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
