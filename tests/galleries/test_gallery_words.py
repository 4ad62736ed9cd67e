"""What is said of galleries: at the end of a run, and of a variable that makes no sense."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dagster_project.cli.terminal import _print_summary
from dagster_project.run_summary import Summary
from ego_assets.environment import check_environment, which_galleries
from resources.environment import EnvironmentVariableError


def test_a_run_ends_with_where_its_galleries_are(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("dagster_project.cli.terminal.Console", lambda: Console(file=out, width=80))
    pages = {f"shard-{n}": f"/data/lake/_galleries/shard-{n}/index.html" for n in range(5)}
    counts = dict.fromkeys(("total", "accepted", "rejected", "done", "failed", "quarantined"), 0)
    _print_summary(Summary("/data/lake", [], videos=counts, clips=counts, galleries=pages))
    *_, first, _, third, more = out.getvalue().splitlines()
    assert first == f"clips of shard-0, those with failures first: {pages['shard-0']}"
    assert third.endswith(pages["shard-2"])
    assert more == "… and of 2 more shards: `ego up` has them at /galleries"


def test_a_choice_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert which_galleries() == "all"
    monkeypatch.setenv("EGO_GALLERIES", "failing")
    assert which_galleries() == "failing"
    monkeypatch.setenv("EGO_GALLERIES", "some")
    with pytest.raises(EnvironmentVariableError, match="'some': give all, failing"):
        check_environment()
