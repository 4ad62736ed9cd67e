"""What every format of telemetry is read into: series of samples over time, and their axes.

Here: plain arrays, the turn from a sensor's axes into the camera's, and one table out of series
that were sampled at different times. Not here: any format, files, rows of the lake.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

Axes = Literal["camera", "stored picture", "sensor"]
"""Of the vectors of a source: camera: of the upright picture (x right, y down, z forward); stored
picture: the same before the picture is turned upright; sensor: nothing says how it is mounted."""
VECTORS = ("accel_mps2", "gyro_radps")
SCALARS = (
    "gps_latitude_deg",
    "gps_longitude_deg",
    "gps_altitude_m",
    "gps_speed_mps",
    "gps_accuracy_m",
    "gps_dop",
    "exposure_s",
    "iso",
    "temperature_c",
)
GPS = tuple(name for name in SCALARS if name.startswith("gps_"))
MAX_FAULTS = 20
"""Sentences on damage that are kept of one source; of more, their number."""
_TICKS_A_SECOND = 10**7
"""Times of one source that are nearer to each other are one."""


class TelemetryError(ValueError):
    """Telemetry is not what its format says; the message says where, and what is wrong."""


@dataclass(frozen=True)
class Series:
    """Samples of one sensor. times_s: (N,) seconds since the first picture; values: (N,) or, of
    VECTORS, (N, 3) by column name; NaN where there is none."""

    times_s: np.ndarray
    values: Mapping[str, np.ndarray]


@dataclass
class Faults:
    """What is wrong with a source: the first sentences, and how many there were."""

    count: int = 0
    sentences: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        self.count += 1
        if len(self.sentences) < MAX_FAULTS:
            text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in sentence)
            self.sentences.append(text[:300])

    def extend(self, others: Faults) -> None:
        """Add those of another source, also the ones that are only counted."""
        for sentence in others.sentences:
            self.add(sentence)
        self.count += others.count - len(others.sentences)


@dataclass
class SourceTelemetry:
    """What one source says. kind: `gpmd`, `camm`, `subtitle`, `csv` or `mcap`; place: where it was
    found, for a person; device: as it calls itself."""

    kind: str
    place: str
    axes: Axes = "sensor"
    device: str | None = None
    series: list[Series] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)

    def add(self, times_s: np.ndarray, **values: np.ndarray) -> None:
        """Add a series, without the samples that are at no time."""
        is_good = np.isfinite(times_s)
        if is_good.any():
            self.series.append(
                Series(times_s[is_good], {name: v[is_good] for name, v in values.items()})
            )

    def count(self, name: str) -> int:
        """How many samples there are of a column."""
        columns = (s.values[name] for s in self.series if name in s.values)
        return sum(int(is_known(column).sum()) for column in columns)

    def leave_out(self, names: Collection[str]) -> None:
        """Forget some columns."""
        self.series = [
            replace(s, values={n: v for n, v in s.values.items() if n not in names})
            for s in self.series
        ]

    def delay(self, seconds: float) -> None:
        """Add to all times."""
        self.series = [replace(s, times_s=s.times_s + seconds) for s in self.series]

    def turn(self, camera_from_source: np.ndarray) -> None:
        """Turn the vectors into the camera's axes, by a rotation (3, 3)."""
        self.series = [
            replace(
                s,
                values={
                    n: v @ camera_from_source.T if n in VECTORS else v for n, v in s.values.items()
                },
            )
            for s in self.series
        ]
        self.axes = "camera"


@dataclass(frozen=True)
class SampleTable:
    """Samples of one source in the order of their times_s (N,), ascending; values as of `Series`,
    all columns there."""

    times_s: np.ndarray
    values: dict[str, np.ndarray]


def camera_from_letters(letters: str) -> np.ndarray:
    """(3, 3) rotation into the camera's axes out of `y,-x,z`: which of the sensor's axes points
    right, down and forward. Raises TelemetryError if that is no rotation."""
    parts = [part.strip().lower() for part in letters.split(",")]
    rotation = np.zeros((3, 3))
    for row, part in enumerate(parts[:3]):
        name = part.lstrip("+-")
        if name not in ("x", "y", "z") or len(part) - len(name) > 1:
            raise TelemetryError(f"{part!r} names no axis: write x, y or z, or -x, -y or -z")
        rotation[row, "xyz".index(name)] = -1.0 if part.startswith("-") else 1.0
    if len(parts) != 3 or abs(np.linalg.det(rotation) - 1.0) > 1e-9:
        raise TelemetryError(
            f"{letters!r} is no rotation: name three different axes, right-handed, as y,-x,z"
        )
    return rotation


def upright_from_stored(clockwise_deg: int) -> np.ndarray:
    """(3, 3) rotation of camera axes if the picture is turned clockwise to be upright."""
    x, y = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise_deg % 360]
    return np.array([[x, -y, 0.0], [y, x, 0.0], [0.0, 0.0, 1.0]])


def joined(series: Iterable[Series], first_s: float, last_s: float) -> tuple[SampleTable, int]:
    """All samples between two times in one table, those of one moment in one row, and how many lie
    outside. A series may have several samples at one time: each has a row."""
    parts = list(series)
    keys, outside = [], 0
    inside: list[tuple[Series, np.ndarray]] = []
    for part in parts:
        is_inside = (part.times_s >= first_s) & (part.times_s <= last_s)
        outside += int((~is_inside).sum())
        order = np.flatnonzero(is_inside)
        order = order[np.argsort(part.times_s[order], kind="stable")]
        ticks = np.round(part.times_s[order] * _TICKS_A_SECOND).astype(np.int64)
        keys.append(np.stack([ticks, _occurrence(ticks)], axis=1))
        inside.append((part, order))
    if not keys:
        return SampleTable(np.empty(0), {n: _empty(n, 0) for n in (*VECTORS, *SCALARS)}), 0
    unique, place = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    place = place.reshape(-1)
    values = {name: _empty(name, len(unique)) for name in (*VECTORS, *SCALARS)}
    at = 0
    for part, order in inside:
        mine = place[at : at + len(order)]
        at += len(order)
        for name, column in part.values.items():
            known = is_known(column[order])
            values[name][mine[known]] = column[order][known]
    return SampleTable(unique[:, 0] / _TICKS_A_SECOND, values), outside


def is_known(column: np.ndarray) -> np.ndarray:
    """(N,) whether there is a value, of numbers (N,) or vectors (N, 3)."""
    finite: np.ndarray = np.isfinite(column)
    return finite if finite.ndim == 1 else np.asarray(finite.all(axis=1))


def _occurrence(sorted_ticks: np.ndarray) -> np.ndarray:
    """(N,) how many equal ones come before each."""
    count = np.arange(len(sorted_ticks))
    is_first = np.diff(sorted_ticks, prepend=sorted_ticks[:1] - 1) != 0
    before: np.ndarray = count - np.maximum.accumulate(np.where(is_first, count, 0))
    return before


def _empty(name: str, count: int) -> np.ndarray:
    return np.full((count, 3) if name in VECTORS else count, np.nan)
