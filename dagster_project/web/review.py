"""Answers requests for the page on which people judge episodes and clips.

An ASGI application around Dagster's, behind the guard. Here: which request does what, and what it
may not. Not here: what the page looks like (`review_page`), what is kept (`ego_assets.reviews`).
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route, Router

from dagster_project.web.guard import App, Receive, Scope, Send
from dagster_project.web.review_page import PAGE, SCRIPT, STYLE
from ego_assets.operator import BadInputError
from ego_assets.reading import LakeReader
from ego_assets.reviews.standing import Judgement, Standing
from ego_assets.reviews.store import Kind, Review, ReviewError
from ego_assets.reviews.subjects import FactTeller, Subject, list_subjects
from ego_assets.reviews.videos import OverlayVideos
from resources.lake import Lake, LakeError

URL = "/review"
HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "media-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
}
MOST_BYTES = 10_000
"""Of a request that judges."""
_LOG = logging.getLogger("dagster-webserver")


class _RefusedError(Exception):
    """A request that cannot be answered as asked, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class ReviewPages:
    """Answers requests at and below /review, and passes all others on to `app`."""

    def __init__(
        self, app: App, lake: Lake, folder: Path, *, reviewer: str = "", read_only: bool = False
    ) -> None:
        self.app = app
        self.lake = lake
        self.reviewer = reviewer
        self.read_only = read_only
        self.standing = Standing(lake)
        self.teller = FactTeller(lake)
        self.videos = OverlayVideos(LakeReader(lake), folder)
        self._subjects: dict[Kind, dict[str, Subject]] = {}
        self._lock = threading.Lock()
        get: dict[str, Callable[[Request], Response]] = {
            "": lambda _: HTMLResponse(PAGE, headers=HEADERS),
            "/page.js": lambda _: Response(SCRIPT, 200, HEADERS, "text/javascript"),
            "/page.css": lambda _: Response(STYLE, 200, HEADERS, "text/css"),
            "/queue/{kind}": self._queue,
            "/facts/{kind}/{name}": self._facts,
            "/video/{kind}/{name}/{fingerprint}": self._video,
        }
        routes = [Route(f"{URL}{path}", _answered(answer)) for path, answer in get.items()]
        judge = _answered(self._judge, is_read=False)
        self.router = Router([*routes, Route(f"{URL}/judge", judge, methods=["POST"])])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", ""))
        if scope["type"] == "http" and (path == URL or path.startswith(f"{URL}/")):
            await self.router(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _queue(self, request: Request) -> Response:
        """Everything that there is to judge, by name only, in the order to judge it in."""
        kind = _kind(request.path_params["kind"])
        self._subjects[kind] = {each.name: each for each in list_subjects(self.lake, kind)}
        judged = self.standing.judgements(kind)
        rows = [[name, *_word(judged.get((kind, name)))] for name in self._subjects[kind]]
        about = {"lake": self.lake.location, "reviewer": self.reviewer, "read_only": self.read_only}
        return JSONResponse(about | {"subjects": rows}, headers=HEADERS)

    def _subject(self, kind: Kind, name: str) -> Subject:
        with self._lock:
            if name not in self._subjects.get(kind, {}):
                self._subjects[kind] = {each.name: each for each in list_subjects(self.lake, kind)}
        try:
            return self._subjects[kind][name]
        except KeyError:
            raise _RefusedError(
                404, f"the lake has no {kind} {name!a}: load the page again"
            ) from None

    def _fingerprint(self, subject: Subject) -> tuple[str, str]:
        with self._lock:  # of several requests about one shard, the first computes
            made_by, found = self.standing.fingerprints.of(subject.kind, subject.shard)
        if subject.name not in found:
            raise _RefusedError(404, f"{subject.name} is not in the lake any more")
        return made_by, found[subject.name]

    def _facts(self, request: Request) -> Response:
        kind = _kind(request.path_params["kind"])
        subject = self._subject(kind, request.path_params["name"])
        judgement = self.standing.judgements(kind, [subject.shard]).get((kind, subject.name))
        found = {
            "facts": self.teller.facts(subject),
            "faults": [asdict(fault) for fault in subject.faults],
            "fingerprint": self._fingerprint(subject)[1],
            "review": asdict(judgement.review) if judgement else None,
            "word": _word(judgement)[0],
        }
        return JSONResponse(found, headers=HEADERS)

    def _video(self, request: Request) -> Response:
        subject = self._subject(_kind(request.path_params["kind"]), request.path_params["name"])
        try:
            path = self.videos.path(subject, request.path_params["fingerprint"])
        except (BadInputError, FileNotFoundError) as error:
            raise _RefusedError(404, f"its raw video cannot be shown: {error}") from error
        return FileResponse(path, headers=HEADERS, media_type="video/mp4")

    def _judge(self, request: Request, said: Any) -> Response:
        if self.read_only:
            raise _RefusedError(403, "this server is read only: judge at one that is not")
        if not isinstance(said, dict):
            raise _RefusedError(400, "a review is a JSON object")
        texts = {key: said.get(key, "") for key in ("verdict", "reason", "reviewer", "fingerprint")}
        if not all(isinstance(text, str) for text in (*texts.values(), said.get("name"))):
            raise _RefusedError(400, f"{', '.join(texts)} and name must be texts")
        subject = self._subject(_kind(said.get("kind")), said["name"])
        made_by, now = self._fingerprint(subject)
        seen = texts["fingerprint"]
        try:
            review = Review.now(
                kind=subject.kind,
                subject=subject.name,
                shard=subject.shard,
                verdict=texts["verdict"],
                reason=texts["reason"].strip(),
                side_swap=said.get("side_swap") is True,
                reviewer=texts["reviewer"].strip() or self.reviewer,
                fingerprint=seen,
                # What was looked at may have been replaced since; then this review is out of date.
                made_by=made_by if seen == now else "",
            )
        except ReviewError as error:
            raise _RefusedError(400, str(error)) from error
        self.standing.files.add(review)
        return JSONResponse({"word": _word(Judgement(review, "current"))[0]}, headers=HEADERS)


def _kind(given: Any) -> Kind:
    if given not in get_args(Kind):
        raise _RefusedError(404, f"one can judge: {', '.join(get_args(Kind))}")
    kind: Kind = given
    return kind


def _word(judgement: Judgement | None) -> list[str]:
    """What became of a subject, in a word; none if nobody judged it."""
    if judgement is None:
        return [""]
    return [judgement.review.verdict if judgement.state == "current" else "out of date"]


def _answered(answer: Callable[..., Response], *, is_read: bool = True) -> Callable[..., Any]:
    """An endpoint that answers in a thread, and says in words what does not work."""

    @wraps(answer)
    async def endpoint(request: Request) -> Response:
        try:
            given = () if is_read else (await _json(request),)
            return await run_in_threadpool(answer, request, *given)
        except _RefusedError as error:
            return _no(error.status, str(error))
        except (LakeError, OSError) as error:  # the lake is away: the UI goes on without
            _LOG.warning("%s: %s: %s", request.url.path, type(error).__name__, error)
            return _no(503, "the lake cannot be read or written; the server's log says why")

    return endpoint


async def _json(request: Request) -> Any:
    """The body of a request. Other sites cannot send this type without being asked for it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _RefusedError(415, "reviews are taken as application/json only")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise _RefusedError(413, f"a review has at most {MOST_BYTES:,} bytes")
    try:
        return json.loads(body)
    except ValueError as error:
        raise _RefusedError(400, "a review is a JSON object") from error


def _no(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status, headers=HEADERS)
