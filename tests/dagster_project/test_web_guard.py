"""What the guard lets through to the webserver and what it refuses, request by request."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from dagster_project.web.guard import Guard
from dagster_project.web.hosts import is_same_origin, parse_allowed, parse_authority

UI = "127.0.0.1:3000"
JSON = {"content-type": "application/json"}
NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
MUTATION = b"query=mutation%20%7BterminateRuns%7D"


class Answer:
    """What a client gets for one request, and whether the application saw it."""

    def __init__(
        self,
        method: str = "GET",
        path: str = "/",
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        *,
        query: bytes = b"",
        allowed: str = "localhost 127.0.0.1 [::1]",
        reached: str = "127.0.0.1",
    ) -> None:
        pairs = headers.items() if isinstance(headers, dict) else headers or []
        raw = [(k.encode(), v.encode("latin-1")) for k, v in pairs]
        if isinstance(headers, dict | None) and "host" not in (headers or {}):
            raw.append((b"host", UI.encode()))
        kind = "websocket" if method == "WS" else "http"
        scope: dict[str, Any] = {
            "type": kind,
            "path": path,
            "query_string": query,
            "headers": raw,
            "server": (reached, 3000),
            "client": ("127.0.0.1", 5),
        }
        if kind == "http":
            scope["method"] = method
        self.passed = False
        self.sent: list[Any] = []
        asyncio.run(Guard(self._app, parse_allowed(allowed))(scope, self._receive, self._send))

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.passed = True
        if scope["type"] == "http":
            headers = [(b"content-security-policy", b"object-src 'none'")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"ok"})
        else:
            await send({"type": "websocket.accept"})

    async def _receive(self) -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def words(self) -> str:
        return self.sent[1]["body"].decode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return self.sent[0]["headers"]


@pytest.mark.parametrize(
    "host",
    [
        "localhost:3000",
        "LOCALHOST:3000",
        "localhost.:3000",
        "localhost",
        "127.0.0.1:3000",
        "[::1]:3000",
        "[0:0:0:0:0:0:0:1]:3000",
        "localhost:8080",  # an SSH tunnel that begins at another port
    ],
)
def test_local_names_are_answered(host: str) -> None:
    assert Answer(headers={"host": host}).passed


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "WS"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:3000",
        "localhost.evil.example:3000",
        "127.0.0.1.evil.example:3000",
        "evil.localhost:3000",
        "notlocalhost:3000",
        "192.168.1.5:3000",
        "0.0.0.0:3000",
        "127.0.0.1@evil.example",
        "localhost:3000,evil.example",
        "localhost:99999",
        "localhost:",
        "[::1",
        "[localhost]:3000",
        "local host",
        "localh\xf6st",
        "",
    ],
)
def test_other_hosts_are_refused(host: str, method: str) -> None:
    assert not Answer(method, "/runs", {"host": host}).passed


def test_a_request_without_a_host_or_with_two_is_refused() -> None:
    assert not Answer(headers=[]).passed
    assert not Answer(headers=[("host", UI), ("host", "evil.example")]).passed
    assert not Answer(headers=[("host", UI), ("host", UI)]).passed


def test_a_refused_host_is_told_how_to_be_allowed() -> None:
    answer = Answer(headers={"host": "gpu-box.lab:3000"})
    assert answer.sent[0]["status"] == 403
    assert "ego up --allow-host gpu-box.lab:3000" in answer.words


@pytest.mark.parametrize(
    ("allowed", "host", "passes"),
    [
        ("gpu-box", "gpu-box:3000", True),
        ("gpu-box", "GPU-BOX:80", True),
        ("gpu-box", "gpu-box.evil.example", False),
        ("ego.example.org:8443", "ego.example.org:8443", True),
        ("ego.example.org:8443", "ego.example.org:3000", False),
        ("ego.example.org:8443", "ego.example.org", False),
        ("ego.example.org:443", "ego.example.org", True),  # https, seen from behind the proxy
        ("a.example, b.example c.example", "c.example", True),
        ("münchen.example", "xn--mnchen-3ya.example", True),
        ("[2001:db8::1]", "[2001:0db8:0::1]:3000", True),
    ],
)
def test_hosts_can_be_allowed(allowed: str, host: str, passes: bool) -> None:
    assert Answer(headers={"host": host}, allowed=allowed).passed is passes


@pytest.mark.parametrize("name", ["https://ego.example.org", "*.example.org", "*", "a/b", "a:b"])
def test_what_is_no_host_cannot_be_allowed(name: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        parse_allowed(name)


@pytest.mark.parametrize(
    ("host", "reached", "passes"),
    [
        ("10.0.0.7:3000", "10.0.0.7", True),
        ("10.0.0.7:3000", "::ffff:10.0.0.7", True),
        ("[fd00::7]:3000", "fd00::7", True),
        ("10.0.0.8:3000", "10.0.0.7", False),
        ("evil.example:3000", "10.0.0.7", False),
    ],
)
def test_the_address_that_was_reached_may_be_named(host: str, reached: str, passes: bool) -> None:
    """With `--host 0.0.0.0`. An address, unlike a name, cannot be made to point here."""
    assert Answer(headers={"host": host}, reached=reached).passed is passes


FOREIGN_ORIGINS = [
    "https://evil.example",
    "http://127.0.0.1:8888",  # another server of this machine
    "http://127.0.0.1",
    "http://localhost:3000",  # not the name that was asked
    "http://evil.localhost:3000",
    "http://127.0.0.1:3000.evil.example",
    "http://127.0.0.1:3000@evil.example",
    "null",
    "",
    "file://",
    "chrome-extension://abcdef",
    "ftp://127.0.0.1:3000",
    "127.0.0.1:3000",
]


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/graphql"),
        ("WS", "/graphql"),
        ("GET", "/graphql"),
        ("GET", "/logs/a/b.out"),
        ("OPTIONS", "/graphql"),
        ("PUT", "/graphql"),
        ("POST", "/report_asset_materialization/hand_poses"),
        ("POST", "/report_asset_check/hand_poses"),
        ("POST", "/report_asset_observation/hand_poses"),
    ],
)
def test_pages_of_other_origins_are_refused(method: str, path: str, origin: str) -> None:
    answer = Answer(method, path, {"origin": origin, **JSON})
    assert not answer.passed
    if method != "WS":
        assert answer.sent[0]["status"] == 403


@pytest.mark.parametrize(
    ("host", "origin", "same"),
    [
        ("127.0.0.1:3000", "http://127.0.0.1:3000", True),
        ("localhost:3000", "http://LOCALHOST:3000", True),
        ("[::1]:3000", "http://[::1]:3000", True),
        ("localhost", "http://localhost", True),
        ("localhost:80", "http://localhost", True),
        ("ego.example.org", "https://ego.example.org", True),
        ("ego.example.org:8443", "https://ego.example.org:8443", True),
        ("ego.example.org", "https://ego.example.org:8443", False),
        ("ego.example.org:3000", "https://ego.example.org", False),
        ("localhost:3000", "http://localhost:3000/", False),
    ],
)
def test_origins_are_compared_with_their_ports(host: str, origin: str, same: bool) -> None:
    parsed = parse_authority(host)
    assert parsed is not None
    assert is_same_origin(origin, parsed) is same


@pytest.mark.parametrize(("method", "path"), [("POST", "/graphql"), ("WS", "/graphql")])
def test_pages_of_the_ui_and_programs_may_ask(method: str, path: str) -> None:
    own = {"origin": f"http://{UI}", "sec-fetch-site": "same-origin", **JSON}
    assert Answer(method, path, own).passed
    assert Answer(method, path, JSON).passed  # curl, Dagster's own client


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Same-Origin", ""])
@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("POST", "/graphql", JSON),
        ("WS", "/graphql", {}),
        ("GET", "/runs", {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}),
        ("GET", "/runs", {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}),
        ("GET", "/runs", {"sec-fetch-mode": "navigate", "sec-fetch-dest": "embed"}),
        ("GET", "/runs", {"sec-fetch-mode": "navigate"}),
        ("GET", "/runs", {}),
        ("POST", "/runs", NAVIGATION),
        ("GET", "/graphql", NAVIGATION),
        ("GET", "//graphql", NAVIGATION),
        ("GET", "/logs/a/b.out", NAVIGATION),
        ("GET", "/download_debug/a", NAVIGATION),
        ("GET", "/notebook", NAVIGATION),
        ("POST", "/report_asset_check/a", NAVIGATION),
    ],
)
def test_what_another_site_asks_for_is_refused(
    method: str, path: str, more: dict[str, str], site: str
) -> None:
    assert not Answer(method, path, {"sec-fetch-site": site, **more}).passed


@pytest.mark.parametrize("path", ["/", "/runs/1234", "/assets/hand_poses", "/overview/activity"])
def test_a_link_of_another_site_may_be_followed(path: str) -> None:
    assert Answer(path=path, headers={"sec-fetch-site": "cross-site", **NAVIGATION}).passed


def test_the_address_bar_and_own_frames_work() -> None:
    assert Answer(path="/graphql", headers={"sec-fetch-site": "none", **NAVIGATION}).passed
    frame = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"}
    assert Answer(path="/notebook", headers=frame | {"sec-fetch-dest": "iframe"}).passed


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/graphql", "/graphql/", "//graphql"])
@pytest.mark.parametrize(
    "query",
    [
        MUTATION,
        b"%71uery=mutation%7BterminateRuns%7D",
        b"query=%23%0Aquery+Q%7Bversion%7D+mutation+M%7Bx%7D&operationName=M",
        b"query=query%7Bversion%7D",
        b"operationName=M",
    ],
)
def test_graphql_by_get_executes_nothing(method: str, path: str, query: bytes) -> None:
    own = {"sec-fetch-site": "same-origin", "accept": "text/html"}
    for headers in ({}, own):
        answer = Answer(method, path, headers, query=query)
        assert not answer.passed
        assert "POST" in answer.words
    assert Answer(method, path, own).passed  # GraphiQL, the page


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "text/plain; application/json",
        "multipart/form-data; boundary=application/json",
        "application/x-www-form-urlencoded",
        "TEXT/PLAIN",
    ],
)
def test_graphql_is_not_taken_from_forms(kind: str) -> None:
    answer = Answer("POST", "/graphql", {"content-type": kind}, query=MUTATION)
    assert not answer.passed
    assert "application/json" in answer.words


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8"])
def test_graphql_is_taken_as_json(kind: str) -> None:
    assert Answer("POST", "/graphql", {"content-type": kind}).passed


def test_no_other_site_can_frame_or_embed_the_ui() -> None:
    for answer in (Answer(), Answer(headers={"host": "evil.example"})):
        assert (b"x-frame-options", b"SAMEORIGIN") in answer.headers
        assert (b"content-security-policy", b"frame-ancestors 'self'") in answer.headers
        assert (b"cross-origin-resource-policy", b"same-origin") in answer.headers
    assert (b"content-security-policy", b"object-src 'none'") in Answer().headers


def test_a_refusal_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        answer = Answer("POST", "/graphql\r\nforged", {"origin": f"http://a\x1b[2Jb{'x' * 500}"})
    (line,) = caplog.messages
    assert line.startswith("Refused POST '/graphql\\r\\nforged' of 127.0.0.1: a page of")
    assert line.isprintable()
    assert len(line) < 400
    assert "\x1b" not in answer.words
    with caplog.at_level(logging.WARNING):
        Answer("WS", "/graphql", {"origin": "null"})
    assert caplog.messages[1].startswith("Refused websocket '/graphql'")
