"""Telemetry in a CSV file beside a video: documented names with units, a sample a line.

`time_s` counts from the first picture. `unix_time_s` is absolute, and needs a line before the
names that says when the first picture was taken: `# video_start_unix_s: 1764480000.25`. A line that
cannot be used is told by its number; the others count.
"""

from __future__ import annotations

import csv
import math
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ego_assets.telemetry.samples import SCALARS, VECTORS, SourceTelemetry, TelemetryError
from resources.raw.plain_files import open_regular

MAX_LINE = 4096
_TIMES = ("time_s", "unix_time_s")
_PARTS = {
    f"{name.split('_')[0]}_{axis}_{name.split('_')[1]}": (name, number)
    for name in VECTORS
    for number, axis in enumerate("xyz")
}
_NAMES = {**{n.removeprefix("gps_"): n for n in SCALARS}, **{n: n for n in SCALARS}}
_START = re.compile(r"#\s*video_start_unix_s\s*[:=]\s*([0-9.]{1,20})\s*$")
COLUMNS = (*_TIMES, *_PARTS, *(n.removeprefix("gps_") for n in SCALARS))
"""Names that a column may have; the vectors are in the camera's axes."""


def read_csv(path: Path, place: str, max_samples: int = 2**31) -> SourceTelemetry:
    """What a file says; what is wrong with it is told by the source's faults. max_samples: where
    reading ends. Raises OSError."""
    source = SourceTelemetry("csv", place, axes="camera")
    try:
        with open_regular(path) as file:
            _read(file, source, max_samples)
    except TelemetryError as error:
        source.faults.add(str(error))
    return source


def _read(file: IO[bytes], source: SourceTelemetry, max_samples: int) -> None:
    lines = _lines(file)
    start, (number, header) = _header(lines)
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().lower() for name in header.split(delimiter)]
    targets = _targets(names, start, source)
    columns = {name: array("d") for name, is_read in zip(names, targets, strict=True) if is_read}
    count = 0
    try:
        for number, line in lines:
            if not line.strip() or line.startswith("#"):
                continue
            try:
                fields = next(csv.reader([line], delimiter=delimiter), [])
                values = _numbers(fields, names, targets)
            except (TelemetryError, csv.Error) as error:
                source.faults.add(f"line {number}: {error}")
                continue
            if count == max_samples:
                raise TelemetryError(f"line {number}: over {max_samples} samples (max_samples)")
            count += 1
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    except TelemetryError as error:
        source.faults.add(f"{error}: what comes after was not read")
    _add(source, {name: np.asarray(column) for name, column in columns.items()}, start)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """(number, text) of each line. Raises TelemetryError for one that is too long."""
    number = 0
    while data := file.readline(MAX_LINE + 1):
        number += 1
        if len(data) > MAX_LINE:
            raise TelemetryError(f"line {number} is longer than {MAX_LINE} bytes")
        text = data.decode("utf-8-sig" if number == 1 else "utf-8", "replace")
        if "\0" in text:
            raise TelemetryError(f"line {number} has bytes of 0: this is no text")
        yield number, text.rstrip("\r\n")


def _header(lines: Iterator[tuple[int, str]]) -> tuple[float | None, tuple[int, str]]:
    """When the video starts, if a line before the names says it; and the line of names."""
    start = None
    for number, line in lines:
        if (found := _START.match(line)) is not None:
            try:
                start = float(found[1])
            except ValueError:
                raise TelemetryError(f"line {number}: video_start_unix_s is no time") from None
        elif line.strip() and not line.startswith("#"):
            return start, (number, line)
    raise TelemetryError("it has no line with the names of its columns")


def _targets(names: list[str], start: float | None, source: SourceTelemetry) -> list[bool]:
    """Which columns are read. Raises TelemetryError if the file cannot be used at all."""
    if len(set(names)) < len(names):
        twice = [str(at) for at, n in enumerate(names, 1) if names.count(n) > 1]
        raise TelemetryError(f"columns {', '.join(twice)} share a name")
    if "time_s" not in names and "unix_time_s" not in names:
        raise TelemetryError("no column of times: name it time_s or unix_time_s")
    if "time_s" not in names and start is None:
        raise TelemetryError(
            "its times are absolute, and nothing says when the video starts: write a line "
            "`# video_start_unix_s: 1764480000.25` before the names"
        )
    known = [name in _TIMES or name in _PARTS or name in _NAMES for name in names]
    if unknown := [str(at) for at, is_known in enumerate(known, 1) if not is_known]:
        source.faults.add(f"the names of columns {', '.join(unknown)} are not known: not read")
    return known


def _numbers(fields: list[str], names: list[str], targets: list[bool]) -> list[float]:
    if len(fields) != len(names):
        raise TelemetryError(f"{len(fields)} fields, and the first line names {len(names)}")
    return [
        _number(name, field.strip())
        for name, field, is_read in zip(names, fields, targets, strict=True)
        if is_read
    ]


def _number(name: str, field: str) -> float:
    if not field or field.lower() in ("nan", "null", "none"):
        return math.nan
    try:
        value = float(field)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):  # not quoted: it may be a part of a position
        raise TelemetryError(f"{name} is no number")
    return value


def _add(source: SourceTelemetry, of: dict[str, np.ndarray], start: float | None) -> None:
    times = of["time_s"] if "time_s" in of else of["unix_time_s"] - (start or 0.0)
    values = {_NAMES[n]: column for n, column in of.items() if n in _NAMES}
    for vector in VECTORS:
        parts = [n for n, (name, _) in _PARTS.items() if name == vector]
        if all(part in of for part in parts):
            values[vector] = np.stack([of[part] for part in parts], axis=1)
        elif any(part in of for part in parts):
            source.faults.add(f"{vector} needs all of {', '.join(parts)}")
    source.add(times, **values)
