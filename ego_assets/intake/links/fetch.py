"""Fetches a link by HTTP into a part: one try.

Every redirect is judged as the link itself is. A body must have the length that its header says,
neither less nor more. Not here: whether it is tried again (`ingest`), what the file is (`content`).
"""

from __future__ import annotations

import email.utils
import http.client
import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import SplitResult, urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, LocationParseError, SSLError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError
from urllib3.response import BaseHTTPResponse

from ego_assets.intake.links.addresses import check_url, connect
from ego_assets.intake.links.outcome import Got, IngestError, LinkError, RefusedError
from ego_assets.intake.links.pace import SLOWEST, StallWatch, Throttle
from ego_assets.intake.links.parts import LinkPart
from ego_assets.intake.links.settings import IngestSettings

MOST_REDIRECTS = 10
BLOCK_BYTES = 256 * 1024
SURPLUS_S = 1.0
"""How long a server that does not close the connection may take to send too much."""
_REDIRECTS = {301, 302, 303, 307, 308}
_MAY_HELP = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_HTML = (b"<!doctype html", b"<html")
AGENT = "ego-assets"


class _ToTheEnd(http.client.HTTPResponse):
    """Reads until the server closes the connection, so that a body that is longer than its
    Content-Length is seen to be."""

    def begin(self) -> None:
        super().begin()
        if not self.chunked and self.length:
            self.length, self.will_close = None, True


class _Guarded:
    """Of a connection: it is made by `connect`, which judges addresses."""

    def __init__(
        self, *given: Any, allow_private: bool, stall_s: float, watch: StallWatch, **options: Any
    ) -> None:
        super().__init__(*given, **options)
        self._guard = (allow_private, stall_s, watch)

    def _new_conn(self) -> socket.socket:
        allow_private, stall_s, watch = self._guard
        host, port = self._dns_host, self.port  # type: ignore[attr-defined]
        found = connect(host, port, stall_s, allow_private=allow_private)
        # Not before: addresses that do not answer have limits of their own.
        watch.over(found, 2 * stall_s)
        return found


class _GuardedHTTP(_Guarded, HTTPConnection):
    response_class = _ToTheEnd


class _GuardedHTTPS(_Guarded, HTTPSConnection):
    response_class = _ToTheEnd


class _PoolHTTP(HTTPConnectionPool):
    ConnectionCls = _GuardedHTTP


class _PoolHTTPS(HTTPSConnectionPool):
    ConnectionCls = _GuardedHTTPS


