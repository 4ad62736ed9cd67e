"""yt-dlp on pages of this machine, through the extractor of Mediasite, which takes any host."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ego_assets.intake.links.ingest import Rules, ingest
from ego_assets.intake.links.lists import make_link
from ego_assets.intake.links.outcome import IngestError
from ego_assets.intake.links.pages import PageFetcher, _Order, options_of
from ego_assets.intake.links.records import LinkFiles, LinkRow
from ego_assets.intake.links.settings import IngestSettings
from resources.lake import Lake
from tests.intake.links.broken_server import Asked, Site, site, video

SETTINGS = IngestSettings(stall_s=5, backoff_s=0.01, tries=2)
PAGE = f"/Mediasite/Play/{'0a' * 16}"
ANSWERS = "/Mediasite/PlayerService/PlayerService.svc/json/GetPlayerOptions"


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as found:
        yield found


def page(web: Site, *videos: str) -> str:
    """A page with a video that is at these links, in different qualities."""
    web.on(PAGE, lambda asked: asked.answer(200, b"<html>player</html>"))
    urls = [{"Location": v, "MimeType": "video/mp4", "MediaType": "MP4"} for v in videos]
    said = {"Presentation": {"Title": "t", "Streams": [{"StreamType": 0, "VideoUrls": urls}]}}
    web.on(ANSWERS, lambda asked: asked.answer(200, json.dumps({"d": said}).encode()))
    return web.root + PAGE


def come_of(
    url: str, folder: Path, *, allow_private: bool = True, settings: IngestSettings = SETTINGS
) -> LinkRow:
    rules = Rules(settings, allow_private=allow_private, with_pages=True)
    lake = Lake(folder / "lake")
    ingest([make_link(url, {})], str(folder / "raw"), lake, rules)
    (row,) = LinkFiles(lake).newest().values()
    return row


def test_the_video_of_a_page_is_fetched(web: Site, tmp_path: Path) -> None:
    row = come_of(page(web, web.serve("/v.mp4", video())), tmp_path)
    assert (row.state, row.reason) == ("done", "")
    assert row.sha256 == hashlib.sha256(video()).hexdigest()
    assert Path(row.path or "").read_bytes() == video()
    assert web.times(ANSWERS) == 1
    assert not list((tmp_path / "raw" / ".ingest").iterdir())


def test_a_link_for_no_extractor_is_fetched_as_it_is(web: Site, tmp_path: Path) -> None:
    row = come_of(web.serve("/v.mp4", video()), tmp_path)
    assert (row.state, row.attempts) == ("done", 1)
    assert web.times("/v.mp4") == 1


def test_a_page_that_names_files_does_not_have_them_read(web: Site, tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(video())
    row = come_of(page(web, f"file://{tmp_path}/secret.mp4"), tmp_path)
    assert row.state == "failed"
    assert row.sha256 is None


def test_no_private_address_is_asked(web: Site, tmp_path: Path) -> None:
    row = come_of(page(web, web.serve("/v.mp4", video())), tmp_path, allow_private=False)
    assert row.state == "refused"
    assert "--allow-private" in row.reason
    assert web.asked == []


def test_a_video_without_a_length_is_not_larger_than_allowed(web: Site, tmp_path: Path) -> None:
    web.on("/v.mp4", lambda asked: asked.answer(200, video(), length=-1))
    settings = SETTINGS.model_copy(update={"max_gb": 1e-5})
    row = come_of(page(web, f"{web.root}/v.mp4"), tmp_path, settings=settings)
    assert (row.state, row.sha256) == ("refused", None)
    assert "--max-gb" in row.reason


def test_a_video_that_dribbles_is_a_stall(web: Site, tmp_path: Path) -> None:
    def answer(asked: Asked) -> None:
        asked.answer(200, video()[:1000], length=len(video()))
        for _ in range(100):  # it ends, so that nobody waits for ever
            asked.handler.wfile.write(b"x")
            asked.handler.wfile.flush()
            time.sleep(0.1)

    web.on("/v.mp4", answer)
    settings = SETTINGS.model_copy(update={"stall_s": 1.0, "tries": 1})
    row = come_of(page(web, f"{web.root}/v.mp4"), tmp_path, settings=settings)
    assert row.state == "failed"
    assert "next to nothing" in row.reason


def test_what_a_page_says_is_not_quoted(web: Site, tmp_path: Path) -> None:
    url = page(web)
    web.on(ANSWERS, lambda asked: asked.answer(500, b"secret words"))
    row = come_of(url, tmp_path)
    assert row.state == "failed"
    assert row.attempts == 2
    assert row.reason.startswith("yt-dlp: ")
    assert "secret" not in row.reason
    assert "Mediasite" not in row.reason


FORBIDDEN = """
import socket, subprocess, os, sys
from ego_assets.intake.links.pages import forbid
refused = forbid(False)
def is_refused(work):
    try:
        work()
    except PermissionError:
        return True
    except OSError:
        return False
assert is_refused(lambda: subprocess.run(["true"]))
assert is_refused(lambda: os.system("true"))
assert is_refused(lambda: os.posix_spawn("/bin/true", ["true"], {}))
assert is_refused(lambda: os.execv("/bin/true", ["true"]))
assert is_refused(lambda: os.fork())
assert not refused
for host in ("127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254"):
    assert is_refused(lambda: socket.create_connection((host, 80), 1)), host
    assert is_refused(lambda: socket.socket().connect((host, 80))), host
assert is_refused(lambda: socket.socket(socket.AF_UNIX).connect("/tmp/x"))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
assert is_refused(lambda: udp.sendto(b"x", ("127.0.0.1", 53)))
assert is_refused(lambda: udp.sendmsg([b"x"], [], 0, ("127.0.0.1", 53)))
assert refused
udp.close()
far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
assert not is_refused(lambda: far.connect(("93.184.215.14", 80)))
print("all is well")
"""


def test_a_process_that_fetches_pages_starts_nothing_and_reaches_nothing_private() -> None:
    done = subprocess.run([sys.executable, "-c", FORBIDDEN], capture_output=True, text=True)
    assert done.stdout == "all is well\n", done.stderr


def test_nothing_is_configured_from_outside(tmp_path: Path) -> None:
    found = options_of(_Order("u", tmp_path, SETTINGS, False, "", 0.0))
    assert found["postprocessors"] == []
    assert found["allowed_extractors"] == ["default", "-generic"]
    assert "[height<=?1080]" in found["format"]
    assert found["cookiefile"] is None


def test_without_yt_dlp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(IngestError, match=r"pip install 'ego-assets\[ingest\]'"):
        PageFetcher(SETTINGS, threading.Event(), allow_private=False)
