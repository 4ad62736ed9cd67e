"""Backends beside each other on a sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import side_by_side
from benchmarks.graph_run import run_graph
from benchmarks.truth_tables import TruthTables
from samples import load_truth
from tests.support.rendered import render_sample

ERROR = "fingertip error of the hand poses, mm"


def test_further_backends_are_scored_on_the_same_rows(tmp_path: Path) -> None:
    path = render_sample(tmp_path, seed=4, duration_s=0.5)
    truth = load_truth(path)
    rows = TruthTables(truth).rows
    run = run_graph(path, only=("retargeter",), upstream=rows)
    assert not run.failures
    others = {"retargeter": {"dex_retargeting": "", "gone": "no weights"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "others", lambda operator: others.get(operator, {}))
        patch.setattr(side_by_side, "named", lambda operator, name: f"{operator}: {name}")
        values, skipped = side_by_side.score_others(path, run, truth, rows)
    assert skipped == {"retargeter: gone": "no weights"}
    ours, theirs = (
        values[f"retargeter: {name}", ERROR] for name in ("gauss_newton", "dex_retargeting")
    )
    assert {operator for operator, _ in values} == {
        "retargeter: gauss_newton", "retargeter: dex_retargeting",
    }  # fmt: skip
    assert 0 < ours < 10
    assert 0 < theirs < 10
    assert ours != theirs, "each by its own solver"


def test_what_cannot_run_here_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_WEIGHTS", str(tmp_path))
    assert side_by_side.others("retargeter") == {"dex_retargeting": ""}
    found = side_by_side.others("hand_estimator")
    assert list(found) == ["hamer"]
    assert found["hamer"]
    assert side_by_side.named("hand_estimator", "hamer") == "hand_estimator: hamer (reference)"
