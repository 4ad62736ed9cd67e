"""`ego view`: finds what a person names, says what is missing, and shows it in a real browser."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from dagster_project.cli.data import view as view_module
from dagster_project.cli.program import main
from tests.dagster_project.ui import browser_page
from tests.viewing.shown_lake import (
    EPISODE,
    EPISODE_FRAMES,
    FIRST,
    FRAMES,
    SECOND,
    VIDEO,
    ShownLake,
)
from tests.viewing.test_recording_of_clips import LENS, Recorded

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_GPU = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> ShownLake:
    return ShownLake(tmp_path_factory.mktemp("viewed"))


def ego(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("name", [VIDEO, "numbered pictures.mp4"])
def test_a_video_is_all_of_its_clips(lake: ShownLake, tmp_path: Path, name: str) -> None:
    done = ego("view", name, "--lake", lake.root, "--save", str(tmp_path / "x.rrd"))
    assert done.exit_code == 0, done.output
    pictures = Recorded(tmp_path / "x.rrd").column(f"{LENS}/picture", "EncodedImage:blob")
    assert list(pictures) == list(range(FRAMES))


def test_an_episode_is_its_frames_across_clips(lake: ShownLake, tmp_path: Path) -> None:
    path = tmp_path / "x.rrd"
    done = ego("view", EPISODE, "--lake", lake.root, "--save", str(path))
    assert done.exit_code == 0, done.output
    recorded = Recorded(path)
    pictures = recorded.column(f"{LENS}/picture", "EncodedImage:blob")
    assert list(pictures) == list(range(*EPISODE_FRAMES))
    masks = recorded.column(f"{LENS}/masks", "EncodedImage:blob")
    assert list(masks) == list(range(*EPISODE_FRAMES))


def test_what_is_not_there_is_said_with_what_was_meant(lake: ShownLake, tmp_path: Path) -> None:
    for given, meant in ((f"{VIDEO}-0003", f"{VIDEO}-000"), ("numbered picture.mp4", "numbered")):
        done = ego("view", given, "--lake", lake.root)
        assert done.exit_code == 2
        assert f"there is no clip, episode or video {given}" in done.output
        assert f"did you mean {meant}" in done.output
    done = ego("view", FIRST, "--lake", lake.root, "--mp4", str(tmp_path / "no" / "x.mp4"))
    assert done.exit_code == 2
    assert "there is no folder" in done.output


def test_a_raw_video_that_is_gone_is_named(tmp_path: Path) -> None:
    lake = ShownLake(tmp_path)
    lake.raw.unlink()
    for option in ("--mp4", "--save"):
        done = ego("view", FIRST, "--lake", lake.root, option, str(tmp_path / "x"))
        assert done.exit_code == 1
        assert "its raw video cannot be read" in done.output
        assert str(lake.raw) in done.output
        assert not (tmp_path / "x").exists()


def test_without_rerun_it_says_which_extra_brings_it(
    lake: ShownLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "find_spec", lambda name: None)
    done = ego("view", FIRST, "--lake", lake.root)
    assert done.exit_code == 1
    assert "pip install 'ego-assets[view]'" in done.output
    done = ego("view", SECOND, "--lake", lake.root, "--mp4", str(tmp_path / "x.mp4"))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "x.mp4").stat().st_size > 1000


@contextmanager
def viewing(lake: ShownLake, home: Path) -> Iterator[str]:
    """`ego view` as a person starts it; its URL. Ctrl-C ends it."""
    command = [sys.executable, "-c", "from dagster_project.entry import main; main()", "view"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(home), "TMPDIR": str(home)}
    process = subprocess.Popen(
        [*command, FIRST, "--lake", lake.root, "--no-open"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.fullmatch(rf"{FIRST}: (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", said)
        assert found, said
        yield found[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def asked(url: str, path: str, host: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port, timeout=60)
    connection.request("GET", path, headers={"Host": host})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_viewer_draws_the_clip_and_speaks_to_nobody(lake: ShownLake, tmp_path: Path) -> None:
    with viewing(lake, tmp_path) as url:
        assert asked(url, "/recording.rrd", "evil.example") == 403
        assert asked(url, "/recording.rrd", urlsplit(url).netloc) == 200
        assert asked(url, "/../pyproject.toml", urlsplit(url).netloc) == 404
        with browser_page(900, 600, *WITHOUT_GPU) as page:
            errors: list[str] = []
            elsewhere: list[str] = []
            page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on(
                "request",
                lambda r: None if r.url.startswith((url, "data:")) else elsewhere.append(r.url),
            )
            page.set_default_timeout(300_000)
            page.goto(url)
            page.wait_for_selector("html[data-state=started]")
            picture = picture_when_drawn(page)
            assert not errors
            assert not elsewhere
        assert picture.std() > 10
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not left, "a temporary folder, or what Rerun keeps of how it is used"


def picture_when_drawn(page: object) -> np.ndarray:
    """What the page shows once the orange of the right hand is in it: the skeleton, the mask or its
    curve."""
    while True:  # the timeout of the test ends it
        data = np.frombuffer(page.screenshot(timeout=300_000), np.uint8)  # type: ignore[attr-defined]
        shown = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        if (np.abs(shown.astype(int) - (230, 159, 0)).max(axis=-1) < 24).sum() > 100:
            return shown
