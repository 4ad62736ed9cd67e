"""Telemetry in an MCAP file beside a video: IMU and positions, as robots record them.

Read are `sensor_msgs/Imu` and `sensor_msgs/NavSatFix` (ROS 2's CDR, or JSON), and
`foxglove.LocationFix` (JSON, or Protobuf). Times of the IMU, and of positions, are those of their
messages' headers if any of these is not 0, else of the log. Below 10^15 ns they count from the
first picture; others are absolute, and need a metadata record `telemetry` with `video_start_ns`.
Vectors count as the camera's if `frame_id` ends in `optical_frame`, which is ROS's name (REP 103)
for x right, y down, z forward.

Not here: the container (`mcap_records`).
"""

from __future__ import annotations

import json
import math
import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.telemetry.formats.mcap_records import (
    MAX_MESSAGE_BYTES,
    MAX_RECORD_BYTES,
    Budget,
    metadata_by_summary,
    unpacked,
)
from ego_assets.telemetry.samples import GPS, Faults, SourceTelemetry, TelemetryError
from resources.raw.plain_files import open_regular

RELATIVE_NS = 10**15
METADATA, START = "telemetry", "video_start_ns"
_IMU = ("sensor_msgs/msg/Imu", "sensor_msgs/Imu")
_FIX = ("sensor_msgs/msg/NavSatFix", "sensor_msgs/NavSatFix")
_LOCATION = ("foxglove.LocationFix",)
_MAX_NS = 2**63 - 1
_CDR_IMU = struct.Struct("<4d9d3d9d3d9d")


@dataclass
class _Samples:
    """Of one kind of message. stamps_ns: of the headers (N,), -1 where there is none; logs_ns: of
    the log (N,); values: of N rows, one after the other."""

    stamps_ns: array[int] = field(default_factory=lambda: array("q"))
    logs_ns: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, stamp_ns: int | None, log_ns: int, *values: float) -> None:
        self.stamps_ns.append(-1 if stamp_ns is None else stamp_ns)
        self.logs_ns.append(log_ns)
        self.values.extend(values)

    def at_ns(self, faults: Faults) -> tuple[np.ndarray, np.ndarray]:
        """(times (N,), which of them are there (N,)): all of headers, or all of the log."""
        stamps = np.array(self.stamps_ns, np.int64)
        if not (stamps > 0).any():
            return np.array(self.logs_ns, np.int64), np.ones(len(stamps), bool)
        if lost := int((stamps < 0).sum()):
            faults.add(f"{lost} messages have no time, and others have: they were left out")
        return stamps, stamps >= 0


@dataclass
class _Messages:
    """What was read so far. start_ns: when the first picture was taken; is_camera: whether the
    axes of all IMU messages are the camera's."""

    start_ns: int | None = None
    imu: _Samples = field(default_factory=_Samples)
    places: _Samples = field(default_factory=_Samples)
    is_camera: bool | None = None

    @property
    def count(self) -> int:
        return len(self.imu.logs_ns) + len(self.places.logs_ns)


def read_mcap(path: Path, place: str, max_samples: int = 2**31) -> SourceTelemetry:
    """What a file says; what is wrong with it is told by the source's faults. max_samples: where
    reading ends. Raises OSError."""
    source = SourceTelemetry("mcap", place)
    try:
        import mcap  # noqa: F401
    except ImportError:
        source.faults.add("the library mcap is not installed: pip install 'ego-assets[mcap]'")
        return source
    found = _Messages()
    with open_regular(path) as file:
        if (said := metadata_by_summary(file, METADATA)) is not None:
            found.start_ns = _whole(said.get(START), source)
        file.seek(0)
        try:
            for schema, encoding, log_ns, data in _messages(file, found, source):
                try:
                    _add_message(found, schema, encoding, log_ns, data)
                except TelemetryError as error:
                    source.faults.add(f"message at {log_ns} ns: {error}")
                if found.count >= max_samples:
                    source.faults.add(f"over {max_samples} samples (max_samples)")
                    break
        except OSError:
            raise
        except TelemetryError as error:
            source.faults.add(f"{error}: what comes after was not read")
        except Exception as error:  # the library raises whatever damage leads to
            source.faults.add(f"it is damaged ({type(error).__name__}): what comes after was lost")
    _into(source, found)
    return source


