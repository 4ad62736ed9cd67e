"""What two runs made of the same shards, side by side: rows, distributions, seam errors.

Here: the comparison, as plain numbers. Not here: words on a terminal, thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.catalog import TABLES
from ego_assets.quality.seam import seam_errors, seam_of
from resources.lake import Lake, history


class NothingToCompareError(LookupError):
    """The lake keeps no shard that both runs have worked on."""


@dataclass(frozen=True)
class ColumnDiff:
    """Distribution of a column of numbers. ks: largest distance of the two cumulative
    distributions (Kolmogorov 1933, Smirnov 1948), 0 to 1. changed: rows in both that differ."""

    column: str
    changed: int
    mean_a: float | None
    mean_b: float | None
    std_a: float | None
    std_b: float | None
    ks: float | None


@dataclass(frozen=True)
class TableDiff:
    """One table of one shard. seam: mean disagreement in the overlaps of clips, in seam_unit."""

    table: str
    shard: str
    rows_a: int
    rows_b: int
    equal: int
    changed: int
    only_a: int
    only_b: int
    seam_a: float | None = None
    seam_b: float | None = None
    seam_unit: str | None = None
    columns: list[ColumnDiff] = field(default_factory=list)


def diff_runs(
    lake: Lake, run_a: str, run_b: str, shards: Iterable[str] | None = None
) -> list[TableDiff]:
    """Every table of every shard as the two runs left it. Raises NothingToCompareError."""
    found = []
    for shard in lake.shards() if shards is None else shards:
        clips = {run: _left(lake, "clips", shard, run) for run in (run_a, run_b)}
        for table in TABLES:
            a, b = (_left(lake, table, shard, run) for run in (run_a, run_b))
            if a is not None and b is not None:
                current = lake.read("clips", shard)
                seam_a, seam_b = (
                    _seam(table, rows, current if own is None else own)
                    for rows, own in ((a, clips[run_a]), (b, clips[run_b]))
                )
                found.append(_diff(table, shard, a, b, seam_a, seam_b))
    if not found:
        raise NothingToCompareError(
            f"no shard in {lake.location} for which rows of both {run_a} and {run_b} are kept: "
            "`ego history` lists what is"
        )
    return found


def _left(lake: Lake, table: str, shard: str, run_id: str) -> pa.Table | None:
    version = history.left_by(history.versions(lake, table, shard), run_id)
    return None if version is None else history.read_version(lake, table, shard, version.name)


def _seam(table: str, rows: pa.Table, clips: pa.Table) -> float | None:
    if seam_of(table) is None:
        return None
    errors = seam_errors(table, rows, clips)
    return float(errors.mean()) if len(errors) else None


def _diff(
    table: str, shard: str, a: pa.Table, b: pa.Table, seam_a: float | None, seam_b: float | None
) -> TableDiff:
    changed = _changed(table, a, b)
    both = changed.pop("rows")
    different = changed.pop("any")
    columns = [
        column
        for name in a.column_names
        if name not in TABLES[table].key
        and (column := _column(name, changed.get(name, 0), a[name], b[name])) is not None
    ]
    return TableDiff(
        table=table,
        shard=shard,
        rows_a=a.num_rows,
        rows_b=b.num_rows,
        equal=both - different,
        changed=different,
        only_a=a.num_rows - both,
        only_b=b.num_rows - both,
        seam_a=seam_a,
        seam_b=seam_b,
        seam_unit=seam.unit if (seam := seam_of(table)) else None,
        columns=sorted(columns, key=lambda c: (-(c.ks or 0.0), c.column)),
    )


def _changed(table: str, a: pa.Table, b: pa.Table) -> dict[str, int]:
    """{"rows": keys in both, "any": of those, rows that differ, column: rows that differ in it}."""
    import duckdb

    key = TABLES[table].key
    # Where an array lies says nothing of what it holds, and changes with every attempt.
    others = [c for c in a.column_names if c not in key and c != TABLES[table].arrays_column()]
    apart = {c: f'a."{c}" IS DISTINCT FROM b."{c}"' for c in others}
    sums = [f'count_if({words}) AS "{c}"' for c, words in apart.items()]
    query = (
        f'SELECT count(*) AS "rows", count_if({" OR ".join(apart.values())}) AS "any", '
        f"{', '.join(sums)} FROM a JOIN b ON " + " AND ".join(f'a."{k}" = b."{k}"' for k in key)
    )
    with duckdb.connect(":memory:") as connection:
        connection.register("a", a)
        connection.register("b", b)
        counts: pa.Table = connection.sql(query).to_arrow_table()
    return {name: int(count or 0) for name, count in counts.to_pylist()[0].items()}


def _column(name: str, changed: int, a: pa.ChunkedArray, b: pa.ChunkedArray) -> ColumnDiff | None:
    if not (
        pa.types.is_floating(a.type) or pa.types.is_integer(a.type) or pa.types.is_boolean(a.type)
    ):
        return None
    first, second = (_numbers(c) for c in (a, b))

    def of(function: Any, values: np.ndarray) -> float | None:
        return float(function(values)) if len(values) else None

    return ColumnDiff(
        column=name,
        changed=changed,
        mean_a=of(np.mean, first),
        mean_b=of(np.mean, second),
        std_a=of(np.std, first),
        std_b=of(np.std, second),
        ks=ks_distance(first, second) if len(first) and len(second) else None,
    )


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """(N,) sorted, without nulls."""
    return np.sort(pc.cast(pc.drop_null(column), pa.float64()).to_numpy())


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance of the empirical cumulative distributions of two sorted samples."""
    points = np.concatenate([a, b])
    below_a = np.searchsorted(a, points, side="right") / len(a)
    below_b = np.searchsorted(b, points, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())
