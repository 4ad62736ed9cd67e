"""`ego ingest`: what a person gives, and what is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dagster_project.cli import main
from tests.intake.links.broken_server import Site, site, video


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as found:
        yield found


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DAGSTER_HOME", "EGO_BACKENDS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("EGO_RAW", str(tmp_path / "raw"))
    monkeypatch.setenv("EGO_LAKE", str(tmp_path / "lake"))


def ego(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(main, list(arguments))


def test_a_list_is_fetched_and_what_failed_is_told(web: Site, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    good, bad = web.serve("/a.mp4", video()), f"{web.root}/none.mp4"
    path.write_text(f"url,license,colour\n{good},CC0-1.0,red\n{bad},,\nfile:///x,,\n")
    done = ego("ingest", str(path), "--allow-private", "--backoff-s", "0")
    assert done.exit_code == 1
    assert "3 links: 1 done, 1 failed, 1 refused" in done.stdout
    assert f"failed: {bad}\n  HTTP 404 Not Found" in done.stdout
    assert "refused: file:///x\n  neither http nor https" in done.stdout
    assert "the column colour is not known" in done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "://" not in line)
    told = ego("ingest", "--status")
    assert told.exit_code == 1
    assert "Run `ego ingest` with the same list" in told.stdout
    sql = ego("sql", "SELECT license, source FROM links WHERE state = 'done'", "--json")
    assert json.loads(sql.stdout) == [{"license": "CC0-1.0", "source": "127.0.0.1"}]
    (beside,) = (tmp_path / "raw").glob("*.footage.json")
    assert json.loads(beside.read_text()) == {"license": "CC0-1.0"}


def test_again_with_what_works_by_now(web: Site) -> None:
    url = f"{web.root}/a.mp4"
    command = ("ingest", url, "--allow-private", "--json")
    assert json.loads(ego(*command).stdout)["failed"] == 1
    web.serve("/a.mp4", video())
    done = ego(*command)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["done"] == 1
    again = json.loads(ego(*command).stdout)
    assert (again["done"], again["there_before"], again["links"]) == (1, 1, [])
    assert "`ego run RAW`" not in ego("ingest", "--status", "--json").stdout


def test_private_addresses_are_refused_unless_allowed(web: Site) -> None:
    done = ego("ingest", web.serve("/a.mp4", video()))
    assert done.exit_code == 1
    assert "1 refused" in done.stdout
    assert "--allow-private" in done.stdout
    assert web.asked == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "give links"),
        (["http://a.org/x", "--status"], "give links"),
        (["no_such_list.txt"], "neither a link nor a file"),
        (["http://a.org/x", "--concurrency", "0"], "--concurrency"),
        (["http://a.org/x", "--cookies", "none.txt"], "--cookies"),
    ],
)
def test_a_command_that_makes_no_sense_says_why(arguments: list[str], why: str) -> None:
    done = ego("ingest", *arguments)
    assert done.exit_code == 2
    assert why in done.stderr


def test_status_needs_a_lake() -> None:
    done = ego("ingest", "--status")
    assert done.exit_code == 1
    assert "there is no lake" in done.stderr