def _messages(
    file: Any, found: _Messages, source: SourceTelemetry
) -> Iterator[tuple[str, str, int, bytes]]:
    """(schema, encoding, log time, bytes) of the messages that are looked at."""
    from mcap.records import Channel, Message, Metadata, Schema
    from mcap.stream_reader import StreamReader

    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    wanted = {*_IMU, *_FIX, *_LOCATION}
    reader = StreamReader(file, emit_chunks=True, record_size_limit=MAX_RECORD_BYTES)
    budget = Budget()
    for outer in reader.records:
        for record in unpacked(outer, budget):
            if isinstance(record, Schema):
                schemas[record.id] = record.name
            elif isinstance(record, Channel):
                name = schemas.get(record.schema_id, "")
                channels[record.id] = name, record.message_encoding
            elif isinstance(record, Metadata) and record.name == METADATA:
                if found.start_ns is None:
                    found.start_ns = _whole(record.metadata.get(START), source)
            elif isinstance(record, Message):
                name, encoding = channels.get(record.channel_id, ("", ""))
                if name in wanted and len(record.data) <= MAX_MESSAGE_BYTES:
                    yield name, encoding, record.log_time, record.data


def _whole(text: str | None, source: SourceTelemetry) -> int | None:
    if (
        text is not None
        and text.isascii()
        and text.isdigit()
        and len(text) < 20
        and int(text) <= _MAX_NS
    ):
        return int(text)
    source.faults.add(f"its metadata {METADATA} has no whole number {START}")
    return None


def _add_message(found: _Messages, schema: str, encoding: str, log_ns: int, data: bytes) -> None:
    """Raises TelemetryError for a message that is not what its schema says."""
    if encoding == "json":
        said = _json(data)
    elif encoding == "cdr" and schema in _IMU:
        said = _cdr_imu(data)
    elif encoding == "cdr" and schema in _FIX:
        said = _cdr_fix(data)
    elif encoding == "protobuf" and schema in _LOCATION:
        said = _protobuf(data)
    else:
        raise TelemetryError(f"{schema} in an encoding that is not read")
    stamp_ns = _time_ns(said)
    if log_ns > _MAX_NS:
        raise TelemetryError("its log time is beyond all times")
    if schema in _IMU:
        frame = _mapping(said, "header").get("frame_id", "")
        is_camera = isinstance(frame, str) and frame.endswith("optical_frame")
        found.is_camera = is_camera and found.is_camera is not False
        vectors = (_mapping(said, n) for n in ("linear_acceleration", "angular_velocity"))
        numbers = [_float(v.get(axis)) for v in vectors for axis in "xyz"]
        # ROS: -1 as the first of the covariance says that there is no such measurement.
        for at, name in ((0, "linear_acceleration"), (3, "angular_velocity")):
            if _first(said.get(f"{name}_covariance")) == -1.0:
                numbers[at : at + 3] = [math.nan] * 3
        found.imu.add(stamp_ns, log_ns, *numbers)
        return
    status = _float(_mapping(said, "status").get("status", 0))
    if status < 0:  # no fix
        return
    covariance = said.get("position_covariance")
    variance = _first(covariance) if said.get("position_covariance_type") else math.nan
    accuracy = math.sqrt(variance) if variance > 0 else math.nan
    names = ("latitude", "longitude", "altitude")
    found.places.add(stamp_ns, log_ns, *(_float(said.get(n)) for n in names), accuracy)


