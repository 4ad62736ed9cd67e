"""A browser that shows the UI and, beside it, a page of somebody else that wants to start runs."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from resources.lake import Lake
from tests.dagster_project.ui import START_S, Server, browser_page, ego_up, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.browser]

JOB = "write_report"
REBOUND = "rebound.example"
SELECTOR = f'repositoryLocationName: "ego", repositoryName: "__repository__", pipelineName: "{JOB}"'
MUTATION = (
    f"mutation {{ launchRun(executionParams: {{ selector: {{ {SELECTOR} }}, "
    'runConfigData: "{}", mode: "default" }) { __typename } }'
)
RUNS = "query { runsOrError { ... on Runs { results { runId status pipelineName } } } }"
REPORTED = (
    'query { assetNodeOrError(assetKey: {path: ["reports"]}) '
    "{ ... on AssetNode { assetMaterializations { runId } } } }"
)
ATTACKS = """
async ([ui, mutation]) => {
  const told = {};
  const url = `${ui}/graphql?query=${encodeURIComponent(mutation)}`;
  const body = JSON.stringify({query: mutation});
  const text = {'content-type': 'text/plain;charset=application/json'};
  const simple = (where, options) =>
    fetch(where, {mode: 'no-cors', ...options}).then(() => 'sent', String);
  told.simple = await simple(`${ui}/graphql`, {method: 'POST', headers: text, body});
  told.untyped = await simple(url, {method: 'POST', body: new Blob([''])});
  told.get = await simple(url, {});
  told.report = await simple(`${ui}/report_asset_materialization/reports`, {method: 'POST'});
  told.json = await fetch(`${ui}/graphql`, {
    method: 'POST', headers: {'content-type': 'application/json'}, body,
  }).then(() => 'answered', () => 'no answer');
  told.read = await fetch(`${ui}/server_info`).then(() => 'answered', () => 'no answer');
  navigator.sendBeacon(url, new Blob([body], {type: 'text/plain'}));
  const loaded = (tag, source) => new Promise(done => {
    const element = document.createElement(tag);
    element.onload = () => done('loaded');
    element.onerror = () => done('failed');
    element.src = source;
    document.body.append(element);
  });
  told.image = await loaded('img', url);
  told.script = await loaded('script', url);
  told.picture = await loaded('img', `${ui}/favicon.png`);
  await loaded('iframe', url);
  await loaded('iframe', `${ui}/runs`);
  for (const type of ['text/plain', 'multipart/form-data', 'application/x-www-form-urlencoded']) {
    const form = document.createElement('form');
    Object.assign(form, {method: 'post', enctype: type, action: url, target: type});
    form.innerHTML = `<input name='{"query":"' value='"}'>`;
    const frame = document.createElement('iframe');
    frame.name = type;
    document.body.append(form, frame);
    await new Promise(done => { frame.onload = done; form.submit(); });
  }
  const nobody = document.createElement('iframe');  // its origin is "null"
  nobody.sandbox = 'allow-scripts';
  nobody.srcdoc = `<script>fetch(${JSON.stringify(url)}, {method: 'POST', mode: 'no-cors'})`
    + `.finally(() => parent.postMessage('sent', '*'))</script>`;
  await new Promise(done => { window.onmessage = done; document.body.append(nobody); });
  told.socket = await new Promise(done => {
    const socket = new WebSocket(`${ui.replace('http', 'ws')}/graphql`, 'graphql-ws');
    socket.onopen = () => done('open');
    socket.onerror = () => done('refused');
  });
  return told;
}
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sites") / "up.log"


@pytest.fixture(scope="module")
def server(log: Path) -> Iterator[Server]:
    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        pytest.skip("no chromium on the PATH: install Debian's package chromium")
    (log.parent / "lake").mkdir()
    with ego_up(Lake(log.parent / "lake"), log) as found:
        yield found


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Any]:
    rule = f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"
    with browser_page(1720, 1080, rule) as found:
        yield found


