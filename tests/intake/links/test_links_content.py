"""What a file is, and what it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from ego_assets.intake import headers
from ego_assets.intake.links.content import ContentReader, name_of, stem_of
from ego_assets.intake.links.lists import make_link
from ego_assets.intake.links.outcome import LinkError
from tests.intake.links.broken_server import video


@pytest.mark.parametrize(
    ("url", "begin", "suffix"),
    [
        ("http://a.org/kitchen.MOV", "kitchen-", ".mov"),
        ("http://a.org/get?id=7", "get-", ".mkv"),
        ("http://a.org/", "video-", ".mkv"),
        ("http://a.org/%2e%2e%2f..%2fetc%2fpasswd", "passwd-", ".mkv"),
        ("http://a.org/..%00.mp4", "video-", ".mp4"),
        ("http://a.org/K%C3%BCche%0A1.mp4", "K_che_1-", ".mp4"),
        ("http://a.org/" + "x" * 500 + ".webm", "x" * 80 + "-", ".webm"),
        ("http://a.org/page.php", "page.php-", ".mkv"),
    ],
)
def test_a_video_is_called_as_its_link_ends(url: str, begin: str, suffix: str) -> None:
    link = make_link(url, {})
    assert name_of(link, ".mkv") == f"{begin}{link.id[:12]}{suffix}"


def test_a_list_may_say_what_it_is_called() -> None:
    link = make_link("http://a.org/1.mov", {"name": "home/Küche 1.MP4"})
    assert (stem_of(link), name_of(link, ".mkv")) == ("home/Küche 1", "home/Küche 1.mp4")
    assert name_of(make_link("http://a.org/1.mov", {"name": "take 2"}), ".mkv") == "take 2.mkv"


def test_a_header_says_what_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(video())
    (tmp_path / "b").write_bytes(b"nonsense" * 100)
    with ContentReader() as reader:
        assert reader.suffix(tmp_path / "a") == ".mp4"
        with pytest.raises(LinkError, match="not a video") as told:
            reader.suffix(tmp_path / "b")
    assert str(tmp_path) not in str(told.value)


def test_a_file_that_ends_whoever_reads_it_is_told_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "MAIN", "tests.intake.links.test_links_content:serve_badly")
    (tmp_path / "deadly").write_bytes(b"x" * 100)
    (tmp_path / "good").write_bytes(video())
    with ContentReader() as reader:
        for _ in range(3):
            with pytest.raises(LinkError, match="dies"):
                reader.suffix(tmp_path / "deadly")
        assert reader.suffix(tmp_path / "good") == ".mp4"


def serve_badly(connection: object, _: object) -> None:
    """As `headers.serve`, of a library that has a fault."""
    import os

    while True:
        path = connection.recv()  # type: ignore[attr-defined]
        if path.name == "deadly":
            os.abort()
        connection.send(headers.read_header(path))  # type: ignore[attr-defined]
