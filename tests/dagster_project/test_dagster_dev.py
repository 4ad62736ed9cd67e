"""The UI as a person uses it: `ego up`, a partition materialized over GraphQL, a browser.

EGO_PICTURES=docs/pictures keeps the screenshots there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from ego_assets.schemas import TABLES
from ego_assets.stages.shards import find_files, register_files
from resources.lake import Lake
from samples import render_sample
from tests.resources.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.browser]
START_S = 120
RUN_S = 400

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
ASSET = """
query Asset($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      partitionKeys
      opVersion
      assetMaterializations(limit: 1) {
        partition
        metadataEntries { label ... on MarkdownMetadataEntry { mdStr } }
      }
      assetChecksOrError {
        ... on AssetChecks {
          checks { name blocking executionForLatestMaterialization { status } }
        }
      }
    }
  }
}
"""


@dataclass
class Server:
    url: str
    lake: Lake
    shard: str

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
    pytest.fail(f"no {what} after {limit_s} s")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("up")
    video = render_sample(folder / "raw", seed=3, duration_s=3.0)
    lake = Lake(folder / "lake")
    shard = register_files(lake, find_files([video]).files)[0]
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k not in {"DAGSTER_HOME", "EGO_LAKE"}}
    command = [str(Path(sys.executable).with_name("ego")), "up", "--port", str(port)]
    log = folder / "up.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--lake", str(lake.root)],
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
        yield Server(url, lake, shard)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive, f"left behind: {alive}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def run_id(server: Server) -> str:
    """The whole graph over one partition, launched as the UI launches it."""
    params = {
        "selector": {
            "repositoryLocationName": "ego",
            "repositoryName": "__repository__",
            "pipelineName": "whole_graph",
        },
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": server.shard}]},
    }
    launched = server.ask(LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]

    def ended() -> str | None:
        state = server.ask(STATUS, id=run_id)["runOrError"]["status"]
        return state if state in {"SUCCESS", "FAILURE", "CANCELED"} else None

    assert wait_for("end of the run", ended, RUN_S) == "SUCCESS"
    return run_id


@pytest.mark.parametrize("table", TABLES)
def test_each_asset_shows_partition_checks_and_picture(
    server: Server, run_id: str, table: str
) -> None:
    node = server.ask(ASSET, key={"path": [table]})["assetNodeOrError"]
    assert server.shard in node["partitionKeys"]
    latest = node["assetMaterializations"][0]
    assert latest["partition"] == server.shard
    entries = {e["label"]: e for e in latest["metadataEntries"]}
    assert {"picture", "done", "units per minute", "dagster/row_count"} <= set(entries)
    assert "data:image/" in entries["picture"].get("mdStr", "")
    checks = {c["name"]: c for c in node["assetChecksOrError"]["checks"]}
    for name in ("fits_contract", "covers_every_clip"):
        assert checks[name]["executionForLatestMaterialization"]["status"] == "SUCCEEDED"


def test_a_browser_shows_the_graph_and_a_picture(
    server: Server, run_id: str, tmp_path: Path
) -> None:
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        pytest.skip("no chromium on the PATH: install Debian's package chromium")
    from playwright.sync_api import expect, sync_playwright

    given = os.environ.get("EGO_PICTURES")
    pictures = Path(given) if given else tmp_path
    pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1720, "height": 1080})
        page.goto(f"{server.url}/asset-groups", wait_until="domcontentloaded")
        expect(page.get_by_text("masks", exact=True).last).to_be_visible(timeout=60_000)
        page.keyboard.press("Alt+e")  # expands the groups
        for table in TABLES:
            shown = table if len(table) < 17 else f"{table[:8]}…"
            expect(page.get_by_text(shown).first).to_be_visible(timeout=60_000)
        page.wait_for_timeout(3000)
        page.screenshot(path=pictures / "asset_graph.png")
        page.goto(f"{server.url}/assets/hand_poses?view=partitions&partition={server.shard}")
        show = page.get_by_text("Show Markdown").first
        expect(show).to_be_visible(timeout=60_000)
        page.screenshot(path=pictures / "partition_page.png")
        show.click()
        picture = page.locator("img[src^='data:image/']").first
        expect(picture).to_be_visible(timeout=60_000)
        page.wait_for_timeout(1000)
        page.screenshot(path=pictures / "picture.png")
        assert picture.evaluate("image => image.naturalWidth") > 300
        browser.close()
    assert (pictures / "asset_graph.png").stat().st_size > 20_000
