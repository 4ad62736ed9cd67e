"""The page /review: judged by keyboard in a real browser, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest
import requests
from starlette.responses import PlainTextResponse

from dagster_project.web.review import MOST_BYTES, ReviewPages
from ego_assets.quality.failed import note_failed
from ego_assets.reviews.standing import Standing
from ego_assets.reviews.store import ReviewFiles
from ego_assets.vision import draw
from tests.dagster_project.ui import behind_guard, browser_page, ego_up, watched_page
from tests.exports.bars import number_in
from tests.reviews.judged_lake import JudgedLake
from tests.viewing.shown_lake import CONTEXT, FIRST, FRAMES, SECOND, ShownLake

JSON = {"content-type": "application/json"}


@contextmanager
def serving(lake: Any, folder: Path, **options: Any) -> Iterator[str]:
    """The page behind the guard, as `ego up` has it; in place of Dagster a plain answer."""
    folder.mkdir(exist_ok=True)
    pages = ReviewPages(PlainTextResponse("Dagster"), lake, folder, **options)
    with behind_guard(pages) as url:
        yield url


@pytest.fixture
def judged(tmp_path: Path) -> JudgedLake:
    return JudgedLake.build(tmp_path)


def words(judged: JudgedLake) -> dict[str, tuple[str, str, bool, str]]:
    found = Standing(judged.lake).judgements("episode")
    assert {each.state for each in found.values()} <= {"current"}
    return {
        subject: (r.verdict, r.reason, r.side_swap, r.reviewer)
        for (_, subject), r in ((key, each.review) for key, each in found.items())
    }


def shows(page: Any, name: str) -> None:
    """Wait until the page shows a subject, and its video plays."""
    page.wait_for_selector(f'body[data-shown="{name}"]')
    page.wait_for_function(
        "name => document.querySelector(`video[data-name='${name}']`).currentTime > 0", arg=name
    )


def test_episodes_are_judged_by_keyboard(judged: JudgedLake, tmp_path: Path) -> None:
    first, second, third = judged.episodes
    with serving(judged.lake, tmp_path / "v", reviewer="anna") as url, watched_page(url) as page:
        page.goto(f"{url}/review")
        shows(page, first)
        assert page.inner_text("#progress") == "0 of 3 judged"
        assert "00000000000000a1.mp4, 0.0 s to 3.0 s" in page.inner_text("#facts")
        # The next one is loaded while this one is looked at, and no other is.
        page.wait_for_selector(f"video[data-name='{second}']", state="attached")
        assert page.locator("video").count() == 2
        page.keyboard.press("Space")
        page.wait_for_function("() => document.querySelector('video').paused")
        page.keyboard.press("a")
        shows(page, second)
        assert page.inner_text("#progress") == "1 of 3 judged"
        page.keyboard.press("r")
        page.keyboard.press("Escape")
        page.keyboard.press("s")
        page.keyboard.press("r")
        page.keyboard.type("Hand fehlt <b>")
        page.keyboard.press("Enter")
        shows(page, third)
        assert words(judged) == {
            first: ("accept", "", False, "anna"),
            second: ("reject", "Hand fehlt <b>", True, "anna"),
        }
        page.reload()
        shows(page, third)
        assert page.inner_text("#progress") == "2 of 3 judged"
        page.fill("#reviewer", "ben")
        page.keyboard.press("Enter")
        page.keyboard.press("r")
        page.keyboard.press("1")
        page.wait_for_function("() => message.textContent === 'all are judged'")
        assert page.inner_text("#progress") == "3 of 3 judged"
        page.keyboard.press("ArrowLeft")
        shows(page, second)
        assert page.inner_text("#state") == "rejected by anna: Hand fehlt <b>"
        page.keyboard.press("a")  # a second thought; the sides stay as they were marked
        page.wait_for_function("() => document.getElementById('state').dataset.word === 'accept'")
    assert words(judged)[second] == ("accept", "", True, "ben")
    assert words(judged)[third] == ("reject", "hands are wrong", False, "ben")


def test_a_page_that_may_only_read_judges_nothing(judged: JudgedLake, tmp_path: Path) -> None:
    name = judged.episodes[0]
    with serving(judged.lake, tmp_path / "v", read_only=True) as url, browser_page() as page:
        page.set_default_timeout(60_000)
        page.goto(f"{url}/review")
        shows(page, name)
        assert page.is_disabled("#accept")
        page.keyboard.press("a")
        page.wait_for_function("() => message.textContent.includes('read only')")
        answer = judge(url, name)
        assert (answer.status_code, "read only" in answer.json()["error"]) == (403, True)
    assert ReviewFiles(judged.lake).all() == []


def judge(url: str, name: Any, headers: dict[str, str] = JSON, **said: Any) -> requests.Response:
    found = requests.get(f"{url}/review/facts/episode/{name}", timeout=60).json()
    given = {"kind": "episode", "name": name, "verdict": "accept"}
    given |= {"fingerprint": found.get("fingerprint", "")} | said
    return requests.post(f"{url}/review/judge", json.dumps(given), headers=headers, timeout=60)


def test_what_other_sites_send_is_refused_and_so_is_nonsense(
    judged: JudgedLake, tmp_path: Path
) -> None:
    name = judged.episodes[0]
    with serving(judged.lake, tmp_path / "v") as url:
        foreign = {"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}
        for headers in (*foreign, {"host": "evil.example"}):
            assert judge(url, name, JSON | headers).status_code == 403
        # What a form or a simple request of another site may send, whatever the guard lets through.
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            assert judge(url, name, {"content-type": kind}).status_code == 415
        assert judge(url, name, verdict="reject").json() == {"error": "a rejection needs a reason"}
        assert judge(url, name, verdict="maybe").status_code == 400
        assert judge(url, name, reason=["x"]).status_code == 400
        assert judge(url, name, reason="x" * MOST_BYTES).status_code == 413
        assert judge(url, "nobody-e000000").status_code == 404
        assert judge(url, name, kind="shard").status_code == 404
        assert requests.get(f"{url}/review/judge", timeout=60).status_code == 405
        assert requests.get(f"{url}/review/../x", timeout=60).text == "Dagster"
        assert ReviewFiles(judged.lake).all() == []
        page = requests.get(f"{url}/review", timeout=60)
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert judge(url, name).status_code == 200


def test_what_changed_while_a_person_looked_is_to_be_judged_again(
    judged: JudgedLake, tmp_path: Path
) -> None:
    name = judged.episodes[0]
    with serving(judged.lake, tmp_path / "v") as url:
        seen = requests.get(f"{url}/review/facts/episode/{name}", timeout=60).json()["fingerprint"]
        judged.run_again(token=1, moved=name)
        assert judge(url, name, fingerprint=seen).status_code == 200
        queue = requests.get(f"{url}/review/queue/episode", timeout=60).json()["subjects"]
        assert dict(queue)[name] == "out of date"


def test_the_video_shows_the_frames_of_the_episode_and_can_be_searched(
    judged: JudgedLake, tmp_path: Path
) -> None:
    name = judged.episodes[1]
    with serving(judged.lake, tmp_path / "v") as url:
        where = f"{url}/review/video/episode/{name}/f"
        answer = requests.get(where, timeout=120)
        assert answer.headers["content-type"] == "video/mp4"
        part = requests.get(where, headers={"range": "bytes=10-19"}, timeout=60)
        assert (part.status_code, part.content) == (206, answer.content[10:20])
        (path,) = (tmp_path / "v").iterdir()
        with av.open(str(path)) as video:
            shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        below = slice(draw.LINE_PX + 4, draw.LINE_PX + 4 + 108)  # the line with the frame's number
        assert [number_in(each[below, :192]) for each in shown] == list(range(90, 180))
        Path(judged.made.folder / f"{judged.video.video_id}.mp4").unlink()
        gone = requests.get(f"{url}/review/video/episode/{judged.episodes[2]}/f", timeout=60)
        assert gone.status_code == 404
        assert "its raw video cannot be shown" in gone.json()["error"]


def test_clips_that_a_failed_check_names_come_first(tmp_path: Path) -> None:
    shown = ShownLake(tmp_path)
    with serving(shown.lake, tmp_path / "v") as url:

        def names() -> list[str]:
            found = requests.get(f"{url}/review/queue/clip", timeout=60).json()["subjects"]
            return [name for name, _ in found]

        assert names() == [FIRST, SECOND]
        rows = [r for r in shown.rows["hand_poses"] if r["clip_id"] == SECOND]
        spoilt = [r | {"is_valid": False, "invalid_reason": "jumps"} for r in rows]
        shown._add("hand_poses", SECOND, spoilt)
        failed = {"check": "hands_are_valid", "severity": "error", "reason": "few are valid"}
        note_failed(shown.lake, "hand_poses", shown.rows["clips"][0]["shard"], [failed])
        assert names() == [SECOND, FIRST]
        found = requests.get(f"{url}/review/facts/clip/{SECOND}", timeout=60).json()
        assert found["faults"][0]["check"] == "hands_are_valid"
        facts = dict(found["facts"])
        assert facts["frames"] == f"{10 + CONTEXT} to {FRAMES - 1}"
        assert facts["right hand"].endswith("0 % of them valid")


def test_ego_up_serves_the_page_and_takes_no_review_where_it_may_only_read(tmp_path: Path) -> None:
    shown = ShownLake(tmp_path)
    with ego_up(shown.lake, tmp_path / "up.log", "--read-only") as server:
        assert "page.js" in requests.get(f"{server.url}/review", timeout=60).text
        video = requests.get(f"{server.url}/review/video/clip/{FIRST}/f", timeout=120)
        assert video.headers["content-type"] == "video/mp4"
        said = {"kind": "clip", "name": FIRST, "verdict": "accept", "fingerprint": "f"}
        answer = requests.post(f"{server.url}/review/judge", json=said, timeout=60)
        assert (answer.status_code, "read only" in answer.json()["error"]) == (403, True)
    assert ReviewFiles(shown.lake).all() == []
