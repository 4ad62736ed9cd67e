"""Pictures over HTTP: those of the lake, to be read only, behind the same guard as the UI."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.definitions import build_defs
from dagster_project.web.beside import Beside, pictures_of
from dagster_project.web.guard import Guard
from dagster_project.web.guide import docs_folder, guide_of
from dagster_project.web.hosts import parse_allowed
from ego_assets.catalog import TABLES
from ego_assets.environment import PICTURES
from ego_assets.graph.metadata import look_up
from ego_assets.media.pictures import Pictures
from resources.lake import Lake
from tests.graph.test_pictures import JPEG, PNG, SHARD

UI = "127.0.0.1:3000"


class Answer:
    """What a client gets for one request, and whether Dagster's application saw it."""

    def __init__(self, pictures: Any, path: str, method: str = "GET", **headers: str) -> None:
        given = {"host": UI} | {name.replace("_", "-"): v for name, v in headers.items()}
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(k.encode(), v.encode()) for k, v in given.items()],
            "server": ("127.0.0.1", 3000),
            "client": ("127.0.0.1", 5),
        }
        self.passed = False
        self.sent: list[Any] = []
        answers = {"/previews": pictures_of(pictures), "/guide": guide_of(docs_folder())}
        app = Guard(Beside(self._app, answers), parse_allowed("127.0.0.1"))
        asyncio.run(app(scope, self._receive, self._send))
        self.status = self.sent[0]["status"]
        self.headers = {k.decode(): v.decode() for k, v in self.sent[0]["headers"]}
        self.body = self.sent[1]["body"]

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.passed = True
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def _receive(self) -> dict[str, Any]:
        return {"type": "http.request"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    found = Pictures(Lake(tmp_path))
    found.keep("hand_poses", SHARD, ("image/jpeg", JPEG))
    found.keep("robot_mappings", SHARD, ("image/png", PNG))
    (tmp_path / "secret.png").write_bytes(PNG)
    return found


def test_a_picture_is_answered_with_its_type(pictures: Pictures) -> None:
    for path, media, data in (
        (f"/previews/hand_poses/{SHARD}", "image/jpeg", JPEG),
        ("/previews/hand_poses/latest", "image/jpeg", JPEG),
        (f"/previews/robot_mappings/{SHARD}", "image/png", PNG),
    ):
        answer = Answer(pictures, path)
        assert (answer.status, answer.headers["content-type"]) == (200, media)
        assert answer.body == data
        assert not answer.passed
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/previews",
        "/previews/",
        "/previews/hand_poses",
        "/previews/hand_poses/",
        "/previews/hand_poses/20260101-0009",
        f"/previews/hand_poses/{SHARD}.jpg",
        f"/previews/hand_poses/{SHARD}/more",
        "/previews/../secret",
        "/previews/hand_poses/../../secret",
        "/previews//secret",
        "/previews/hand_poses/\x00",
    ],
)
def test_nothing_else_is(pictures: Pictures, path: str) -> None:
    answer = Answer(pictures, path)
    assert answer.status == 404
    assert answer.headers["content-type"].startswith("text/plain")
    assert not answer.passed


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_pictures_are_only_read(pictures: Pictures, method: str) -> None:
    assert Answer(pictures, f"/previews/hand_poses/{SHARD}", method).status == 405


def test_other_paths_are_dagsters(pictures: Pictures) -> None:
    for path in ("/", "/assets/hand_poses", "/previewsx/hand_poses/latest", "/graphql"):
        assert Answer(pictures, path).passed, path


def test_the_guard_is_before_it(pictures: Pictures) -> None:
    path = f"/previews/hand_poses/{SHARD}"
    assert Answer(pictures, path, host="evil.example").status == 403
    embedded = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}
    answer = Answer(pictures, path, **embedded, sec_fetch_dest="image")
    assert answer.status == 403
    assert answer.body != JPEG
    own = Answer(pictures, path, sec_fetch_site="same-origin", sec_fetch_mode="no-cors")
    assert own.body == JPEG


def test_a_lake_that_is_away_leaves_the_ui_standing() -> None:
    class Away:
        def read(self, table: str, name: str) -> None:
            raise OSError("Stale file handle")

    assert Answer(Away(), f"/previews/hand_poses/{SHARD}").status == 503


def test_the_overview_shows_the_newest_picture_under_ego_up_alone() -> None:
    for shows, count in ((True, len(TABLES)), (False, 0)):
        graph = build_defs(shows_pictures=shows).resolve_asset_graph()
        shown = [
            table
            for table in TABLES
            if f"](/previews/{table}/latest)" in (graph.get(dg.AssetKey(table)).description or "")
        ]
        assert len(shown) == count


def test_every_check_is_looked_up_in_the_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its row: all that the UI links to is there."""
    monkeypatch.setenv(PICTURES, "served")
    graph = build_defs().resolve_asset_graph()
    pages = {page: Answer(None, f"/guide/{page}").body.decode() for page in ("probes", "runbook")}
    names = {key.name for key in graph.asset_check_keys}
    assert len(names) > 30
    for name in names:
        page = "runbook" if name in {"fits_contract", "covers_every_clip"} else "probes"
        (link,) = look_up(page, name).values()
        assert link.value == f"/guide/{page}#{name}"
        assert f'id="{name}"' in pages[page], name
    monkeypatch.setenv(PICTURES, "embedded")
    assert look_up("probes", "x") == {}


def test_the_guide_has_the_pages_of_the_docs_and_nothing_else() -> None:
    assert Answer(None, "/guide").headers["location"] == "/guide/index"
    for name in ("index", "runbook", "probes.md", "adr/0018-a-guard-inside-the-webserver.md"):
        answer = Answer(None, f"/guide/{name}")
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "<h1" in answer.body.decode()
    assert 'id="the-ui"' in Answer(None, "/guide/security.md").body.decode()
    assert Answer(None, "/guide/pictures/asset_graph.png").headers["content-type"] == "image/png"
    for path in (
        "/guide/../README",
        "/guide/..%2fREADME",
        "/guide/adr/../index",
        "/guide/take_pictures.py",
        "/guide/pictures/result.LICENSE",
        "/guide/pictures/../index.md",
        "/guide/no_such_page",
    ):
        assert Answer(None, path).status == 404, path
