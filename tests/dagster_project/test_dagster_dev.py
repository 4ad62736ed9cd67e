"""The UI as a person uses it: `ego up`, a partition materialized over GraphQL, a browser.

Two shards: in the first one a check fails, since its threshold is set to what no hand keeps to; the
second one has no hands, and is run after the first one's pages were looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from ego_assets.catalog import TABLES, feature_of
from ego_assets.intake.shards import find_files, register_files
from resources.lake import Lake
from tests.dagster_project.ui import Server, browser_page, ego_up, wait_for
from tests.engine.stage_bench import write_video
from tests.support.rendered import render_sample

pytestmark = [pytest.mark.slow, pytest.mark.browser]
RUN_S = 400
PAGE_MS = 120_000
CHECK = "hands_do_not_jitter"
ABOVE = ("video_manifest", "clips", "detections", "object_masks", "hand_masks", "hand_poses")

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
        metadataEntries {
          label
          ... on MarkdownMetadataEntry { mdStr }
          ... on TextMetadataEntry { text }
          ... on IntMetadataEntry { intValue }
        }
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
    lake = Lake(folder / "lake")
    size = {"width": 320, "height": 180}
    video = render_sample(folder / "raw", seed=5, duration_s=1.5, name="kitchen", **size)
    register_files(lake, find_files([video]).files)
    empty = folder / "empty" / "garden.mp4"
    empty.parent.mkdir()
    write_video(empty, frames=10)
    register_files(lake, find_files([empty]).files)
    assert len(lake.shards()) == 2
    with ego_up(lake, folder / "up.log") as found:
        yield found


@pytest.fixture(scope="module")
def shard(server: Server) -> str:
    """The first shard, after the whole graph has been run over it as the UI runs it."""
    first = server.lake.shards()[0]
    config = {"ops": {"hand_poses_checks": {"config": {"max_jitter_px": 0.001}}}}
    assert run(server, first, config) == "SUCCESS"
    return first


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with browser_page(1500, 1100) as found:
        found.set_default_timeout(PAGE_MS)
        yield found


def run(server: Server, shard: str, config: dict[str, Any], **selection: Any) -> str:
    params = {
        "selector": {
            "repositoryLocationName": "ego",
            "repositoryName": "__repository__",
            "pipelineName": "whole_graph",
        }
        | selection,
        "runConfigData": config,
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": shard}]},
    }
    launched = server.ask(LAUNCH, params=params)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]

    def ended() -> str | None:
        state = server.ask(STATUS, id=run_id)["runOrError"]["status"]
        return state if state in {"SUCCESS", "FAILURE", "CANCELED"} else None

    return wait_for("end of the run", ended, RUN_S)


def asset(server: Server, table: str) -> dict[str, Any]:
    return server.ask(ASSET, key={"path": [table]})["assetNodeOrError"]


def expect_text(page: Any, words: str | re.Pattern[str]) -> Any:
    found = page.get_by_text(words).first
    found.wait_for(state="visible")
    return found


@pytest.mark.parametrize("table", TABLES)
def test_each_asset_shows_partition_checks_and_picture(
    server: Server, shard: str, table: str
) -> None:
    node = asset(server, table)
    assert shard in node["partitionKeys"]
    latest = node["assetMaterializations"][0]
    assert latest["partition"] == shard
    entries = {e["label"]: e for e in latest["metadataEntries"]}
    assert {"picture", "done", "units per minute", "dagster/row_count"} <= set(entries)
    checks = {c["name"]: c for c in node["assetChecksOrError"]["checks"]}
    for name in ("fits_contract", "covers_every_clip"):
        assert checks[name]["executionForLatestMaterialization"]["status"] == "SUCCEEDED"
    # The sample is too short for an episode, and has no telemetry.
    if not entries["dagster/row_count"]["intValue"]:
        assert feature_of(table).name in ("episodes", "telemetry")
        assert entries["picture"]["text"] == "no rows to show"
        return
    shown = entries["picture"]["mdStr"]
    (url,) = set(re.findall(r"\]\((/previews/[^)]+)\)", shown))
    answer = requests.get(server.url + url, timeout=60)
    assert answer.headers["content-type"].startswith("image/")
    assert 2_000 < len(answer.content) < 200_000


def test_a_browser_shows_the_graph(server: Server, shard: str, page: Any) -> None:
    page.set_viewport_size({"width": 2600, "height": 5600})  # what is out of sight is not drawn
    page.goto(f"{server.url}/asset-groups", wait_until="domcontentloaded")
    page.get_by_text("masks", exact=True).last.wait_for(state="visible")
    page.keyboard.press("Alt+e")  # expands the groups
    for table in TABLES:
        expect_text(page, table if len(table) < 18 else f"{table[:8]}…")
    page.set_viewport_size({"width": 1500, "height": 1100})


@pytest.mark.parametrize("view", ["overview", "partitions&partition="])
@pytest.mark.parametrize("table", ["hand_poses", "robot_mappings"])
def test_a_picture_is_there_without_a_click_and_opens_alone(
    server: Server, shard: str, page: Any, table: str, view: str
) -> None:
    where = f"{view}{shard}" if view.endswith("=") else view
    page.goto(f"{server.url}/assets/{table}?view={where}", wait_until="domcontentloaded")
    picture = page.locator(f"img[src^='/previews/{table}/']").last
    picture.wait_for(state="visible")
    assert page.get_by_text("Show Markdown").count() == 0
    page.wait_for_function("i => i.complete", arg=picture.element_handle())
    width, shown = picture.evaluate("i => [i.naturalWidth, i.getBoundingClientRect().width]")
    assert width == shown >= 800, "four frames or moments, two or four in a row"
    url = picture.evaluate("i => i.closest('a').getAttribute('href')")
    assert requests.get(server.url + url, timeout=60).ok


def test_the_launchpad_asks_for_what_a_step_uses(server: Server, page: Any) -> None:
    page.goto(f"{server.url}/locations/ego/jobs/whole_graph/playground")
    editor = page.locator(".CodeMirror").first
    editor.wait_for(state="visible")
    text = "e => e.CodeMirror.getValue()"
    wait_for("defaults", lambda: "hand_poses_checks" in editor.evaluate(text), 120)
    filled = editor.evaluate(text)
    assert len(filled.splitlines()) < 600
    for threshold in ("max_jitter_px", "max_mask_seam", "max_fingertip_error_m"):
        tables = {"max_mask_seam": 3}.get(threshold, 1)
        assert filled.count(f"{threshold}:") == tables, threshold


def test_a_failed_check_names_file_time_and_reason_and_can_be_looked_up(
    server: Server, shard: str, page: Any
) -> None:
    page.goto(f"{server.url}/assets/hand_poses?view=checks&checkDetail={CHECK}")
    expect_text(page, re.compile(r"hand tracks that jitter: \d of \d over 0\.001 px"))
    expect_text(page, "Failed")
    row = page.locator("tr").filter(has=page.get_by_text("worst", exact=True)).first
    if row.get_by_text("kitchen.mp4").count() == 0:
        row.get_by_text("Show Table").click()
    expect_text(page, "kitchen.mp4")
    expect_text(page, re.compile(r"^0:0[01]\.\d$"))
    page.keyboard.press("Escape")
    with page.context.expect_page() as opened:
        page.get_by_text(f"/guide/probes#{CHECK}").first.click()
    guide = opened.value
    guide.set_default_timeout(PAGE_MS)
    expect_text(guide, "shaking joints")
    assert guide.locator(":target").inner_text().startswith(CHECK)
    guide.close()


def test_a_shard_lists_its_clips(server: Server, shard: str, page: Any) -> None:
    (clip,) = server.lake.read("clips", shard).to_pylist()
    page.goto(f"{server.url}/assets/clips?view=partitions&partition={shard}")
    row = page.locator("tr").filter(has=page.get_by_text("clips of this shard", exact=True)).first
    row.wait_for(state="visible")
    if row.get_by_text(clip["clip_id"]).count() == 0:
        row.get_by_text("Show Table").click()
    expect_text(page, clip["clip_id"])
    expect_text(page, "kitchen.mp4")
    expect_text(page, f"{clip['end_pts_s']:.1f} s")


def test_another_shard_that_passes_does_not_hide_a_failed_check(
    server: Server, shard: str, page: Any
) -> None:
    other = server.lake.shards()[1]
    checks = [c["name"] for c in asset(server, "hand_poses")["assetChecksOrError"]["checks"]]
    chosen = {
        "assetSelection": [{"path": [table]} for table in ABOVE],
        "assetCheckSelection": [
            {"assetKey": {"path": ["hand_poses"]}, "name": name} for name in checks
        ],
    }
    assert run(server, other, {}, **chosen) == "SUCCESS"
    page.goto(f"{server.url}/assets/hand_poses?view=checks&checkDetail={CHECK}")
    expect_text(page, f"still fails in {shard}")
    expect_text(page, "Failed")
    page.goto(f"{server.url}/assets/hand_poses?view=overview")
    expect_text(page, "Latest check results")
    assert page.get_by_text("All passed").count() == 0
