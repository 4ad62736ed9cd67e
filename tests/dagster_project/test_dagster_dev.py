"""The UI as a person uses it: `ego up`, a partition materialized over GraphQL, a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from ego_assets.catalog import TABLES
from ego_assets.intake.shards import find_files, register_files
from resources.lake import Lake
from tests.dagster_project.ui import Server, browser_page, ego_up, wait_for
from tests.support.rendered import render_sample

pytestmark = [pytest.mark.slow, pytest.mark.browser]
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("up")
    video = render_sample(folder / "raw", seed=5, duration_s=1.5)
    lake = Lake(folder / "lake")
    register_files(lake, find_files([video]).files)
    with ego_up(lake, folder / "up.log") as found:
        yield found


@pytest.fixture(scope="module")
def run_id(server: Server) -> str:
    """The whole graph over one partition, launched as the UI launches it."""
    (shard,) = server.lake.shards()
    params = {
        "selector": {
            "repositoryLocationName": "ego",
            "repositoryName": "__repository__",
            "pipelineName": "whole_graph",
        },
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": shard}]},
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
    assert server.lake.shards()[0] in node["partitionKeys"]
    latest = node["assetMaterializations"][0]
    assert latest["partition"] == server.lake.shards()[0]
    entries = {e["label"]: e for e in latest["metadataEntries"]}
    assert {"picture", "done", "units per minute", "dagster/row_count"} <= set(entries)
    assert "data:image/" in entries["picture"].get("mdStr", "")
    checks = {c["name"]: c for c in node["assetChecksOrError"]["checks"]}
    for name in ("fits_contract", "covers_every_clip"):
        assert checks[name]["executionForLatestMaterialization"]["status"] == "SUCCEEDED"


def test_a_browser_shows_the_graph_and_a_picture(server: Server, run_id: str) -> None:
    from playwright.sync_api import expect

    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        pytest.skip("no chromium on the PATH: install Debian's package chromium")
    shard = server.lake.shards()[0]
    with browser_page() as page:
        page.goto(f"{server.url}/asset-groups", wait_until="domcontentloaded")
        expect(page.get_by_text("masks", exact=True).last).to_be_visible(timeout=60_000)
        page.keyboard.press("Alt+e")  # expands the groups
        for table in TABLES:
            shown = table if len(table) < 17 else f"{table[:8]}…"
            expect(page.get_by_text(shown).first).to_be_visible(timeout=60_000)
        page.goto(f"{server.url}/assets/hand_poses?view=partitions&partition={shard}")
        show = page.get_by_text("Show Markdown").first
        expect(show).to_be_visible(timeout=60_000)
        show.click()
        picture = page.locator("img[src^='data:image/']").first
        expect(picture).to_be_visible(timeout=60_000)
        assert picture.evaluate("image => image.naturalWidth") > 300
