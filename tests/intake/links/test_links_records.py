"""Rows of links in the lake: the newest counts, nothing is lost, and what is forgotten goes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ego_assets.intake.links import records
from ego_assets.intake.links.records import FOLDER, SCHEMA, LinkFiles, LinkRow, Recorder
from resources.lake import Lake, LakeError
from resources.lake.catalog import Catalog


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def row(name: str, state: Any = "done", **more: Any) -> LinkRow:
    return LinkRow(name, f"http://a.org/{name}", state, **more)


def test_of_a_link_the_newest_row_counts(lake: Lake) -> None:
    files = LinkFiles(lake)
    files.add([row("a", "pending"), row("b", "pending")])
    files.add([row("a", "failed", reason="HTTP 404 Not Found", http_status=404)])
    found = LinkFiles(lake).newest()
    assert {name: each.state for name, each in found.items()} == {"a": "failed", "b": "pending"}
    assert found["a"].time


def test_files_are_put_together_and_nothing_is_lost(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MOST_FILES", 4)

    def add(who: str) -> None:
        files = LinkFiles(lake)
        for number in range(20):
            files.add([row(f"{who}{number}", "pending")])
            files.add([row(f"{who}{number}")])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(add, "abc"))
    found = LinkFiles(lake).newest()
    assert len(found) == 60
    assert {each.state for each in found.values()} == {"done"}
    assert len(lake.storage.list(FOLDER)) <= 12


def test_rows_answer_sql(lake: Lake) -> None:
    files = LinkFiles(lake)
    files.add([row("a", bytes=7, http_status=200), row("b", "failed", reason="it's gone")])
    beside = {records.TABLE: (SCHEMA, files.table)}
    with Catalog(lake, beside=beside) as catalog:
        sql = "SELECT state, reason, bytes FROM links WHERE http_status IS NULL"
        assert catalog.query(sql).to_pylist() == [
            {"state": "failed", "reason": "it's gone", "bytes": None}
        ]
        names = catalog.query("SHOW TABLES").to_pydict()["name"]
        assert "links" in names
        assert "clips" in names


def test_a_video_that_is_forgotten_goes_from_all_files(lake: Lake) -> None:
    files = LinkFiles(lake)
    files.add([row("a", sha256="ab" * 32), row("b", sha256="cd" * 32)])
    files.add([row("c", sha256="ab" * 32)])
    files.add([row("c", "pending"), row("b", "failed")])
    mine = {each.link_id for each in files.of_video(("ab" * 32)[:16])}
    assert mine == {"a", "c"}
    files.erase(mine)
    assert set(LinkFiles(lake).newest()) == {"b"}
    for key in lake.storage.list(FOLDER):
        text = lake.storage.read(key)
        assert b"abab" not in text and b"a.org/c" not in text


def test_a_file_that_holds_no_rows_is_named(lake: Lake) -> None:
    LinkFiles(lake).add([row("a")])
    lake.storage.write(f"{FOLDER}/x.jsonl", b'{"link_id": 1}\n')
    with pytest.raises(LakeError, match=r"_links/x\.jsonl"):
        LinkFiles(lake).newest()


def test_what_waits_is_in_the_lake_before_anybody_hears_so(lake: Lake) -> None:
    files, heard = LinkFiles(lake), []
    recorder = Recorder(files)
    recorder.add(row("a"), lambda: heard.append(set(LinkFiles(lake).newest())))
    recorder.flush()
    assert not heard  # it is little, and has not waited long
    recorder.flush(is_last=True)
    assert heard == [{"a"}]