class Fetcher:
    """Fetches links under the same settings. For many threads at once.

    jar: cookies that go along, each to its own hosts; what servers set is not kept. stop: set when
    no more is to be read.
    """

    def __init__(
        self,
        settings: IngestSettings,
        throttle: Throttle,
        stop: threading.Event,
        *,
        allow_private: bool,
        jar: CookieJar | None = None,
    ) -> None:
        self._settings = settings
        self._throttle = throttle
        self._stop = stop
        self._allow_private = allow_private
        self._jar = jar

    def fetch(self, url: str, part: LinkPart) -> Got:
        """Bring what is behind a link into a part, from where that ends if the server still has
        the same file. Raises LinkError, IngestError."""
        state, size = part.state, part.size
        if state.total is not None and size == state.total:
            return Got(state.status)  # it was whole already
        at = size if state.etag and size else 0
        status: int | None = None
        for _ in range(MOST_REDIRECTS + 1):
            parts = check_url(url, status)
            watch = StallWatch()
            try:
                with self._explained(watch, status), self._asked(parts, at, state.etag, watch) as r:
                    status = r.status
                    if status not in _REDIRECTS:
                        self._take(r, part, at, state.etag, watch)
                        return Got(status)
                    if not (place := r.headers.get("location", "")):
                        raise LinkError("a redirect that leads nowhere", status=status)
                    url = redirected(url, place)
            finally:
                watch.close()
        raise LinkError(f"more than {MOST_REDIRECTS} redirects, as in a circle", status=status)

    @contextmanager
    def _asked(
        self, parts: SplitResult, at: int, etag: str, watch: StallWatch
    ) -> Iterator[BaseHTTPResponse]:
        """The answer to a request. A connection is for one of them."""
        stall_s = self._settings.stall_s
        headers = {
            "User-Agent": AGENT,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        if at:
            headers |= {"Range": f"bytes={at}-", "If-Range": etag}
        if self._jar is not None:
            asked = urllib.request.Request(parts.geturl())
            self._jar.add_cookie_header(asked)
            headers |= {"Cookie": c} if (c := asked.get_header("Cookie")) else {}
        kind = _PoolHTTPS if parts.scheme == "https" else _PoolHTTP
        # Not by `geturl`, which takes the slashes of //a for those of a host.
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        with kind(
            parts.hostname or "",
            parts.port,
            timeout=urllib3.Timeout(connect=stall_s, read=stall_s),
            allow_private=self._allow_private,
            stall_s=stall_s,
            watch=watch,
        ) as pool:
            response = pool.urlopen(
                "GET",
                target,
                headers=headers,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
                enforce_content_length=False,
            )
            watch.stop()
            if watch.is_over:  # what had come of the header is taken for all of it
                raise LinkError(_stalled(stall_s), may_help=True)
            try:
                yield response
            finally:
                response.close()

    def _take(
        self, response: BaseHTTPResponse, part: LinkPart, at: int, etag: str, watch: StallWatch
    ) -> None:
        status, headers = response.status, response.headers
        if status not in (200, 206):
            raise _of_status(status, headers.get("retry-after", ""), self._settings.max_wait_s)
        told = response.length_remaining
        response.length_remaining = None  # or it would end there, whatever comes behind
        is_rest = status == 206
        if is_rest and not (
            at
            and _is_from(at, told, headers.get("content-range", ""))
            and headers.get("etag", etag) == etag
        ):
            raise LinkError(
                "it sent another part than it was asked for",
                may_help=True,
                status=status,
                is_void=True,
            )
        at = at if is_rest else 0
        total = None if told is None else at + told
        self._must_fit(total or 0, status)
        new = headers.get("etag", "")
        strong = etag if is_rest else new if new.startswith('"') and len(new) < 1000 else ""
        with _of_disk(), part.writing(at, strong, total) as file:
            got = at
            for block in self._blocks(response, total, at, watch, status):
                if not got and block.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith(_HTML):
                    raise LinkError(
                        "a web page, not a video: it may need cookies (--cookies), or yt-dlp "
                        "(--yt-dlp)",
                        status=status,
                        is_void=True,
                    )
                got += len(block)
                self._must_fit(got, status)
                file.write(block)
        if total is None and not got:  # the connection may have broken off in the header
            raise LinkError("it sent nothing", may_help=True, status=status)
        if total is not None and got != total:
            is_short = got < total
            how = "ended before" if is_short else "was longer than"
            raise LinkError(
                f"what it sent {how} the {total:,} bytes that it had announced",
                may_help=True,
                status=status,
                is_void=not is_short,
            )

    def _blocks(
        self,
        response: BaseHTTPResponse,
        total: int | None,
        got: int,
        watch: StallWatch,
        status: int,
    ) -> Iterator[bytes]:
        """What comes, until it ends, and one block more than was announced."""
        stall_s, waited_s, came = self._settings.stall_s, 0.0, 0
        while total is None or got <= total:
            if self._stop.is_set():
                raise LinkError("stopped", may_help=True, status=status)
            began = time.monotonic()
            is_whole = got == total
            watch.start(min(SURPLUS_S, stall_s) if is_whole else stall_s)
            try:
                block = response.read1(BLOCK_BYTES)
            except (HTTPError, OSError, http.client.HTTPException):
                if is_whole:
                    return
                raise
            watch.stop()
            if not block:
                if watch.is_over and not is_whole:
                    raise LinkError(_stalled(stall_s), may_help=True, status=status)
                return
            yield block
            got += len(block)
            waited_s, came = waited_s + time.monotonic() - began, came + len(block)
            if waited_s >= stall_s:
                if came < SLOWEST * waited_s:
                    raise LinkError(_stalled(stall_s), may_help=True, status=status)
                waited_s, came = 0.0, 0
            self._throttle.take(len(block), self._stop)

    def _must_fit(self, byte_count: int, status: int) -> None:
        if byte_count > self._settings.max_gb * 1e9:
            raise RefusedError(f"larger than {self._settings.max_gb:g} GB (--max-gb)", status)

    @contextmanager
    def _explained(self, watch: StallWatch, status: int | None) -> Iterator[None]:
        """Say in our own words what a library raises."""
        try:
            yield
        except (HTTPError, OSError, http.client.HTTPException, UnicodeError) as error:
            if isinstance(error, UnicodeError | LocationParseError):
                raise LinkError("not a link that can be asked for", status=status) from error
            if isinstance(error, SSLError) and _is_untrusted(error):
                raise LinkError("its certificate is not to be trusted", status=status) from error
            if watch.is_over or isinstance(error, Urllib3TimeoutError | TimeoutError):
                words = _stalled(self._settings.stall_s)
            else:
                words = "the connection was refused, or broke off"
            raise LinkError(words, may_help=True, status=status) from error


@contextmanager
def _of_disk() -> Iterator[None]:
    """Our own files cannot be written: no other link fares better. Errors of the network that come
    through here are those of urllib3, and pass."""
    try:
        yield
    except (HTTPError, http.client.HTTPException, TimeoutError, ConnectionError):
        raise
    except OSError as error:
        raise IngestError(
            f"{error.filename or 'the raw lake'} cannot be written: {error.strerror}"
        ) from error


def _of_status(status: int, retry_after: str, max_wait_s: float) -> LinkError:
    """What an answer that brings no file means."""
    try:
        words = f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        words = f"HTTP {status}"
    if status == 416:  # what has come is not the beginning of what is there
        return LinkError(words, may_help=True, status=status, is_void=True)
    if status not in _MAY_HELP:
        return LinkError(words, status=status)
    after_s = seconds_of(retry_after)
    if after_s > max_wait_s:
        words += f", and asks to wait {after_s:,.0f} s: run it again then (or raise --max-wait-s)"
        return LinkError(words, status=status)
    return LinkError(words, may_help=True, after_s=after_s, status=status)


def redirected(url: str, place: str) -> str:
    """Where a redirect leads. Raises RefusedError."""
    try:
        return urljoin(url, place)
    except ValueError:
        raise RefusedError("a redirect that cannot be read") from None


def _is_from(at: int, told: int | None, content_range: str) -> bool:
    """Whether a part of a file is all of it from a byte on."""
    found = _RANGE.fullmatch(content_range.strip())
    if found is None:
        return False
    first, last, total = map(int, found.groups())
    return first == at and last + 1 == total and told in (None, total - at)


def seconds_of(retry_after: str) -> float:
    """What a Retry-After header says: seconds, or a date. 0 if it says nothing that is either."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _stalled(stall_s: float) -> str:
    return f"nothing came for {stall_s:g} s, or next to nothing"


def _is_untrusted(error: SSLError) -> bool:
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in error.args)
