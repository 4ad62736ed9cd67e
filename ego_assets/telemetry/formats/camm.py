"""CAMM, camera motion metadata: small packets of one measurement each.

Written by the specification at https://developers.google.com/streetview/publish/camm-spec. Numbers
are little-endian. It leaves to applications how a sensor's axes lie to the camera's, so vectors of
CAMM are in the sensor's own axes.
"""

from __future__ import annotations

import struct
from array import array

import numpy as np

from ego_assets.telemetry.samples import GPS, SourceTelemetry, TelemetryError

_HEADER = struct.Struct("<HH")
_BODIES = {
    0: struct.Struct("<3f"),
    1: struct.Struct("<2i"),
    2: struct.Struct("<3f"),
    3: struct.Struct("<3f"),
    4: struct.Struct("<3f"),
    5: struct.Struct("<3d"),
    6: struct.Struct("<di2d7f"),
    7: struct.Struct("<3f"),
}
"""By type: orientation, exposure, gyroscope, accelerometer, position, short and long GPS,
magnetometer."""
_EXPOSURE, _GYRO, _ACCEL, _SHORT_GPS, _GPS = 1, 2, 3, 5, 6


def read_packet(data: bytes) -> tuple[int, tuple[float, ...]]:
    """(type, numbers) of a packet. Raises TelemetryError."""
    if len(data) < _HEADER.size:
        raise TelemetryError(f"a packet of {len(data)} bytes")
    reserved, kind = _HEADER.unpack_from(data)
    body = _BODIES.get(kind)
    if reserved or body is None:
        raise TelemetryError("no packet of CAMM")
    if len(data) != _HEADER.size + body.size:
        raise TelemetryError(f"type {kind} has {body.size} bytes, not {len(data) - _HEADER.size}")
    return kind, body.unpack_from(data, _HEADER.size)


def is_camm(data: bytes) -> bool:
    """Whether a packet is one of CAMM, by its exact length."""
    try:
        read_packet(data)
    except TelemetryError:
        return False
    return True


class CammTrack:
    """Collects the packets of a track."""

    def __init__(self) -> None:
        self._rows = {kind: array("d") for kind in _BODIES}

    def add(self, time_s: float, data: bytes) -> None:
        """Add a packet. Raises TelemetryError."""
        kind, numbers = read_packet(data)
        self._rows[kind].extend((time_s, *numbers))

    def into(self, source: SourceTelemetry) -> None:
        """Add what was collected to a source."""
        for kind, name in ((_ACCEL, "accel_mps2"), (_GYRO, "gyro_radps")):
            times, values = self._of(kind)
            source.add(times, **{name: values})
        times, values = self._of(_EXPOSURE)
        exposure = values[:, 0] * 1e-9
        source.add(times, exposure_s=np.where(exposure > 0, exposure, np.nan))
        times, values = self._of(_SHORT_GPS)
        source.add(times, **dict(zip(GPS[:3], values.T, strict=True)))
        times, values = self._of(_GPS)
        has_fix = values[:, 1] >= 2
        east, north = values[:, 7], values[:, 8]
        columns = (values[:, 2], values[:, 3], np.where(values[:, 1] >= 3, values[:, 4], np.nan))
        found = dict(zip(GPS, (*columns, np.hypot(east, north), values[:, 5]), strict=False))
        source.add(times[has_fix], **{name: column[has_fix] for name, column in found.items()})

    def _of(self, kind: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(self._rows[kind]).reshape(-1, 1 + _count(kind))
        return rows[:, 0], rows[:, 1:]


def _count(kind: int) -> int:
    return len(_BODIES[kind].unpack(bytes(_BODIES[kind].size)))
