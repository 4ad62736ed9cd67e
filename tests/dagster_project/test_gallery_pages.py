"""Galleries over HTTP, behind the guard of the UI, and in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.responses import PlainTextResponse

from dagster_project.web.beside import Beside, galleries_of
from ego_assets.galleries.gallery import make_gallery
from ego_assets.quality.failed import note_failed
from resources.ledger import Ledger
from tests.dagster_project.ui import backfill, behind_guard, browser_page, ego_up, watched_page
from tests.viewing.shown_lake import FIRST, SECOND, SHARD, ShownLake


@pytest.fixture
def shown(tmp_path: Path) -> ShownLake:
    """A lake of which a check finds the second clip at fault."""
    found = ShownLake(tmp_path)
    rows = [r for r in found.rows["hand_poses"] if r["clip_id"] == SECOND]
    found._add("hand_poses", SECOND, [r | {"is_valid": False} for r in rows])
    failed = {"check": "hands_are_valid", "severity": "error", "reason": "few are valid"}
    note_failed(found.lake, "hand_poses", SHARD, [failed])
    return found


@contextmanager
def serving(shown: ShownLake) -> Iterator[str]:
    """The galleries of a lake, made, behind the guard; in place of Dagster a plain answer."""
    ledger = Ledger.of(shown.lake.location)
    ledger.open()
    make_gallery(shown.lake, ledger, SHARD)
    beside = Beside(PlainTextResponse("Dagster"), {"/galleries": galleries_of(shown.lake)})
    with behind_guard(beside) as url:
        yield url


def test_a_range_is_answered_and_nothing_but_galleries_is(shown: ShownLake) -> None:
    with serving(shown) as url:
        folder = shown.lake.root / "_galleries" / SHARD
        (path,) = folder.glob(f"{FIRST}.*.mp4")
        data, where = path.read_bytes(), f"{url}/galleries/{SHARD}/{path.name}"

        def get(address: str = where, **headers: str) -> requests.Response:
            return requests.get(address, headers=headers, timeout=60, allow_redirects=False)

        whole = get()
        assert (whole.status_code, whole.content) == (200, data)
        assert whole.headers["content-type"] == "video/mp4"
        assert whole.headers["accept-ranges"] == "bytes"
        size = len(data)
        for asked, first, last in (
            ("10-19", 10, 19),
            ("100-", 100, size - 1),
            ("0-9999999", 0, size - 1),
        ):
            part = get(range=f"bytes={asked}")
            assert (part.status_code, part.content) == (206, data[first : last + 1])
            assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
        beyond = get(range=f"bytes={size}-")
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
        for odd in ("bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=-", "x"):
            assert (get(range=odd).status_code, get(range=odd).content) == (200, data)
        assert get(f"{url}/galleries/{SHARD}").headers["location"] == f"/galleries/{SHARD}/"
        page = get(f"{url}/galleries/{SHARD}/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "script-src" not in page.headers["content-security-policy"]
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert f'href="/galleries/{SHARD}/"' in get(f"{url}/galleries/").text
        (folder / "secret.html").write_text("x")
        (shown.lake.root / "_galleries" / "index.html").write_text("x")
        for lost in (f"{SHARD}/secret.html", f"{SHARD}/..%2f..%2fshards%2f{SHARD}.json"):
            assert get(f"{url}/galleries/{lost}").status_code == 404
        for lost in ("%2e%2e/", f"{SHARD}/%2e%2e/index.html", "none/", f"{SHARD}//", "%00/"):
            assert get(f"{url}/galleries/{lost}").status_code == 404, lost
        assert get(where, host="evil.example").status_code == 403
        foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
        assert get(where, **foreign, **{"sec-fetch-dest": "video"}).status_code == 403
        assert requests.post(where, timeout=60).status_code == 405


def plays(page: Any, clip: str) -> None:
    """Play the video of a clip, and seek in it."""
    video = f"[id='{clip}'] video"
    page.eval_on_selector(video, "video => video.play()")
    page.wait_for_function(
        "(v => document.querySelector(v).currentTime > 0.05)", arg=video, timeout=60_000
    )
    assert page.eval_on_selector(video, "video => video.readyState") >= 2
    assert page.eval_on_selector(video, "video => video.videoWidth") == 320
    page.eval_on_selector(
        video,
        """video => new Promise((done, fail) => {
          video.pause();
          video.onseeked = done;
          video.onerror = fail;
          video.currentTime = 0.3;
        })""",
    )
    assert abs(page.eval_on_selector(video, "video => video.currentTime") - 0.3) < 0.01


def test_a_video_plays_and_failing_clips_come_first(shown: ShownLake) -> None:
    with serving(shown) as url, watched_page(url, 1200, 900) as page:
        page.goto(f"{url}/galleries/")
        page.click(f"text={SHARD}")
        page.wait_for_selector(".card")
        cards = page.locator(".card")
        assert [cards.nth(n).get_attribute("id") for n in range(2)] == [SECOND, FIRST]
        assert "check hands_are_valid of hand_poses" in cards.nth(0).inner_text()
        assert cards.nth(1).locator(".trouble").count() == 0
        for clip in (FIRST, SECOND):
            plays(page, clip)
        later = {"check": "footage_is_kept", "severity": "warn", "reason": "little is kept"}
        note_failed(shown.lake, "footage", SHARD, [later])
        page.reload()
        page.wait_for_selector("text=check footage_is_kept of footage: little is kept")


def test_the_ui_leads_to_the_gallery_that_the_graph_has_made(
    shown: ShownLake, tmp_path: Path
) -> None:
    with ego_up(shown.lake, tmp_path / "up.log") as server, browser_page() as page:
        done = backfill(server, ("galleries",), [SHARD], 240)
        assert done["status"].startswith("COMPLETED"), (tmp_path / "up.log").read_text()[-3000:]
        assert [run["status"] for run in done["runs"]] == ["SUCCESS"]
        page.set_default_timeout(120_000)
        page.goto(f"{server.url}/assets/galleries?view=partitions&partition={SHARD}")
        link = page.locator(f"a[href$='/galleries/{SHARD}/']").first
        link.wait_for()
        page.goto(link.evaluate("a => a.href"))
        page.wait_for_selector(".card")
        assert page.locator(".card").first.get_attribute("id") == SECOND
        plays(page, FIRST)