def _json(data: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        raise TelemetryError("it is no JSON") from None
    if not isinstance(said, dict):
        raise TelemetryError("it is no object of JSON")
    return said


def _mapping(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = said.get(name, {})
    return found if isinstance(found, dict) else {}


def _float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _first(values: object) -> float:
    return _float(values[0]) if isinstance(values, list | tuple) and values else math.nan


def _time_ns(said: Mapping[str, Any]) -> int | None:
    """Of a header's stamp, or Foxglove's timestamp; None if there is none."""
    stamp = _mapping(said, "timestamp") or _mapping(_mapping(said, "header"), "stamp")
    seconds = stamp.get("sec", stamp.get("secs"))
    part = stamp.get("nanosec", stamp.get("nsec", stamp.get("nsecs", 0)))
    if not all(isinstance(n, int) and n >= 0 for n in (seconds, part)):
        return None
    at_ns = int(seconds) * 10**9 + int(part)
    return at_ns if at_ns <= _MAX_NS else None


def _cdr_header(data: bytes) -> tuple[dict[str, Any], int]:
    """(header, where the body begins, aligned to 8 bytes) of a message in little-endian CDR."""
    if len(data) < 16 or data[:2] not in (b"\0\1",):
        raise TelemetryError("it is no little-endian CDR")
    seconds, part, length = struct.unpack_from("<iII", data, 4)
    if length > len(data) - 16:
        raise TelemetryError(f"a frame_id of {length} bytes, and {len(data) - 16} are left")
    frame = data[16 : 16 + length].rstrip(b"\0").decode("utf-8", "replace")
    return {"stamp": {"sec": seconds, "nanosec": part}, "frame_id": frame}, 16 + length


def _cdr_imu(data: bytes) -> Mapping[str, Any]:
    header, at = _cdr_header(data)
    at = 4 + -(-(at - 4) // 8) * 8  # alignment counts from behind the encapsulation
    if len(data) < at + _CDR_IMU.size:
        raise TelemetryError(f"an Imu of {len(data)} bytes")
    n = _CDR_IMU.unpack_from(data, at)
    return {
        "header": header,
        "angular_velocity": dict(zip("xyz", n[13:16], strict=True)),
        "angular_velocity_covariance": n[16:25],
        "linear_acceleration": dict(zip("xyz", n[25:28], strict=True)),
        "linear_acceleration_covariance": n[28:37],
    }


def _cdr_fix(data: bytes) -> Mapping[str, Any]:
    header, at = _cdr_header(data)
    service = 4 + -(-(at - 4 + 1) // 2) * 2
    body = 4 + -(-(service + 2 - 4) // 8) * 8
    if len(data) < body + 12 * 8 + 1:
        raise TelemetryError(f"a NavSatFix of {len(data)} bytes")
    status = struct.unpack_from("<b", data, at)[0]
    n = struct.unpack_from("<12d", data, body)
    return {
        "header": header,
        "status": {"status": status},
        **dict(zip(("latitude", "longitude", "altitude"), n[:3], strict=True)),
        "position_covariance": n[3:],
        "position_covariance_type": data[body + 96],
    }


def _protobuf(data: bytes) -> Mapping[str, Any]:
    from foxglove_schemas_protobuf.LocationFix_pb2 import LocationFix
    from google.protobuf.message import DecodeError

    try:
        fix = LocationFix.FromString(data)
    except DecodeError as error:
        raise TelemetryError("it is no foxglove.LocationFix") from error
    at = {"sec": fix.timestamp.seconds, "nsec": fix.timestamp.nanos}
    return {
        "timestamp": at if fix.HasField("timestamp") else {},
        "latitude": fix.latitude,
        "longitude": fix.longitude,
        "altitude": fix.altitude,
        "position_covariance": list(fix.position_covariance),
        "position_covariance_type": int(fix.position_covariance_type),
    }


def _into(source: SourceTelemetry, found: _Messages) -> None:
    if found.is_camera:
        source.axes = "camera"
    imu = np.array(found.imu.values).reshape(-1, 6)
    columns = np.array(found.places.values).reshape(-1, 4)
    places = (*columns[:, :3].T, np.full(len(columns), np.nan), columns[:, 3])
    series = (
        (found.imu, {"accel_mps2": imu[:, :3], "gyro_radps": imu[:, 3:]}),
        (found.places, dict(zip(GPS, places, strict=False))),
    )
    needs_start = False
    for samples, values in series:
        at_ns, is_there = samples.at_ns(source.faults)
        # Of most: one that is damaged moves no other.
        is_absolute = bool(is_there.any()) and np.median(at_ns[is_there]) >= RELATIVE_NS
        if is_absolute and found.start_ns is None:
            needs_start = True
            continue
        times = (at_ns - (found.start_ns or 0 if is_absolute else 0)) * 1e-9
        source.add(np.where(is_there, times, np.nan), **values)
    if needs_start:
        source.faults.add(
            "its times are absolute, and nothing says when the video starts: write a metadata "
            f"record {METADATA!r} with {START!r}"
        )
