"""Links that stall, break off, lie and lead astray: each becomes a video or a row with a reason."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ego_assets.intake.links import fetch
from ego_assets.intake.links.addresses import connect
from ego_assets.intake.links.ingest import Rules, ingest, read_cookies
from ego_assets.intake.links.lists import Link, make_link
from ego_assets.intake.links.outcome import IngestError
from ego_assets.intake.links.records import LinkFiles, LinkRow
from ego_assets.intake.links.settings import IngestSettings
from ego_assets.intake.shards import VIDEO_SUFFIXES
from resources.lake import Lake
from resources.ledger.contents import Tombstone
from resources.raw import tombstones
from resources.raw.additions import RawFolder
from resources.raw.reader import list_raw
from tests.intake.links.broken_server import Asked, Site, dribble, site, video
from tests.resources.s3_server import new_bucket, s3_client, s3_server

QUICK = {"stall_s": 0.6, "backoff_s": 0.01, "tries": 3}
SHA256 = hashlib.sha256(video()).hexdigest()


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as found:
        yield found


class Bench:
    """A raw folder and a lake, into which links are fetched."""

    def __init__(self, folder: Path) -> None:
        self.raw, self.lake = folder / "raw", Lake(folder / "lake")

    def fetch(self, *links: str | Link, allow_private: bool = True, **settings: Any) -> Any:
        rules = Rules(IngestSettings(**(QUICK | settings)), allow_private=allow_private)
        made = [make_link(each, {}) if isinstance(each, str) else each for each in links]
        return ingest(made, str(self.raw), self.lake, rules)

    def rows(self) -> dict[str, LinkRow]:
        return {row.url: row for row in LinkFiles(self.lake).newest().values()}

    def row(self, *links: str | Link, **options: Any) -> LinkRow:
        """What came of one link."""
        self.fetch(*links, **options)
        (found,) = self.rows().values()
        return found

    def videos(self) -> list[bytes]:
        """What intake finds."""
        found = list_raw([self.raw], VIDEO_SUFFIXES)
        assert not found.refused
        return [Path(uri).read_bytes() for uri in found.files]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_link_becomes_a_video_of_the_raw_lake_and_a_row(web: Site, bench: Bench) -> None:
    url = web.serve("/a%20b/kitchen%20one.MP4?x=1", video())
    row = bench.row(url)
    assert bench.videos() == [video()]
    assert (row.state, row.reason, row.bytes, row.sha256) == ("done", "", len(video()), SHA256)
    assert (row.attempts, row.http_status, row.source) == (1, 200, "127.0.0.1")
    assert row.path == str(bench.raw / f"kitchen_one-{row.link_id[:12]}.mp4")
    assert row.fetched_at
    assert not list((bench.raw / ".ingest").iterdir())


def test_what_is_there_is_not_fetched_again(web: Site, bench: Bench) -> None:
    url = web.serve("/a.mp4", video())
    assert bench.fetch(url).there == 0
    assert bench.fetch(url).there == 1
    assert bench.fetch(url).counts == {"done": 1}
    assert web.times("/a.mp4") == 1
    Path(bench.row(url).path or "").unlink()
    bench.fetch(url)  # a person has deleted it
    assert web.times("/a.mp4") == 2
    assert bench.videos() == [video()]


def test_a_video_that_another_lake_has_recorded_is_found(web: Site, bench: Bench) -> None:
    url = web.serve("/a.mp4", video())
    bench.fetch(url)
    bench.lake = Lake(bench.raw.parent / "other")
    assert bench.row(url).sha256 == SHA256
    assert web.times("/a.mp4") == 1


def test_one_that_breaks_off_goes_on_where_it_was(web: Site, bench: Bench) -> None:
    def answer(asked: Asked) -> None:
        asked.file(video()) if asked.number else asked.half(video())

    row = bench.row(web.on("/a.mp4", answer))
    assert bench.videos() == [video()]
    assert (row.state, row.attempts, row.http_status) == ("done", 2, 206)
    again = web.asked[1][1]
    assert again["range"] == f"bytes={len(video()) // 2}-"
    assert again["if-range"] == '"one"'


def test_one_that_changed_in_between_is_fetched_from_the_beginning(web: Site, bench: Bench) -> None:
    def answer(asked: Asked) -> None:
        asked.file(video(1), '"two"') if asked.number else asked.half(video())

    assert bench.row(web.on("/a.mp4", answer)).attempts == 2
    assert bench.videos() == [video(1)]


def test_one_that_says_it_goes_on_with_another_version_is_not_believed(
    web: Site, bench: Bench
) -> None:
    def answer(asked: Asked) -> None:
        at, data = len(video()) // 2, video(1)
        if asked.number == 0:
            asked.half(video())
        elif asked.number == 1:
            where = f"bytes {at}-{len(data) - 1}/{len(data)}"
            asked.answer(206, data[at:], ETag='"two"', Content_Range=where)
        else:
            asked.file(data, '"two"')

    assert bench.row(web.on("/a.mp4", answer)).attempts == 3
    assert bench.videos() == [video(1)]


@pytest.mark.parametrize("where", ["bytes 0-9/10", "bytes 5-9/*", "nonsense", ""])
def test_another_part_than_was_asked_for_is_not_taken(web: Site, bench: Bench, where: str) -> None:
    def answer(asked: Asked) -> None:
        if asked.number == 0:
            asked.half(video())
        elif asked.number == 1:
            asked.answer(206, b"0123456789", ETag='"one"', Content_Range=where)
        else:
            asked.file(video())

    assert bench.row(web.on("/a.mp4", answer)).attempts == 3
    assert bench.videos() == [video()]


def test_a_server_that_ignores_ranges_sends_all_again(web: Site, bench: Bench) -> None:
    def answer(asked: Asked) -> None:
        asked.answer(200, video(), ETag='"one"') if asked.number else asked.half(video())

    assert bench.row(web.on("/a.mp4", answer)).attempts == 2
    assert bench.videos() == [video()]


@pytest.mark.parametrize("etag", ["", 'W/"one"'])
def test_without_a_strong_etag_it_begins_again(web: Site, bench: Bench, etag: str) -> None:
    def answer(asked: Asked) -> None:
        asked.answer(200, video(), ETag=etag) if asked.number else asked.half(video(), etag)

    assert bench.row(web.on("/a.mp4", answer)).attempts == 2
    assert "range" not in web.asked[1][1]
    assert bench.videos() == [video()]


def test_a_range_that_the_server_does_not_know_any_more_is_let_go(web: Site, bench: Bench) -> None:
    def answer(asked: Asked) -> None:
        if asked.number == 1:
            asked.answer(416)
        else:
            asked.file(video()) if asked.number else asked.half(video())

    assert bench.row(web.on("/a.mp4", answer)).attempts == 3
    assert bench.videos() == [video()]


def test_a_body_that_is_shorter_than_it_says_is_not_taken(web: Site, bench: Bench) -> None:
    row = bench.row(web.on("/a.mp4", lambda a: a.answer(200, video(), length=len(video()) + 7)))
    assert (row.state, row.attempts) == ("failed", 3)
    assert "ended before" in row.reason
    assert bench.videos() == []


@pytest.mark.parametrize("is_late", [False, True])
def test_a_body_that_is_longer_than_it_says_is_not_taken(
    web: Site, bench: Bench, is_late: bool
) -> None:
    cut = len(video())

    def answer(asked: Asked) -> None:
        asked.answer(200, video() + (b"" if is_late else b"more"), length=cut)
        asked.handler.wfile.flush()
        if is_late:
            time.sleep(0.1)
            asked.handler.wfile.write(b"more")

    row = bench.row(web.on("/a.mp4", answer))
    assert (row.state, row.attempts) == ("failed", 3)
    assert "longer than" in row.reason
    assert bench.videos() == []


def test_a_connection_that_is_not_closed_keeps_nobody(web: Site, bench: Bench) -> None:
    def answer(asked: Asked) -> None:
        asked.file(video())
        asked.handler.wfile.flush()
        web.stall()

    assert bench.row(web.on("/a.mp4", answer)).attempts == 1
    assert bench.videos() == [video()]


def test_without_a_length_it_ends_where_the_connection_does(web: Site, bench: Bench) -> None:
    assert bench.row(web.on("/a.mp4", lambda a: a.answer(200, video(), length=-1))).attempts == 1
    assert bench.videos() == [video()]


def test_chunks_are_put_together_and_one_that_is_missing_is_noticed(
    web: Site, bench: Bench
) -> None:
    def answer(asked: Asked) -> None:
        asked.answer(200, length=-1, Transfer_Encoding="chunked")
        data = video()
        for at in range(0, len(data), 100_000):
            chunk = data[at : at + 100_000]
            asked.handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            if not asked.number:
                return
        asked.handler.wfile.write(b"0\r\n\r\n")

    assert bench.row(web.on("/a.mp4", answer)).attempts == 2
    assert bench.videos() == [video()]


@pytest.mark.parametrize("how", ["before the answer", "in the header", "in the body", "dribbling"])
def test_a_stall_ends_and_is_told(web: Site, bench: Bench, how: str) -> None:
    def answer(asked: Asked) -> None:
        if how == "in the header":
            asked.handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not web.closing.wait(0.1):
                asked.handler.wfile.write(b"x")
                asked.handler.wfile.flush()
        elif how == "in the body":
            asked.half(video())
            asked.handler.wfile.flush()
        elif how == "dribbling":
            dribble(asked, video(), 0.1)
        web.stall()

    row = bench.row(web.on("/a.mp4", answer), tries=2, stall_s=0.4)
    assert (row.state, row.attempts) == ("failed", 2)
    assert row.reason == "nothing came for 0.4 s, or next to nothing"
    assert bench.videos() == []


@pytest.mark.parametrize("length", [None, -1])
def test_a_line_that_comes_byte_by_byte_is_a_stall(
    web: Site, bench: Bench, length: int | None
) -> None:
    def answer(asked: Asked) -> None:
        coding = {} if length is None else {"Transfer_Encoding": "chunked"}
        asked.answer(200, length=1000 if length is None else -1, **coding)
        for _ in range(60):  # of the size of a chunk; it ends, so that nobody waits for ever
            asked.handler.wfile.write(b"0")
            asked.handler.wfile.flush()
            time.sleep(0.05)

    row = bench.row(web.on("/a.mp4", answer), tries=1, stall_s=0.4)
    assert row.reason == "nothing came for 0.4 s, or next to nothing"


def test_time_that_other_addresses_took_is_not_that_of_the_one_that_answers(
    web: Site, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*given: Any, **options: Any) -> Any:
        time.sleep(1.0)
        return connect(*given, **options)

    monkeypatch.setattr(fetch, "connect", late)
    assert bench.row(web.serve("/a.mp4", video()), tries=1, stall_s=0.4).state == "done"


@pytest.mark.parametrize("path", ["//a.mp4", "//a//b.mp4?x=//c", "/a;b=1.mp4", "/a%2Fb.mp4"])
def test_a_link_is_asked_for_as_it_is_written(web: Site, bench: Bench, path: str) -> None:
    web.serve(path, video())
    web.serve(f"/{path.lstrip('/')}", b"")  # as Python's server shows two slashes
    bench.row(web.root + path)
    assert web.lines == [f"GET {path} HTTP/1.1"]


def test_redirects_are_followed(web: Site, bench: Bench) -> None:
    web.on("/a", lambda a: a.answer(302, Location="/b"))
    web.on("/b", lambda a: a.answer(307, Location=f"{web.root}/c.mp4"))
    web.serve("/c.mp4", video())
    assert bench.row(f"{web.root}/a").state == "done"
    assert bench.videos() == [video()]


@pytest.mark.parametrize(
    ("to", "state", "reason"),
    [
        ("/a.mp4", "failed", "more than 10 redirects"),
        ("file:///etc/passwd", "refused", "neither http nor https"),
        ("ftp://example.org/a.mp4", "refused", "neither http nor https"),
        ("http://user:word@example.org/a.mp4", "refused", "password"),  # pragma: allowlist secret
        ("http://[::1/a.mp4", "refused", "a redirect that cannot be read"),
        ("", "failed", "leads nowhere"),
    ],
)
def test_a_redirect_is_judged_as_a_link_is(
    web: Site, bench: Bench, to: str, state: str, reason: str
) -> None:
    row = bench.row(web.on("/a.mp4", lambda a: a.answer(301, Location=to)))
    assert (row.state, row.attempts) == (state, 1)
    assert reason in row.reason


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451, 501])
def test_what_another_try_does_not_help_is_tried_once(web: Site, bench: Bench, status: int) -> None:
    row = bench.row(web.on("/a.mp4", lambda a: a.answer(status)))
    assert (row.state, row.attempts, row.http_status) == ("failed", 1, status)
    assert row.reason.startswith(f"HTTP {status} ")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_passes_is_tried_again(web: Site, bench: Bench, status: int) -> None:
    def answer(asked: Asked) -> None:
        asked.file(video()) if asked.number == 2 else asked.answer(status)

    assert bench.row(web.on("/a.mp4", answer)).attempts == 3
    assert bench.videos() == [video()]


def test_a_host_is_left_alone_for_as_long_as_it_says(web: Site, bench: Bench) -> None:
    times: list[float] = []

    def busy(asked: Asked) -> None:
        times.append(time.monotonic())
        asked.file(video()) if asked.number else asked.answer(429, Retry_After="1")

    def other(asked: Asked) -> None:
        times.append(time.monotonic())
        asked.file(video(1))

    links = [web.on("/a.mp4", busy), web.on("/b.mp4", other)]
    bench.fetch(*links, concurrency=1)
    assert {row.state for row in bench.rows().values()} == {"done"}
    assert min(times[1:]) - times[0] >= 1


def test_a_server_that_asks_for_too_much_patience_is_told(web: Site, bench: Bench) -> None:
    row = bench.row(web.on("/a.mp4", lambda a: a.answer(503, Retry_After="7200")))
    assert (row.state, row.attempts, row.http_status) == ("failed", 1, 503)
    assert "asks to wait 7,200 s" in row.reason


def test_the_checksum_of_a_list_is_held_against_what_came(web: Site, bench: Bench) -> None:
    def answer(asked: Asked) -> None:
        asked.file(video() if asked.number else video(1))

    url = web.on("/a.mp4", answer)
    row = bench.row(make_link(url, {"sha256": SHA256.upper()}))
    assert (row.state, row.attempts) == ("done", 2)
    assert "range" not in web.asked[1][1]
    assert bench.videos() == [video()]


def test_what_never_has_the_checksum_is_not_taken(web: Site, bench: Bench) -> None:
    row = bench.row(make_link(web.serve("/a.mp4", video(1)), {"sha256": SHA256}))
    assert (row.state, row.attempts) == ("failed", 3)
    assert "another SHA-256" in row.reason
    assert bench.videos() == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\n <!DOCTYPE html><html>log in", "a web page"),
        (b"\xef\xbb\xbf<html>", "a web page"),
        (b'{"error": "gone"}' * 10, "not a video"),
        (b"#EXTM3U\nfile:///etc/passwd\n" * 9, "not a video"),
        (b"", "not a video"),
    ],
)
def test_what_is_no_video_is_told(web: Site, bench: Bench, data: bytes, reason: str) -> None:
    row = bench.row(web.serve("/a.mp4", data))
    assert (row.state, row.attempts) == ("failed", 1)
    assert row.reason.startswith(reason)
    assert "passwd" not in row.reason
    assert str(bench.raw) not in row.reason
    assert bench.videos() == []
    assert not list((bench.raw / ".ingest").iterdir())


@pytest.mark.parametrize("length", [None, -1])
def test_what_is_too_large_is_not_read(web: Site, bench: Bench, length: int | None) -> None:
    row = bench.row(web.on("/a.mp4", lambda a: a.answer(200, video(), length=length)), max_gb=1e-5)
    assert (row.state, row.attempts) == ("refused", 1)
    assert "--max-gb" in row.reason
    assert not list((bench.raw / ".ingest").iterdir())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.mp4",
        "http://localhost:1/a.mp4",
        "http://[::1]:1/a.mp4",
        "http://[::ffff:127.0.0.1]:1/a.mp4",
        "http://2130706433:1/a.mp4",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_private_addresses_are_not_asked(bench: Bench, url: str) -> None:
    row = bench.row(url, allow_private=False)
    assert (row.state, row.attempts) == ("refused", 1)
    assert "--allow-private" in row.reason


def test_a_server_at_a_private_address_is_not_even_connected_to(web: Site, bench: Bench) -> None:
    bench.fetch(web.serve("/a.mp4", video()), allow_private=False)
    assert web.asked == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/a", "s3://a/b"])
def test_other_schemes_are_refused(bench: Bench, url: str) -> None:
    row = bench.row(url)
    assert (row.state, row.attempts) == ("refused", 0)
    assert row.reason == "neither http nor https"


def test_a_bad_link_does_not_keep_the_others(web: Site, bench: Bench) -> None:
    links = [web.serve(f"/{n}.mp4", video(n)) for n in range(5)]
    bad = [f"{web.root}/none.mp4", "gopher://x", web.serve("/page.mp4", b"<html>")]
    done = bench.fetch(*links, *bad)
    assert done.counts == {"done": 5, "failed": 2, "refused": 1}
    assert sorted(bench.videos()) == sorted(map(video, range(5)))


def test_no_more_links_are_fetched_at_once_than_is_said(web: Site, bench: Bench) -> None:
    def answer(asked: Asked) -> None:
        time.sleep(0.05)
        asked.file(video())

    bench.fetch(*[web.on(f"/{n}.mp4", answer) for n in range(12)], concurrency=8, per_host=3)
    assert web.most_at_once == 3


def test_a_name_that_is_taken_is_not_overwritten(web: Site, bench: Bench) -> None:
    (bench.raw / "a").mkdir(parents=True)
    (bench.raw / "a" / "mine.mp4").write_bytes(b"precious")
    row = bench.row(make_link(web.serve("/x", video()), {"name": "a/mine.mp4"}))
    assert row.state == "failed"
    assert "give it another name" in row.reason
    assert (bench.raw / "a" / "mine.mp4").read_bytes() == b"precious"


def test_two_links_that_want_one_name_do_not_get_it_both(web: Site, bench: Bench) -> None:
    links = [make_link(web.serve(f"/{n}", video(n)), {"name": "one.mp4"}) for n in range(2)]
    assert bench.fetch(*links).counts == {"done": 1, "failed": 1}
    assert len(bench.videos()) == 1


def test_what_a_list_says_lies_beside_the_video_before_that_is_there(
    web: Site, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, there = RawFolder.add, []

    def watched(target: RawFolder, path: Path, name: str) -> bool:
        there.append((name, (bench.raw / "k" / "one.footage.json").exists()))
        return add(target, path, name)

    monkeypatch.setattr(RawFolder, "add", watched)
    said = {"license": "cc-by-4.0", "person": "p7", "source": "the archive", "name": "k/one"}
    row = bench.row(make_link(web.serve("/x", video()), said))
    assert (row.license, row.source) == ("CC-BY-4.0", "the archive")
    assert row.path == str(bench.raw / "k" / "one.mp4")
    beside = json.loads((bench.raw / "k" / "one.footage.json").read_text())
    assert beside == {"license": "CC-BY-4.0", "person": "p7"}
    assert there[-1] == ("k/one.mp4", True)


@pytest.mark.parametrize("name", ["one.footage.json", "one.footage.yml"])
def test_a_file_beside_that_says_otherwise_lets_no_video_in(
    web: Site, bench: Bench, name: str
) -> None:
    bench.raw.mkdir()
    (bench.raw / name).write_text('{"consent": "withdrawn"}')
    link = make_link(web.serve("/x", video()), {"name": "one", "consent": "granted"})
    for _ in range(2):
        row = bench.row(link)
        assert (row.state, row.path) == ("failed", None)
        assert name in row.reason
        assert bench.videos() == []
    (bench.raw / name).write_text('{"consent": "granted"}')
    assert bench.row(link).state == "done"
    assert [path.name for path in bench.raw.glob("*.footage.*")] == [name]
    assert web.times("/x") == 1


def test_what_is_sealed_gets_the_name_that_the_list_has_by_now(web: Site, bench: Bench) -> None:
    url = web.serve("/x", video())
    bench.raw.mkdir()
    (bench.raw / "two.footage.json").write_text('{"consent": "withdrawn"}')
    said = {"consent": "granted"}
    assert bench.row(make_link(url, said | {"name": "two"})).state == "failed"
    row = bench.row(make_link(url, said | {"name": "three"}))
    assert (row.state, row.path) == ("done", str(bench.raw / "three.mp4"))
    assert web.times("/x") == 1


def test_the_word_of_one_link_is_not_that_of_another_with_the_same_stem(
    web: Site, bench: Bench
) -> None:
    said = {"P1.mp4": "granted", "P1.mov": "withdrawn"}
    links = [
        make_link(web.serve(f"/{name}", video(n)), {"name": name, "consent": consent})
        for n, (name, consent) in enumerate(said.items())
    ]
    bench.fetch(*links)
    rows = [row for row in bench.rows().values() if row.state == "done"]
    consent = json.loads((bench.raw / "P1.footage.json").read_text())["consent"]
    assert [said[Path(row.path or "").name] for row in rows] == [consent]


def test_what_a_later_list_says_gets_beside_the_video_that_is_there(
    web: Site, bench: Bench
) -> None:
    url, beside = web.serve("/x", video()), bench.raw / "one.footage.json"
    for said in ({}, {"consent": "withdrawn"}, {"consent": "withdrawn"}):
        row = bench.row(make_link(url, said | {"name": "one"}))
        assert (row.state, row.reason) == ("done", "")
    assert json.loads(beside.read_text()) == {"consent": "withdrawn"}
    assert web.times("/x") == 1


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_word_of_a_later_list_that_is_not_beside_the_video_is_a_failure(
    web: Site, bench: Bench, is_recorded: bool
) -> None:
    url = web.serve("/x.mp4", video())
    first = bench.row(make_link(url, {"consent": "granted"}))
    (path,) = bench.raw.glob("*.footage.json")
    if not is_recorded:
        bench.lake = Lake(bench.raw.parent / "other")
    later = make_link(url, {"consent": "withdrawn"})
    for _ in range(2):
        row = bench.row(later)
        assert (row.state, row.path, row.sha256) == ("failed", first.path, SHA256)
        assert path.name in row.reason and "say it there" in row.reason
        assert json.loads(path.read_text()) == {"consent": "granted"}  # nothing is replaced
    path.write_text('{"consent": "withdrawn", "site": "lab"}')
    assert bench.fetch(later).counts == {"done": 1}
    assert bench.row(make_link(url, {"consent": "sure"})).state == "refused"
    assert bench.row(later).sha256 == SHA256
    assert web.times("/x.mp4") == 1


def test_a_video_that_was_forgotten_does_not_come_back(web: Site, bench: Bench) -> None:
    tombstone = Tombstone(SHA256[:16], SHA256, len(video()), "2026-01-01T00:00:00+00:00", "")
    tombstones.write(bench.lake, tombstone, None)
    row = bench.row(web.serve("/a.mp4", video()))
    assert (row.state, row.sha256, row.path) == ("refused", None, None)
    assert "forgotten" in row.reason
    assert bench.videos() == []
    assert bench.row(row.url).state == "refused"
    assert len(web.asked) == 1


def test_cookies_go_to_their_own_host_alone(web: Site, bench: Bench, tmp_path: Path) -> None:
    web.serve("/a.mp4", video())
    path = tmp_path / "cookies.txt"
    lines = ["127.0.0.1\tFALSE\t/\tFALSE\t0\tname\tmine", ".example.org\tTRUE\t/\tFALSE\t0\tx\ty"]
    path.write_text("# Netscape HTTP Cookie File\n" + "\n".join(lines) + "\n")
    rules = Rules(IngestSettings(**QUICK), allow_private=True, cookies=path)
    ingest([make_link(f"{web.root}/a.mp4", {})], str(bench.raw), bench.lake, rules)
    assert web.asked[0][1]["cookie"] == "name=mine"
    text = path.read_text()
    for each in bench.rows().values():
        assert "mine" not in repr(each)
    assert path.read_text() == text


def test_a_file_that_holds_no_cookies_is_told(tmp_path: Path) -> None:
    (tmp_path / "cookies.txt").write_text("name=value")
    with pytest.raises(IngestError, match="Netscape"):
        read_cookies(tmp_path / "cookies.txt")


def test_two_at_once_fetch_each_link_once(web: Site, bench: Bench) -> None:
    def answer(asked: Asked) -> None:
        time.sleep(0.02)
        asked.file(video())

    links = [web.on(f"/{n}.mp4", answer) for n in range(10)]
    named = make_link(web.on("/named", answer), {"name": "named.mp4"})
    threads = [threading.Thread(target=bench.fetch, args=[*links, named]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {row.state for row in bench.rows().values()} == {"done"}
    assert len(bench.videos()) == 11
    assert len(web.asked) == 11


FETCH = """
import sys
from ego_assets.intake.links.ingest import Rules, ingest
from ego_assets.intake.links.lists import make_link
from ego_assets.intake.links.settings import IngestSettings
from resources.lake import Lake
rules = Rules(IngestSettings(stall_s=20), allow_private=True)
ingest([make_link(url, {}) for url in sys.argv[3:]], sys.argv[1], Lake(sys.argv[2]), rules)
"""


def test_one_that_is_killed_goes_on_where_it_was(web: Site, bench: Bench) -> None:
    half = threading.Event()

    def answer(asked: Asked) -> None:
        if asked.number:
            asked.file(video())
            return
        asked.half(video())
        asked.handler.wfile.flush()
        half.set()
        web.stall()

    links = [web.serve("/a.mp4", video(1)), web.on("/b.mp4", answer)]
    command = [sys.executable, "-c", FETCH, str(bench.raw), str(bench.lake.root), *links]
    process = subprocess.Popen(command)
    assert half.wait(60)
    part = bench.raw / ".ingest" / f"{make_link(links[1], {}).id}.part"
    _until(lambda: len(bench.videos()) == 1)
    _until(lambda: part.exists() and part.stat().st_size >= 100_000)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert bench.videos() == [video(1)]  # and of the other nothing is listed
    bench.fetch(*links)
    assert sorted(bench.videos()) == sorted([video(), video(1)])
    assert web.times("/a.mp4") == 1
    assert web.asked[-1][1].get("range", "").startswith("bytes=")
    assert {row.state for row in bench.rows().values()} == {"done"}


@pytest.mark.parametrize("point", ["os.link", "write_text"])
def test_one_that_is_killed_around_the_moment_of_publishing_fetches_nothing_again(
    web: Site, bench: Bench, point: str
) -> None:
    url = web.serve("/a.mp4", video())
    name = "named.mp4"
    kill = "import os, signal\ndef die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
    if point == "os.link":
        kill += "os.link = die\n"
    else:  # it is there, and not recorded
        kill += (
            "from ego_assets.intake.links.records import LinkFiles\n"
            "add = LinkFiles.add\n"
            "LinkFiles.add = lambda self, rows: (r := list(rows)) and (\n"
            "    die() if r[0].state == 'done' else add(self, r))\n"
        )
    code = kill + FETCH.replace("make_link(url, {})", "make_link(url, {'name': 'named.mp4'})")
    done = subprocess.run([sys.executable, "-c", code, str(bench.raw), str(bench.lake.root), url])
    assert done.returncode == -signal.SIGKILL
    row = bench.row(make_link(url, {"name": name}))
    assert (row.state, row.path) == ("done", str(bench.raw / name))
    assert bench.videos() == [video()]
    assert web.times("/a.mp4") == 1


def _until(is_so: Any) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_full_disk_stops_everything_and_is_told(
    web: Site, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", str(bench.raw))

    links = [web.serve(f"/{n}.mp4", video(n)) for n in range(20)]
    monkeypatch.setattr(os, "truncate", full)
    with pytest.raises(IngestError, match="No space left"):
        bench.fetch(*links, concurrency=1)
    assert len(web.asked) == 1
    assert {row.state for row in bench.rows().values()} == {"pending"}


def test_videos_go_into_a_bucket(web: Site, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_SCRATCH", str(bench.raw.parent / "scratch"))
    with s3_server(monkeypatch):
        bucket = new_bucket()
        place = f"s3://{bucket}/raw"
        urls = [web.serve("/a.mp4", video()), web.serve("/b.mp4", b"<html>")]
        links = [make_link(url, {"license": "CC0-1.0"}) for url in urls]
        rules = Rules(IngestSettings(**QUICK), allow_private=True)
        for _ in range(2):
            done = ingest(links, place, bench.lake, rules)
            assert done.counts == {"done": 1, "failed": 1}
        assert web.times("/a.mp4") == 1
        (uri,) = list_raw([place], VIDEO_SUFFIXES).files
        row = bench.rows()[urls[0]]
        assert (row.path, row.sha256) == (uri, SHA256)
        key = uri.removeprefix(f"s3://{bucket}/")
        assert s3_client().get_object(Bucket=bucket, Key=key)["Body"].read() == video()
        beside = key.replace(".mp4", ".footage.json")
        said = s3_client().get_object(Bucket=bucket, Key=beside)["Body"].read()
        assert json.loads(said) == {"license": "CC0-1.0"}
        bench.lake = Lake(bench.raw.parent / "other")
        assert ingest(links[:1], place, bench.lake, rules).counts == {"done": 1}
        assert web.times("/a.mp4") == 1


def test_two_lakes_that_fetch_the_same_links_at_a_time_do_not_disturb_each_other(
    web: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One into a bucket under two prefixes; what is not whole yet lies on the same machine."""
    monkeypatch.setenv("EGO_SCRATCH", str(tmp_path / "scratch"))
    urls = [web.serve(f"/{n}.mp4", video(n)) for n in range(4)]
    with s3_server(monkeypatch):
        places = [f"s3://{new_bucket()}/raw/{name}" for name in ("a", "b")]
        lakes = [Lake(tmp_path / name) for name in ("a", "b")]
        rules = Rules(IngestSettings(**QUICK), allow_private=True)
        links = [make_link(url, {}) for url in urls]
        with ThreadPoolExecutor(2) as pool:
            done = pool.map(
                lambda w: ingest(links, w[0], w[1], rules), zip(places, lakes, strict=True)
            )
            assert [each.counts for each in done] == [{"done": 4}] * 2
        for place, lake in zip(places, lakes, strict=True):
            rows = LinkFiles(lake).newest().values()
            assert {row.attempts for row in rows} == {1}
            assert {row.path for row in rows} == set(list_raw([place], VIDEO_SUFFIXES).files)
        for number in range(4):
            assert web.times(f"/{number}.mp4") == 2
