"""Fits the confidence of rows to whether they are right: one logistic curve of their evidence.

Here: the fit, how reliable it is on what it was not fitted to, the command line of the benchmarks
that collect rows. Not here: which rows are right (`rendered_rooms`, `rendered_objects`).

Rows of a group (a room, a sample) share most of what is wrong with them, so a group counts as one
and is left out as one. Source: Platt, "Probabilistic outputs for support vector machines", 1999.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration import Judged, calibration_error, reliability, reliability_table

Rows = list[dict[str, Any]]
"""Rows of a table, with `is_right` and `group`."""
Evidence = Callable[[Mapping[str, Any]], tuple[float, ...]]
_FOLDS = 10


@dataclass(frozen=True)
class Fit:
    """curve: weights of the evidence; held_out: (N,) confidence of each row by a curve that was
    fitted to other groups, NaN if there are none."""

    curve: np.ndarray
    held_out: np.ndarray


def fit(rows: Rows, evidence_of: Evidence) -> Fit:
    """Fit a curve to rows of one kind."""
    evidence = np.array([evidence_of(r) for r in rows])
    right = np.array([r["is_right"] for r in rows], float)
    _, group = np.unique([r["group"] for r in rows], return_inverse=True)
    told = np.full(len(rows), np.nan)
    for fold in range(_FOLDS):
        out = group % _FOLDS == fold
        if out.any() and not out.all():
            curve = most_likely(evidence[~out], right[~out], group[~out])
            told[out] = 1 / (1 + np.exp(-evidence[out] @ curve))
    return Fit(most_likely(evidence, right, group), told)


def most_likely(evidence: np.ndarray, right: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(E,) weights of (N, E) evidence, of most likelihood, held a little towards nought."""
    from scipy.optimize import minimize

    _, of, count = np.unique(group, return_inverse=True, return_counts=True)
    weight = 1.0 / count[of]

    def unlikely(curve: np.ndarray) -> float:
        odds = evidence @ curve
        loss = weight * (np.logaddexp(0, odds) - right * odds)
        return float(loss.sum() + 0.05 * (curve[1:] ** 2).sum())

    return np.asarray(minimize(unlikely, np.zeros(evidence.shape[1])).x)


def report_curve(
    kind: str,
    rows: Rows,
    evidence_of: Evidence,
    confidence_of: Callable[[Mapping[str, Any]], float | None],
) -> str:
    """The fitted curve, and how reliable it and the one in use are, as text."""
    found = fit(rows, evidence_of)
    groups = len({r["group"] for r in rows})
    right = float(np.mean([r["is_right"] for r in rows]))
    lines = [f"\n{kind}: {len(rows)} rows of {groups} samples, {right:.3f} of them right"]
    lines.append("fitted: " + ", ".join(f"{c:.2f}" for c in found.curve))
    used = [confidence_of(r) or 0.0 for r in rows]
    held_out = [("held out", found.held_out.tolist())] * (groups > 1)
    for name, told in [("in use", used), *held_out]:
        pairs = zip(told, rows, strict=True)
        judged = [Judged(c, r["is_right"], True, str(r["group"])) for c, r in pairs]
        bins = reliability(judged)
        lines += [f"{name}: off by {calibration_error(bins):.3f}", reliability_table(bins)]
    return "\n".join(lines)


def main_of(
    arguments: Sequence[str] | None,
    described: str,
    collect: Callable[[int], Rows],
    report: Callable[[Rows], str],
) -> int:
    """Collect rows seed by seed, and report. Rows that were collected before are kept in a file."""
    parser = argparse.ArgumentParser(description=described.split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=120, help="samples")
    parser.add_argument("--first", type=int, default=100, help="seed of the first one")
    parser.add_argument(
        "--rows", type=Path, default=None, help="JSON lines; goes on after the last"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    options = parser.parse_args(arguments)
    by_seed: dict[int, Rows] = {}
    if options.rows is not None and options.rows.exists():
        held = map(json.loads, options.rows.read_text().splitlines())
        by_seed = {one["seed"]: one["rows"] for one in held}
    began = time.monotonic()
    for seed in range(options.first, options.first + options.count):
        if seed in by_seed:
            continue
        if time.monotonic() - began > options.seconds:
            print(f"stopped before sample {seed}", file=sys.stderr)
            break
        by_seed[seed] = collect(seed)
        if options.rows is not None:
            with options.rows.open("a") as file:
                file.write(json.dumps({"seed": seed, "rows": by_seed[seed]}) + "\n")
    print(report([row for rows in by_seed.values() for row in rows]))
    return 0
