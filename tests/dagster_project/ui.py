"""A real UI and daemon on a lake, asked over GraphQL and seen through a headless browser.

For tests, and for the script that takes the pictures of the docs (`docs/take_pictures.py`).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
import uvicorn

from dagster_project.web.guard import Guard
from dagster_project.web.hosts import parse_allowed
from resources.lake import Lake
from tests.resources.ports import free_port

EGO = str(Path(sys.executable).with_name("ego"))
START_S = 240
LAUNCH_BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
BACKFILL_STATUS = """
query Status($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill {
      id status numPartitions
      runs(limit: 50) { status tags { key value } }
    }
  }
}
"""


@dataclass
class Server:
    url: str
    lake: Lake

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        answer = requests.post(f"{self.url}/graphql", json=body, timeout=60).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]


def wait_for(what: str, probe: Callable[[], Any], limit_s: float) -> Any:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.5)
    raise TimeoutError(f"no {what} after {limit_s} s")


def backfill(
    server: Server, tables: Sequence[str], shards: list[str], limit_s: float
) -> dict[str, Any]:
    """Of tables of shards, asked for as the backfill window does: what came of it, in the end."""
    params = {"assetSelection": [{"path": [t]} for t in tables], "partitionNames": shards}
    launched = server.ask(LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def ended() -> dict[str, Any] | None:
        found = server.ask(BACKFILL_STATUS, id=launched["backfillId"])["partitionBackfillOrError"]
        return found if found["status"].startswith(("COMPLETED", "FAILED", "CANCELED")) else None

    return wait_for("end of the backfill", ended, limit_s)


@contextmanager
def ego_up(lake: Lake, log: Path, *options: str) -> Iterator[Server]:
    """The UI and the daemon of the project's graph over a lake."""
    command = [EGO, "up", "--lake", str(lake.root), *options]
    environment = {k: v for k, v in os.environ.items() if k not in {"DAGSTER_HOME", "EGO_LAKE"}}
    with ui_and_daemon(command, environment, lake, log) as server:
        yield server


@contextmanager
def ui_and_daemon(
    command: list[str], environment: dict[str, str], lake: Lake, log: Path
) -> Iterator[Server]:
    """What this command starts at the port that it is told; in the end all of it has to be gone."""
    port = free_port()
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            return requests.get(f"{url}/server_info", timeout=5).ok
        except requests.RequestException:
            return False

    try:
        wait_for("server", is_up, START_S)
        yield Server(url, lake)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive, f"left behind: {alive}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def behind_guard(app: Any) -> Iterator[str]:
    """The URL of pages behind the guard of the UI, as `ego up` has them."""
    guarded = Guard(app, parse_allowed("127.0.0.1"))
    server = uvicorn.Server(uvicorn.Config(guarded, port=0, log_level="warning", lifespan="off"))
    sock = server.config.bind_socket()
    sock.listen()  # from here on requests wait for the server
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        sock.close()


@contextmanager
def watched_page(url: str, width: int = 1720, height: int = 1080) -> Iterator[Any]:
    """A page of a headless Chromium; in the end it has told no error, and asked no other site."""
    told: list[str] = []
    elsewhere: list[str] = []

    def note(address: str) -> None:
        if not address.startswith((url, "data:")):
            elsewhere.append(address)

    with browser_page(width, height) as page:
        page.set_default_timeout(60_000)
        page.on("console", lambda m: told.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: note(request.url))
        yield page
        assert not told
        assert not elsewhere


@contextmanager
def browser_page(width: int = 1720, height: int = 1080, *options: str) -> Iterator[Any]:
    """A page of a headless Chromium. Raises FileNotFoundError where there is none."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise FileNotFoundError("no chromium on the PATH: install Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", *options]
        )
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()
