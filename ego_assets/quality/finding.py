"""What a probe is, what it is given and what it says.

Here: `Probe`, `Evidence`, `Finding`, and the steps that probes share (rows in the order of their
tracks, a value for each track, the judgement). Not here: any probe, Dagster, files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.quality.settings import ProbeSettings

Severity = Literal["warn", "error"]
Look = Callable[[str, int, int], float | None]
"""(clip_id, first frame, last frame) → how much the picture changes in between, grey levels; None
where the frames cannot be read."""
MOST_OFFENDERS = 20


@dataclass(frozen=True)
class Offender:
    """A clip, a track or a column that is beyond the threshold. frame: where it is worst; at: the
    clip, episode or video to look at, if `where` does not begin with its id."""

    where: str
    frame: int | None
    value: float
    at: str = ""


@dataclass(frozen=True)
class Finding:
    """What a probe says of some rows.

    value: the worst of all units looked at, None where there was nothing to look at; threshold:
    in the same unit; least: whether less is worse; beyond: how many units were; worst: those, the
    worst first (of several shards, the first MOST_OFFENDERS); values: (looked_at,) of every unit,
    for a picture; numbers: whatever else is worth a look.
    """

    name: str
    passed: bool
    value: float | None
    threshold: float
    unit: str
    sentence: str
    least: bool = False
    looked_at: int = 0
    beyond: int = 0
    worst: tuple[Offender, ...] = ()
    values: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """The rows of a table, those of others that help to judge them, and a look at the pictures."""

    table: str
    tables: Mapping[str, pa.Table]
    look: Look | None = None

    @property
    def rows(self) -> pa.Table:
        return self.tables[self.table]

    @property
    def valid_rows(self) -> pa.Table:
        return self.rows.filter(pc.field("is_valid"))


@dataclass(frozen=True)
class Probe:
    """A question to a table. reads: the columns needed, by table; those of `table` itself too;
    measure: gets the settings of the room that the table belongs to."""

    name: str
    table: str
    severity: Severity
    reads: Mapping[str, tuple[str, ...]]
    describe: str
    measure: Callable[[Evidence, Any], Finding]

    def __call__(self, evidence: Evidence, settings: ProbeSettings) -> Finding:
        return replace(self.measure(evidence, settings), name=self.name)


def probe(
    *tables: str,
    severity: Severity = "warn",
    reads: Sequence[str] = (),
    others: Mapping[str, Sequence[str]] | None = None,
) -> Callable[[Callable[[Evidence, Any], Finding]], tuple[Probe, ...]]:
    """Make probes of a function, one for each of `tables`; its docstring tells what it asks.

    reads: columns of the table itself; others: columns of other tables.
    """
    needs = {name: tuple(columns) for name, columns in (others or {}).items()}

    def make(measure: Callable[[Evidence, Any], Finding]) -> tuple[Probe, ...]:
        describe = " ".join((measure.__doc__ or "").split())
        return tuple(
            Probe(measure.__name__, t, severity, needs | {t: tuple(reads)}, describe, measure)
            for t in tables
        )

    return make


def clips_of(rows: pa.Table) -> list[str]:
    """Ids of the clips that a table has rows of: valid ones, where rows can be invalid."""
    if "is_valid" in rows.column_names:
        rows = rows.filter(pc.field("is_valid"))
    return sorted(rows["clip_id"].unique().to_pylist())


def valid_share(rows: pa.Table, expected: pl.DataFrame) -> Units:
    """Valid rows of each clip over those `expected` (clip_id, count): 0 of a clip without rows."""
    valid = pl.DataFrame(rows.select(["clip_id", "is_valid"])).group_by("clip_id")
    shares = (
        expected.join(valid.agg(pl.col("is_valid").sum()), on="clip_id", how="left")
        .select("clip_id", share=pl.col("is_valid").fill_null(0) / pl.col("count"))
        .sort("clip_id")
    )
    return Units.of(shares["clip_id"], shares["share"])


# -- rows in order -------------------------------------------------------------------------------


_WINDOW = 7
_SMOOTH = np.array([-2.0, 3.0, 6.0, 7.0, 6.0, 3.0, -2.0]) / 21.0
"""Savitzky and Golay (1964): the middle of a parabola fitted to seven points."""


@dataclass(frozen=True)
class Tracks:
    """Rows in the order of their tracks (or clips) and frames.

    group: (N,) number of each row's track, ascending; the columns `by` name a track.
    """

    rows: pa.Table
    by: tuple[str, ...]
    group: np.ndarray

    @classmethod
    def of(cls, rows: pa.Table, by: Sequence[str] = ("clip_id", "track_id")) -> Tracks:
        rows = rows.sort_by([(c, "ascending") for c in (*by, "frame_index")])
        changes = np.zeros(rows.num_rows, bool)
        for name in by:
            codes = rows[name].combine_chunks().dictionary_encode()
            codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
            numbers = codes.indices.to_numpy()
            changes[1:] |= numbers[1:] != numbers[:-1]
        return cls(rows, tuple(by), np.cumsum(changes))

    @cached_property
    def frame(self) -> np.ndarray:
        frames: np.ndarray = self.rows["frame_index"].to_numpy()
        return frames

    @cached_property
    def seconds(self) -> np.ndarray:
        seconds: np.ndarray = self.rows["pts_s"].to_numpy()
        return seconds

    @cached_property
    def is_next(self) -> np.ndarray:
        """(N,) whether a row's frame follows that of the row before, in the same track."""
        found = np.zeros(len(self.group), bool)
        found[1:] = (np.diff(self.group) == 0) & (np.diff(self.frame) == 1)
        return found

    def column(self, name: str) -> np.ndarray:
        return array_of(self.rows[name])

    def step_s(self) -> np.ndarray:
        """(N,) seconds since the row before, at least a millisecond."""
        return np.maximum(np.diff(self.seconds, prepend=np.nan), 1e-3)

    def jitter(self, points: np.ndarray) -> np.ndarray:
        """(N,) RMS distance of (N, P, D) points to a parabola through the seven frames around, in
        their unit; NaN where there are not as many frames in a row.

        What the parabola itself follows of white noise is put back, so that noise of 3 px RMS
        measures 3 px.
        """
        points = np.asarray(points, np.float64)
        count = len(points) - _WINDOW + 1
        found = np.full(len(points), np.nan)
        if count > 0:
            smooth = sum(w * points[k : k + count] for k, w in enumerate(_SMOOTH))
            middle = slice(_WINDOW // 2, _WINDOW // 2 + count)
            apart = np.sqrt(((points[middle] - smooth) ** 2).sum(axis=2).mean(axis=1))
            steps = np.cumsum(self.is_next)
            is_whole = steps[_WINDOW - 1 :] - steps[:count] == _WINDOW - 1
            found[middle] = np.where(is_whole, apart, np.nan)
        residuals: np.ndarray = found / np.sqrt(1.0 - _SMOOTH[_WINDOW // 2])
        return residuals

    def units(
        self,
        values: np.ndarray,
        how: Literal["mean", "max", "median", "rms"],
        *,
        least: bool = False,
    ) -> Units:
        """One value a track out of (N,) values of rows; NaN does not count. The frame is that of
        the largest value (least: of the smallest)."""
        frame = pl.DataFrame(
            {
                "group": self.group,
                "frame": self.frame,
                "value": np.asarray(values, np.float64),
                **{name: pl.from_arrow(self.rows[name]) for name in self.by},
            }
        ).filter(pl.col("value").is_finite())
        value = pl.col("value")
        reduced = {
            "mean": value.mean(),
            "max": value.max(),
            "median": value.median(),
            "rms": (value**2).mean().sqrt(),
        }[how]
        found = (
            frame.group_by("group", maintain_order=True)
            .agg(
                *(pl.col(name).first() for name in self.by),
                pl.col("frame").get(value.arg_min() if least else value.arg_max()),
                reduced.alias("reduced"),
            )
            .with_columns(pl.concat_str([pl.col(n) for n in self.by], separator=" ").alias("where"))
        )
        return Units(
            found["where"].to_list(), found["frame"].to_list(), found["reduced"].to_numpy()
        )


@dataclass(frozen=True)
class Units:
    """What is judged: places, the frame to look at, (N,) values. at: as of `Offender`, or empty."""

    where: Sequence[str]
    frame: Sequence[int | None]
    value: np.ndarray
    at: Sequence[str] = ()

    @classmethod
    def of(cls, where: Iterable[str], value: Iterable[float]) -> Units:
        where, values = list(where), np.array(list(value), np.float64)
        return cls(where, [None] * len(where), values)


def judge(
    units: Units,
    threshold: float,
    unit: str,
    what: str,
    tolerated_share: float,
    *,
    least: bool = False,
    numbers: Mapping[str, float] | None = None,
) -> Finding:
    """Fails where more than a tolerated share of the units is over the threshold (least: under it).

    what: a noun for the units, and what is measured of them, for the sentence.
    """
    count = len(units.value)
    sign = -1.0 if least else 1.0
    beyond = np.flatnonzero(sign * units.value > sign * threshold)
    order = beyond[np.argsort(-sign * units.value[beyond], kind="stable")]
    at = units.at or [""] * count
    worst = tuple(
        Offender(units.where[i], units.frame[i], float(units.value[i]), at[i]) for i in order
    )
    value = float(sign * np.max(sign * units.value)) if count else None
    passed = len(beyond) <= tolerated_share * count
    side = "under" if least else "over"
    sentence = f"{what}: {len(beyond)} of {count} {side} {threshold:g} {unit}"
    if value is not None:
        sentence += f", the worst {value:.3g}"
    else:
        sentence = f"not judged: nothing to look at ({what})"
    return Finding(
        name="",
        passed=passed,
        value=value,
        threshold=threshold,
        unit=unit,
        sentence=sentence,
        least=least,
        looked_at=count,
        beyond=len(beyond),
        worst=worst,
        values=units.value,
        numbers=numbers or {},
    )


def merge(findings: Sequence[Finding]) -> Finding:
    """One finding out of those of several shards: as good as the worst of them, whose value and
    sentence it has; of some that fail, that with the worst value. What is tolerated in a shard that
    passes comes after what makes others fail."""
    sign = 1.0 if findings[0].least else -1.0
    worst = min(
        findings, key=lambda f: (f.passed, f.value is None, sign * (f.value or 0.0), -f.beyond)
    )
    offenders = [(f.passed, o) for f in findings for o in f.worst]
    offenders.sort(key=lambda of: (of[0], sign * of[1].value))
    return replace(
        worst,
        looked_at=sum(f.looked_at for f in findings),
        beyond=sum(f.beyond for f in findings),
        worst=tuple(o for _, o in offenders[:MOST_OFFENDERS]),
        values=np.concatenate([f.values for f in findings]),
    )
