"""The end of the demo: an episode in the viewer, or without a browser as a plain video."""

from __future__ import annotations

import threading
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dagster_project.demo import look
from dagster_project.demo.chromium import BrowserError, find_chromium, picture_of_page
from tests.viewing.shown_lake import EPISODE, EPISODE_FRAMES, ShownLake


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> ShownLake:
    return ShownLake(tmp_path_factory.mktemp("demo"))


def show(shown: ShownLake, out: Path) -> tuple[set[str], str]:
    """(files that were written, what was said)"""
    said: list[str] = []
    look.show_episode(shown.lake, EPISODE, out, said.append)
    # A server whose socket is closed and that goes on takes a whole CPU.
    assert "viewer" not in {thread.name for thread in threading.enumerate()}
    return {path.name for path in out.iterdir()}, "\n".join(said)


def orange(png: bytes) -> int:
    """Pixels of the colour of a right hand."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return int((np.abs(image[:, :, ::-1].astype(int) - (230, 159, 0)).max(axis=-1) < 24).sum())


def test_the_viewer_is_pictured_where_there_is_a_browser(shown: ShownLake, tmp_path: Path) -> None:
    written, said = show(shown, tmp_path / "out")
    assert written == {"episode.rrd", "episode_in_viewer.png"}, said
    picture = (tmp_path / "out" / "episode_in_viewer.png").read_bytes()
    assert look.is_drawn(picture)
    assert orange(picture) > 100, "the right hand, its mask or its curve"
    assert f"ego view {EPISODE} --lake" in said


@pytest.mark.parametrize("missing", ["browser", "rerun", "a browser that works"])
def test_without_one_there_is_a_plain_video(
    shown: ShownLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    program = {"browser": None, "a browser that works": "/bin/false"}.get(missing, "chromium")
    monkeypatch.setattr(look, "find_chromium", lambda: program)
    if missing == "rerun":
        monkeypatch.setattr(look, "find_spec", lambda name: None)
    written, said = show(shown, tmp_path / "out")
    recorded = set() if missing == "rerun" else {"episode.rrd"}
    assert written == {"episode.mp4", "episode.png"} | recorded
    with av.open(str(tmp_path / "out" / "episode.mp4")) as container:
        count = sum(1 for _ in container.decode(video=0))
    assert count == EPISODE_FRAMES[1] - EPISODE_FRAMES[0]
    assert orange((tmp_path / "out" / "episode.png").read_bytes()) > 20
    assert "No picture of the viewer: " in said
    assert f"ego view {EPISODE} --lake" in said


def test_a_page_without_its_picture_is_not_drawn() -> None:
    blank = np.full((800, 1280, 3), 255, np.uint8)
    cv2.rectangle(blank, (200, 200), (300, 300), (233, 180, 86), 3)
    assert not look.is_drawn(cv2.imencode(".png", blank)[1].tobytes())
    blank[60:480, :640] = np.random.default_rng(0).integers(0, 255, (420, 640, 3))
    assert look.is_drawn(cv2.imencode(".png", blank)[1].tobytes())
    assert not look.is_drawn(b"no picture")


def test_a_page_that_is_never_drawn_is_pictured_as_it_is(tmp_path: Path) -> None:
    program = find_chromium()
    assert program is not None, "install Debian's package chromium"
    page = tmp_path / "page.html"
    page.write_text("<body style='background: rgb(230, 159, 0)'>")
    (tmp_path / "profile").mkdir()
    given = program, page.as_uri(), tmp_path / "profile", lambda png: False
    assert orange(picture_of_page(*given, size=(300, 200), limit_s=3)) > 10_000
    with pytest.raises(BrowserError, match=r"ended|Broken pipe"):
        picture_of_page("/bin/false", *given[1:])
