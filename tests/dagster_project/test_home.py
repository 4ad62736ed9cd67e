"""Dagster keeps its runs in the lake's own folder, whatever that is called."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.home import open_instance, prepare_home
from resources.lake import Lake, LakeError


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["lake?x", "a?b=c&uri=true", "lake [1]", "50%20 #", "it's"])
def test_runs_and_events_stay_in_the_lake(tmp_path: Path, name: str) -> None:
    lake = Lake(tmp_path / "in" / name)
    with open_instance(lake.location) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("x", partition="p"))
    os.environ["DAGSTER_HOME"] = ""
    with open_instance(lake.location) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("x")) == {"p"}
    files = [p for p in (tmp_path / "in").rglob("*") if p.is_file()]
    assert len(files) > 3
    assert all(p.is_relative_to(lake.root / ".dagster") for p in files)


def test_a_home_that_is_given_is_linked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home?x"))
    home = prepare_home(tmp_path / "lake")
    assert home.resolve() == tmp_path / "home?x"
    assert "?" not in os.environ["DAGSTER_HOME"]
    assert prepare_home(tmp_path / "lake") == home


def test_where_no_link_can_be_made_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache?"))
    with pytest.raises(LakeError, match=r"because of the `\?`.*set DAGSTER_HOME"):
        prepare_home(tmp_path / "lake?x")