@pytest.fixture(scope="module")
def stranger() -> Iterator[int]:
    """The port of a web site of somebody else."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>kittens</title><body>")

        def log_message(self, *_: Any) -> None:
            pass

    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield site.server_address[1]
    site.shutdown()
    site.server_close()


def runs(server: Server) -> list[dict[str, Any]]:
    return server.ask(RUNS)["runsOrError"]["results"]


def assert_nothing_happened(server: Server) -> None:
    assert runs(server) == []
    assert server.ask(REPORTED)["assetNodeOrError"]["assetMaterializations"] == []


@pytest.mark.parametrize("host", ["127.0.0.1", "evil.localhost", REBOUND])
def test_a_page_of_another_site_starts_nothing(
    server: Server, page: Any, stranger: int, log: Path, host: str
) -> None:
    """From another port, which is the same site, and from other names."""
    page.goto(f"http://{host}:{stranger}/")
    refused = log.read_text().count("Refused ")
    told = page.evaluate(ATTACKS, [server.url, MUTATION])
    assert told["json"] == told["read"] == "no answer"
    assert told["image"] == told["picture"] == told["script"] == "failed"
    assert told["socket"] == "refused"
    frames = [frame for frame in page.frames if frame != page.main_frame]
    assert len(frames) == 6
    for frame in frames:
        assert "Dagster" not in frame.content()
    assert log.read_text().count("Refused ") - refused == 17
    assert_nothing_happened(server)


@pytest.mark.parametrize("path", ["/graphql", "/logs/a", "/download_debug/a"])
def test_a_link_of_another_site_executes_nothing(
    server: Server, page: Any, stranger: int, path: str
) -> None:
    page.goto(f"http://evil.localhost:{stranger}/")
    target = f"{server.url}{path}"
    with page.expect_navigation():
        page.evaluate(
            "([url, query]) => { location = `${url}?query=${encodeURIComponent(query)}` }",
            [target, MUTATION],
        )
    assert page.url.startswith(target)
    assert "Refused" in page.content()
    assert_nothing_happened(server)


def test_a_name_that_is_made_to_point_here_gets_nothing(server: Server, page: Any) -> None:
    """DNS rebinding: for the browser the page and the UI have one origin."""
    port = server.url.rpartition(":")[2]
    page.goto(f"http://{REBOUND}:{port}/")
    assert f"ego up --allow-host {REBOUND}:{port}" in page.content()
    ask = """async query => {
      const options = {method: 'POST', headers: {'content-type': 'application/json'}};
      const answer = await fetch('/graphql', {...options, body: JSON.stringify({query})});
      const socket = new WebSocket(`ws://${location.host}/graphql`, 'graphql-ws');
      return [answer.status, await new Promise(done => {
        socket.onopen = () => done('open');
        socket.onerror = () => done('refused');
      })];
    }"""
    assert page.evaluate(ask, MUTATION) == [403, "refused"]
    assert_nothing_happened(server)


def test_the_ui_itself_works(server: Server, page: Any, stranger: int) -> None:
    """A person comes by a link, launches a run, and sees its events as they come."""
    from playwright.sync_api import expect

    frames: list[Any] = []
    page.on("websocket", lambda s: s.on("framereceived", lambda frame: frames.append(frame)))
    page.goto(f"http://evil.localhost:{stranger}/")
    with page.expect_navigation():
        page.evaluate(
            "url => { location = url }", f"{server.url}/locations/ego/jobs/{JOB}/playground"
        )
    launch = page.get_by_role("button", name="Launch run")
    expect(launch).to_be_enabled(timeout=START_S * 1000)
    launch.click()
    page.wait_for_url("**/runs/*", timeout=60_000)
    expect(page.get_by_text("RUN_SUCCESS").first).to_be_visible(timeout=START_S * 1000)
    received = [json.loads(frame) for frame in frames]
    assert any(message["type"] == "data" for message in received)
    (run,) = wait_for("run", lambda: runs(server), 60)
    assert (run["pipelineName"], run["status"]) == (JOB, "SUCCESS")


def test_code_can_be_reloaded(server: Server) -> None:
    entry = (
        "workspaceOrError { ... on Workspace { locationEntries { name versionKey loadStatus } } }"
    )
    (before,) = server.ask(f"query {{ {entry} }}")["workspaceOrError"]["locationEntries"]
    reload = 'reloadRepositoryLocation(repositoryLocationName: "ego") { __typename }'
    answer = server.ask(f"mutation {{ {reload} }}")["reloadRepositoryLocation"]
    assert answer["__typename"] == "WorkspaceLocationEntry"
    (after,) = server.ask(f"query {{ {entry} }}")["workspaceOrError"]["locationEntries"]
    assert (after["name"], after["loadStatus"]) == ("ego", "LOADED")
    assert after["versionKey"] != before["versionKey"]
