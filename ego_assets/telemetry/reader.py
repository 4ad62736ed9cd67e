"""Reads the telemetry of a video: in its file, and beside it.

Here: the operator of the stage. Telemetry is never needed: a video without any has no rows, and
what is damaged is told in `telemetry_sources` while the rest goes on. Not here: formats
(`formats`), what is made of it (`gravity`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ego_assets.operator import ClipOutput
from ego_assets.telemetry.formats.csv_sidecar import read_csv
from ego_assets.telemetry.formats.mcap_sidecar import read_mcap
from ego_assets.telemetry.formats.tracks import read_tracks
from ego_assets.telemetry.samples import (
    GPS,
    SCALARS,
    VECTORS,
    Faults,
    SampleTable,
    SourceTelemetry,
    camera_from_letters,
    is_known,
    joined,
    upright_from_stored,
)
from ego_assets.telemetry.settings import TelemetrySettings
from ego_assets.telemetry.tables import TelemetrySample
from resources.raw.plain_files import NotAFileError
from resources.raw.sidecars import MAX_BESIDE_BYTES

_KINDS = ("gpmd", "camm", "subtitle", "csv", "mcap")
_READERS = {".csv": read_csv, ".mcap": read_mcap}
_LIMITS = {
    "accel_mps2": (-1e4, 1e4),
    "gyro_radps": (-1e4, 1e4),
    "gps_latitude_deg": (-90.0, 90.0),
    "gps_longitude_deg": (-180.0, 180.0),
    "gps_altitude_m": (-1e5, 1e6),
    "gps_speed_mps": (0.0, 1e5),
    "gps_accuracy_m": (0.0, 1e7),
    "gps_dop": (0.0, 1e4),
    "exposure_s": (0.0, 1e5),
    "iso": (0.0, 1e8),
    "temperature_c": (-273.15, 1e4),
}
"""What is outside is damage."""


class TelemetryReader:
    """A video, and the files beside it → rows of `telemetry` and `telemetry_sources`."""

    name = "tracks"
    version = "2"
    quality_tier = "baseline"
    weights_hash = ""

    def __init__(self, settings: TelemetrySettings) -> None:
        self.settings = settings

    def process(
        self,
        video: Mapping[str, Any],
        path: Path,
        max_bytes_in_flight: int,
        beside: Mapping[str, Path | None],
    ) -> ClipOutput:
        """As `VideoOperator`. Raises BadInputError if the video does not open, OSError if it
        cannot be read."""
        found = self._read(video, path, beside)
        of = {"video_id": video["video_id"], "shard": video["shard"]}
        sources, tables = [], []
        for source in found:
            self._turn(source, video["rotation_deg"] or 0)
            end_s = (video["duration_s"] or 0.0) + self.settings.margin_s
            table, outside = joined(source.series, -self.settings.margin_s, end_s)
            _leave_out_impossible(table, source.faults)
            gps = self._gps(table)
            table = _with_values(table)
            sources.append(of | _source_row(source, table, outside, gps))
            tables.append(_batch(of, source, table))
        rows = pa.concat_tables(tables) if tables else TelemetrySample.arrow_schema().empty_table()
        return ClipOutput(tables={"telemetry": rows, "telemetry_sources": sources})

    def _read(
        self, video: Mapping[str, Any], path: Path, beside: Mapping[str, Path | None]
    ) -> list[SourceTelemetry]:
        found = read_tracks(path, video["start_pts_s"] or 0.0, self.settings.max_samples)
        for name, file in beside.items():
            suffix = Path(name).suffix.lower()
            if file is None:
                source = SourceTelemetry(suffix.removeprefix("."), name)
                limit = f"{MAX_BESIDE_BYTES // 2**20} MiB"
                source.faults.add(f"it is no plain file, or larger than {limit}: it was not read")
            else:
                source = self._read_beside(file, name, suffix)
            source.delay(self.settings.sidecar_offset_s)
            found.append(source)
        return _one_of_a_kind(found)

    def _read_beside(self, file: Path, name: str, suffix: str) -> SourceTelemetry:
        try:
            return _READERS[suffix](file, name, self.settings.max_samples)
        except NotAFileError as error:
            why = str(error)
        except PermissionError:
            why = "this user may not read it (permission denied)"
        source = SourceTelemetry(suffix.removeprefix("."), name)
        source.faults.add(why)
        return source

    def _turn(self, source: SourceTelemetry, clockwise_deg: int) -> None:
        """Turn a source's vectors into the camera's axes, as far as they are known."""
        if source.axes == "stored picture":
            source.turn(upright_from_stored(clockwise_deg))
        elif source.axes == "sensor" and self.settings.camera_from_sensor is not None:
            source.turn(camera_from_letters(self.settings.camera_from_sensor))

    def _gps(self, table: SampleTable) -> str:
        has_any = bool(np.isfinite(table.values["gps_latitude_deg"]).any())
        if not has_any or self.settings.gps == "keep":
            return "kept" if has_any else "none"
        for name in GPS:
            table.values[name][:] = np.nan
        return "left out"


def _one_of_a_kind(found: list[SourceTelemetry]) -> list[SourceTelemetry]:
    """Several tracks of one kind are one source, if their axes are known alike."""
    kinds: dict[str, list[SourceTelemetry]] = {}
    for source in found:
        kinds.setdefault(source.kind, []).append(source)
    return [_merged(kinds[kind]) for kind in _KINDS if kind in kinds]


def _merged(sources: list[SourceTelemetry]) -> SourceTelemetry:
    """The first source with what is in the others. Of what several measure, as of two IMUs, that
    with the most samples is taken: samples of one moment cannot share a row."""
    first, *others = sources
    taken = [first]
    for source in others:
        first.faults.extend(source.faults)
        if first.axes != source.axes and any(v in s.values for s in source.series for v in VECTORS):
            first.faults.add(f"{source.place} has other axes than {first.place}: it was left out")
        else:
            taken.append(source)
    for names in (GPS, *((n,) for n in (*VECTORS, *SCALARS) if n not in GPS)):
        measuring = [s for s in taken if s.count(names[0])]
        best = max(measuring, key=lambda s: s.count(names[0]), default=first)
        for source in measuring:
            if source is not best:
                words = f"{source.place} measures {names[0]}, too: that of {best.place} is taken"
                first.faults.add(words)
                source.leave_out(names)
    for source in taken[1:]:
        first.series += source.series
        first.place += f", {source.place}"
    return first


def _leave_out_impossible(table: SampleTable, faults: Faults) -> None:
    for name, (low, high) in _LIMITS.items():
        values = table.values[name]
        with np.errstate(invalid="ignore"):
            is_bad = (values < low) | (values > high)
        if is_bad.any():
            rows = is_bad if is_bad.ndim == 1 else is_bad.any(axis=1)
            at = table.times_s[np.argmax(rows)]
            faults.add(f"{int(rows.sum())} impossible values of {name}, the first at {at:.2f} s")
            values[rows] = np.nan
    lost = np.isnan(table.values["gps_latitude_deg"]) | np.isnan(table.values["gps_longitude_deg"])
    for name in GPS:
        table.values[name][lost] = np.nan


def _with_values(table: SampleTable) -> SampleTable:
    """The rows in which anything is left."""
    has_any = np.zeros(len(table.times_s), bool)
    for column in table.values.values():
        has_any |= is_known(column)
    return _cut(table, has_any)


def _cut(table: SampleTable, which: np.ndarray) -> SampleTable:
    return SampleTable(table.times_s[which], {n: v[which] for n, v in table.values.items()})


def _source_row(
    source: SourceTelemetry, table: SampleTable, outside: int, gps: str
) -> dict[str, Any]:
    times = table.times_s
    return {
        "source": source.kind,
        "place": source.place,
        "device": source.device,
        "axes": "camera" if source.axes == "camera" else "sensor",
        "sample_count": len(times),
        "outside_count": outside,
        "first_pts_s": float(times[0]) if len(times) else None,
        "last_pts_s": float(times[-1]) if len(times) else None,
        "accel_rate_hz": _rate(times, table.values["accel_mps2"]),
        "gyro_rate_hz": _rate(times, table.values["gyro_radps"]),
        "gps": gps,
        "fault_count": source.faults.count,
        "faults": source.faults.sentences,
    }


def _rate(times: np.ndarray, vectors: np.ndarray) -> float | None:
    mine = times[np.isfinite(vectors).all(axis=1)]
    length = float(mine[-1] - mine[0]) if len(mine) > 1 else 0.0
    return (len(mine) - 1) / length if length > 0 else None


def _batch(of: Mapping[str, str], source: SourceTelemetry, table: SampleTable) -> pa.Table:
    schema, count = TelemetrySample.arrow_schema(), len(table.times_s)
    prefix = "" if source.axes == "camera" else "sensor_"
    vectors = {f"{prefix}{name}": table.values[name] for name in VECTORS}
    columns: dict[str, pa.Array] = {}
    for name in schema.names:
        kind = schema.field(name).type
        if name in SCALARS:
            columns[name] = pa.array(table.values[name], kind, mask=np.isnan(table.values[name]))
        elif name in vectors:
            columns[name] = _vectors(vectors[name])
        else:
            columns[name] = pa.nulls(count, kind)
    constants = {**of, "source": source.kind}
    columns |= {name: pa.array([value] * count, pa.string()) for name, value in constants.items()}
    columns["sample_index"] = pa.array(np.arange(count, dtype=np.int32))
    columns["pts_s"] = pa.array(table.times_s)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _vectors(values: np.ndarray) -> pa.Array:
    """(N, 3) numbers as a column; null where any is NaN."""
    missing = np.isnan(values).any(axis=1)
    flat = pa.array(np.where(missing[:, None], 0.0, values).astype(np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, 3, mask=pa.array(missing))
