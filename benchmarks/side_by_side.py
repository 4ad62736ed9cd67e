"""Backends of one operator beside each other on a sample: all are fed with the same rows.

Here: which backends can run here, and their scores. Not here: metrics (`sample_scores`), the table
(`accuracy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.graph_run import OPERATORS, GraphRun, Upstream, run_graph
from benchmarks.sample_scores import Values, score_sample
from ego_assets.catalog import BACKENDS
from ego_assets.feature import load
from ego_assets.models import registry
from ego_assets.models.weights import WeightsError
from ego_assets.operator import Rows


def others(operator: str) -> dict[str, str]:
    """{backend: ""} of an operator's backends beside the one that the graph runs; else why one
    cannot run here."""
    found = {}
    for of, name in BACKENDS:
        if of != operator or name == OPERATORS[operator][0]:
            continue
        try:
            registry.version(operator, name)
            found[name] = ""
        except (WeightsError, ImportError) as error:
            found[name] = str(error).split("\n", maxsplit=1)[0]
    return found


def named(operator: str, backend: str) -> str:
    """An operator with its backend and the tier of that, for the table."""
    tier = load(BACKENDS[operator, backend].factory).quality_tier
    return f"{operator}: {backend} ({tier})"


def score_others(
    path: Path, run: GraphRun, truth: Any, upstream: Upstream | None
) -> tuple[Values, dict[str, str]]:
    """Scores of every operator by every backend that runs here, that of `run` first, each named by
    its tier; and {backend: why it was not measured}. upstream: as that of `run`."""
    values: Values = {}
    skipped: dict[str, str] = {}
    mine = score_sample(run, truth, oracle=upstream is not None)
    for operator, (default, _) in OPERATORS.items():
        names = others(operator)
        for name, why in names.items():
            if not why:
                again = run_graph(
                    path,
                    only=(operator,),
                    backends={operator: name},
                    upstream=upstream or _rows_of(run),
                )
                why = again.failures.get(operator, "")
                again.tables = run.tables | again.tables
                scored = score_sample(again, truth, oracle=upstream is not None)
                values |= _of(operator, name, scored) if not why else {}
            if why:
                skipped[named(operator, name)] = why
        if set(names) - {n for n in names if named(operator, n) in skipped}:
            values |= _of(operator, default, mine)
    return dict(sorted(values.items())), skipped


def _of(operator: str, backend: str, values: Values) -> Values:
    return {(named(operator, backend), m): v for (of, m), v in values.items() if of == operator}


def _rows_of(run: GraphRun) -> Upstream:
    """What the operators of a run made, as input."""

    def rows(table: str, clip: Mapping[str, Any]) -> Rows:
        return [r for r in run.tables[table] if r["clip_id"] == clip["clip_id"]]

    return rows
