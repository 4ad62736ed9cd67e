"""Telemetry in an MCAP file beside a video: IMU and positions, as robots record them.

Read are `sensor_msgs/Imu` and `sensor_msgs/NavSatFix` (ROS 2's CDR, or JSON), and
`foxglove.LocationFix` (JSON, or Protobuf). Times are those of the messages' headers, else of the
log. Below 10^15 ns they count from the first picture; others are absolute, and need a metadata
record `telemetry` with `video_start_ns`. Vectors count as the camera's if `frame_id` ends in
`optical_frame`, which is ROS's name (REP 103) for x right, y down, z forward.

The container is read by the library `mcap`, with bounded records; chunks are unpacked here, for
what they say of their size is not to be trusted.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ego_assets.telemetry.samples import GPS, SourceTelemetry, TelemetryError
from resources.raw.plain_files import open_regular

MAX_RECORD_BYTES = 64 * 2**20
MAX_MESSAGE_BYTES = 2**20
RELATIVE_NS = 10**15
METADATA, START = "telemetry", "video_start_ns"
_IMU = ("sensor_msgs/msg/Imu", "sensor_msgs/Imu")
_FIX = ("sensor_msgs/msg/NavSatFix", "sensor_msgs/NavSatFix")
_LOCATION = ("foxglove.LocationFix",)
_CDR_IMU = struct.Struct("<4d9d3d9d3d9d")


@dataclass
class _Messages:
    """What was read so far. start_ns: when the first picture was taken; frames: `frame_id`s of the
    IMU messages."""

    start_ns: int | None = None
    imu: list[tuple[float, ...]] = field(default_factory=list)
    places: list[tuple[float, ...]] = field(default_factory=list)
    frames: set[str] = field(default_factory=set)


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
        try:
            for schema, encoding, log_ns, data in _messages(file, found, source):
                try:
                    _add_message(found, schema, encoding, log_ns, data)
                except TelemetryError as error:
                    source.faults.add(f"message at {log_ns} ns: {error}")
                if len(found.imu) + len(found.places) >= max_samples:
                    source.faults.add(f"over {max_samples} samples (max_samples)")
                    break
        except OSError:
            raise
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
    for outer in reader.records:
        for record in _unpacked(outer):
            if isinstance(record, Schema):
                schemas[record.id] = record.name
            elif isinstance(record, Channel):
                name = schemas.get(record.schema_id, "")
                channels[record.id] = name, record.message_encoding
            elif isinstance(record, Metadata) and record.name == METADATA:
                found.start_ns = _whole(record.metadata.get(START), source)
            elif isinstance(record, Message):
                name, encoding = channels.get(record.channel_id, ("", ""))
                if name in wanted and len(record.data) <= MAX_MESSAGE_BYTES:
                    yield name, encoding, record.log_time, record.data


def _unpacked(record: Any) -> list[Any]:
    """The records in a chunk, with bounded memory; else the record. Raises TelemetryError."""
    from mcap.records import Chunk
    from mcap.stream_reader import breakup_chunk

    if not isinstance(record, Chunk):
        return [record]
    if record.compression == "zstd":
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(record.data) as stream:
            data = stream.read(MAX_RECORD_BYTES + 1)
    elif record.compression == "lz4":
        import lz4.frame

        data = lz4.frame.LZ4FrameDecompressor().decompress(
            record.data, max_length=MAX_RECORD_BYTES + 1
        )
    elif not record.compression:
        data = record.data
    else:
        raise TelemetryError("a chunk that is packed otherwise than by zstd or lz4")
    if len(data) > MAX_RECORD_BYTES:
        raise TelemetryError(f"a chunk of over {MAX_RECORD_BYTES // 2**20} MiB")
    record.data, record.compression = data, ""
    return breakup_chunk(record)


def _whole(text: str | None, source: SourceTelemetry) -> int | None:
    if text is not None and text.isascii() and text.isdigit() and len(text) < 20:
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
    at_ns = _time_ns(said) or log_ns
    if schema in _IMU:
        frame = _mapping(said, "header").get("frame_id", "")
        found.frames.add(frame if isinstance(frame, str) else "")
        vectors = (_mapping(said, n) for n in ("linear_acceleration", "angular_velocity"))
        numbers = [_float(v.get(axis)) for v in vectors for axis in "xyz"]
        # ROS: -1 as the first of the covariance says that there is no such measurement.
        for at, name in ((0, "linear_acceleration"), (3, "angular_velocity")):
            if _first(said.get(f"{name}_covariance")) == -1.0:
                numbers[at : at + 3] = [math.nan] * 3
        found.imu.append((at_ns, *numbers))
        return
    status = _float(_mapping(said, "status").get("status", 0))
    if status < 0:  # no fix
        return
    covariance = said.get("position_covariance")
    variance = _first(covariance) if said.get("position_covariance_type") else math.nan
    accuracy = math.sqrt(variance) if variance > 0 else math.nan
    names = ("latitude", "longitude", "altitude")
    found.places.append((at_ns, *(_float(said.get(n)) for n in names), accuracy))


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


def _time_ns(said: Mapping[str, Any]) -> int:
    """Of a header's stamp, or Foxglove's timestamp; 0 if there is none."""
    stamp = _mapping(said, "timestamp") or _mapping(_mapping(said, "header"), "stamp")
    seconds = stamp.get("sec", stamp.get("secs", 0))
    part = stamp.get("nanosec", stamp.get("nsec", stamp.get("nsecs", 0)))
    is_whole = all(isinstance(n, int) and 0 <= n < 2**40 for n in (seconds, part))
    return seconds * 10**9 + part if is_whole else 0


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
    return {
        "timestamp": {"sec": fix.timestamp.seconds, "nsec": fix.timestamp.nanos},
        "latitude": fix.latitude,
        "longitude": fix.longitude,
        "altitude": fix.altitude,
        "position_covariance": list(fix.position_covariance),
        "position_covariance_type": int(fix.position_covariance_type),
    }


def _into(source: SourceTelemetry, found: _Messages) -> None:
    imu = np.array(found.imu, np.float64).reshape(-1, 7)
    places = np.array(found.places, np.float64).reshape(-1, 5)
    is_absolute = any((rows[:, 0] >= RELATIVE_NS).any() for rows in (imu, places))
    if is_absolute and found.start_ns is None:
        source.faults.add(
            "its times are absolute, and nothing says when the video starts: write a metadata "
            f"record {METADATA!r} with {START!r}"
        )
        return
    if found.frames and all(f.endswith("optical_frame") for f in found.frames):
        source.axes = "camera"
    start = found.start_ns or 0 if is_absolute else 0
    times = np.array([row[0] - start for row in found.imu], np.float64) * 1e-9
    source.add(times, accel_mps2=imu[:, 1:4], gyro_radps=imu[:, 4:7])
    times = np.array([row[0] - start for row in found.places], np.float64) * 1e-9
    columns = (*places[:, 1:4].T, np.full(len(places), np.nan), places[:, 4])
    source.add(times, **dict(zip(GPS, columns, strict=False)))
