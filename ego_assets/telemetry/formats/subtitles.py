"""Telemetry that is written into subtitles, as cameras of DJI do: text with GPS and exposure.

Known forms: `[iso: 100] [shutter: 1/640.0] [latitude: 47.1] [longitude: 8.2] [rel_alt: 1.3
abs_alt: 490.2]`, also with `longtitude` and one `altitude`; and `SS 320, ISO 100, GPS (8.2, 47.1,
19)`, where longitude comes first and the third number counts satellites. Text without any of that
is a subtitle like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from ego_assets.telemetry.samples import GPS, SCALARS, SourceTelemetry

MAX_TEXT = 4096
"""Characters of one subtitle that are looked at."""
_NUMBER = r"([+-]?\d{1,12}(?:\.\d{1,12})?)"
_MAX_EXPOSURE_S = 60.0
_FIELDS = {
    "gps_latitude_deg": re.compile(rf"\blatitude\s*:\s*{_NUMBER}", re.I),
    "gps_longitude_deg": re.compile(rf"\blongt?itude\s*:\s*{_NUMBER}", re.I),
    "gps_altitude_m": re.compile(rf"\b(?:abs_alt|altitude)\s*:\s*{_NUMBER}", re.I),
    "iso": re.compile(rf"\biso\s*:?\s*{_NUMBER}", re.I),
}
_PAIR = re.compile(rf"\bGPS\s*\(\s*{_NUMBER}\s*,\s*{_NUMBER}", re.I)
_SHUTTER = re.compile(rf"\bshutter\s*:\s*(?:1\s*/\s*)?{_NUMBER}(?:\s*(s\b|\"))?", re.I)
_SPEED_OF_SHUTTER = re.compile(rf"\bSS\s+(?:1\s*/\s*)?{_NUMBER}")
_SPEED = re.compile(rf"\bH\.S\s+{_NUMBER}\s*m/s", re.I)


def read_text(text: str) -> dict[str, float]:
    """What one subtitle says, by column; empty if it is none of a camera."""
    text = text[:MAX_TEXT]
    found = {n: float(m[1]) for n, field in _FIELDS.items() if (m := field.search(text))}
    if (pair := _PAIR.search(text)) is not None:
        found["gps_longitude_deg"], found["gps_latitude_deg"] = float(pair[1]), float(pair[2])
    if (speed := _SPEED.search(text)) is not None:
        found["gps_speed_mps"] = float(speed[1])
    has_place = "gps_latitude_deg" in found and "gps_longitude_deg" in found
    if (exposure := _exposure_s(text, is_of_camera=has_place or "iso" in found)) is not None:
        found["exposure_s"] = exposure
    if not has_place or found["gps_latitude_deg"] == 0 == found["gps_longitude_deg"]:
        found = {name: value for name, value in found.items() if name not in GPS}
    # "ISO" alone may be a word of a film.
    return found if has_place or "exposure_s" in found else {}


def _exposure_s(text: str, *, is_of_camera: bool) -> float | None:
    """Of 1/60, and of 60 without a unit, the sixtieth of a second. `SS` may be a word of a film."""
    if (found := _SHUTTER.search(text)) is not None:
        number = float(found[1])
        is_whole = found[2] is None and "." not in found[1] and number > 1
        is_share = "/" in found[0] or is_whole
    elif is_of_camera and (found := _SPEED_OF_SHUTTER.search(text)) is not None:
        number, is_share = float(found[1]), True
    else:
        return None
    seconds = 1.0 / number if is_share and number > 0 else number
    return seconds if 0 < seconds <= _MAX_EXPOSURE_S else None


def text_of(codec: str, data: bytes) -> str:
    """The words of a packet. Never raises."""
    if codec == "mov_text":  # a length, then the text, then boxes
        data = data[2 : 2 + int.from_bytes(data[:2], "big")]
    return data.decode("utf-8", "replace")


def samples_into(source: SourceTelemetry, rows: Iterable[tuple[float, dict[str, float]]]) -> None:
    """Add (time, columns) of subtitles to a source."""
    rows = list(rows)
    if rows:
        values = {n: np.array([row.get(n, np.nan) for _, row in rows]) for n in SCALARS}
        source.add(np.array([time for time, _ in rows], np.float64), **values)
