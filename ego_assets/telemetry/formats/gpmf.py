"""GPMF, the telemetry of GoPro cameras: key, type, size, repeat, value, nested.

Written by the specification at https://github.com/gopro/gpmf-parser (README.md). A payload is
hostile input: every length is held against what is there before anything is made of it, nesting is
bounded, and nothing but TelemetryError is raised.

Axes: ORIN names the axis that each channel is of, lower case for its opposite. The axes themselves
are those of the specification's figure "IMU Orientation": X to the left of the picture, Y towards
whoever looks at the camera's screen, Z up. HERO5 has no ORIN; its README and the names of its
streams say Z, X, Y. For HERO6 the two contradict each other, so its axes count as unknown.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ego_assets.telemetry.samples import TelemetryError

MAX_DEPTH = 8
MAX_PAYLOAD_BYTES = 16 * 2**20
_HEADER = struct.Struct(">4sBBH")
_NUMBERS = {
    "b": ">i1",
    "B": ">u1",
    "s": ">i2",
    "S": ">u2",
    "l": ">i4",
    "L": ">u4",
    "j": ">i8",
    "J": ">u8",
    "f": ">f4",
    "d": ">f8",
    "q": ">i4",
    "Q": ">i8",
}
_FIXED_POINT = {"q": 2.0**-16, "Q": 2.0**-32}
_MAX_FIELDS = 256
_MAX_CHANNELS = 9
"""As many as GPS9 has; what a damaged file has more is not kept."""
_CAMERA_AXES = {"X": (0, -1.0), "Y": (2, -1.0), "Z": (1, -1.0)}
"""{GoPro's axis: (the camera's axis along it, x, y or z; its sign)}."""
_OF_HERO5 = "ZXY"
MAX_TEXT = 80
"""Bytes of a text that are looked at."""
_STREAMS = (b"ACCL", b"GYRO", b"GPS5", b"GPS9", b"SHUT", b"ISOE", b"ISOG")
_KEYS = {*_STREAMS, b"DEVC", b"STRM", b"DVNM", b"SCAL", b"TYPE", b"STNM", b"ORIN", b"TMPC"}
_KEYS |= {b"GPSF", b"GPSP"}


@dataclass(frozen=True)
class Item:
    """One key with its value. code: of its type, empty for a nest; size: bytes of one structure."""

    key: bytes
    code: str
    size: int
    repeat: int
    data: memoryview


@dataclass
class SensorStream:
    """One stream of a payload. values: (N, channels), scaled; axes: letters of its channels, as
    ORIN has them, or None; about: GPSF, GPSP, TMPC of the stream, if it says them."""

    key: str
    values: np.ndarray
    axes: str | None = None
    about: dict[str, float] = field(default_factory=dict)


@dataclass
class Payload:
    """What a payload holds of what we look for. fault: why it was not read to its end."""

    device: str | None = None
    streams: list[SensorStream] = field(default_factory=list)
    fault: str | None = None


def read_payload(data: bytes) -> Payload:
    """The streams of a payload, as far as it is whole. Never raises for what is in it."""
    found = Payload()
    try:
        if len(data) > MAX_PAYLOAD_BYTES:
            raise TelemetryError(f"a payload of {len(data)} bytes")
        for item in items(memoryview(data)):
            if item.key == b"DEVC" and not item.code:
                _read_device(item, found)
    except TelemetryError as error:
        found.fault = str(error)
    return found


def items(data: memoryview, depth: int = 0) -> Iterator[Item]:
    """The items of a nest, one after the other. Raises TelemetryError where it is damaged."""
    if depth > MAX_DEPTH:
        raise TelemetryError(f"nests in nests, {depth} deep")
    at = 0
    while at + _HEADER.size <= len(data):
        key, code, size, repeat = _HEADER.unpack_from(data, at)
        if key == b"\0\0\0\0":  # the rest is padding
            return
        if not all(32 <= letter < 127 for letter in key):
            raise TelemetryError(f"no key at byte {at} of a nest")
        at += _HEADER.size
        length = size * repeat
        if length > len(data) - at:
            if not code:  # what is there of a nest is read
                yield Item(key, "", size, repeat, data[at:])
            words = f"says {length} bytes, and {len(data) - at} are left"
            raise TelemetryError(f"{_name(key)} {words}")
        yield Item(key, chr(code) if code else "", size, repeat, data[at : at + length])
        at += -(-length // 4) * 4


def _read_device(device: Item, found: Payload) -> None:
    name: str | None = None
    for item in items(device.data, 1):
        if item.key == b"DVNM":
            name = _text(item)
            found.device = found.device or name
        elif item.key == b"STRM" and not item.code:
            found.streams += _read_stream(item, name)


def _read_stream(stream: Item, device: str | None) -> Iterator[SensorStream]:
    scale, kinds, axes, name = np.ones(1), "", None, ""
    about: dict[str, float] = {}
    for item in items(stream.data, 2):
        if item.key == b"SCAL":
            scale = _numbers(item).reshape(-1)
        elif item.key == b"TYPE":
            kinds = _text(item)
        elif item.key == b"STNM":
            name = _text(item)
        elif item.key == b"ORIN":
            axes = _text(item)
        elif item.key in (b"GPSF", b"GPSP", b"TMPC"):
            values = _numbers(item).reshape(-1)
            if len(values):
                about[item.key.decode("ascii")] = float(values[0])
        elif item.key in _STREAMS and item.repeat:
            values = _complex(item, kinds) if item.code == "?" else _numbers(item)
            values = _scaled(item, values, scale)
            if axes is None and _is_hero5(device, name):
                axes = _OF_HERO5
            kept = values[:, :_MAX_CHANNELS].copy()
            yield SensorStream(item.key.decode("ascii"), kept, axes, about)


def _is_hero5(device: str | None, stream: str) -> bool:
    """HERO5 calls itself `Camera`, which later ones do no more."""
    is_named = device == "Camera" or (device or "").lower().replace(" ", "").startswith("hero5")
    return is_named and stream.lower().endswith(("(z,x,y)", "(up/down, right/left, forward/back)"))


def _numbers(item: Item) -> np.ndarray:
    """(repeat, channels) float64 values of an item of plain numbers."""
    kind = _NUMBERS.get(item.code)
    if kind is None:
        raise TelemetryError(f"{_name(item.key)} does not hold numbers")
    width = np.dtype(kind).itemsize
    if item.repeat and (not item.size or item.size % width):
        words = f"structures of {item.size} bytes do not hold whole numbers of {width}"
        raise TelemetryError(f"{_name(item.key)}: {words}")
    if not item.repeat:
        return np.empty((0, 1))
    with np.errstate(invalid="ignore"):  # damage may be a signalling NaN
        values = np.frombuffer(item.data, kind).astype(np.float64)
    return values.reshape(item.repeat, -1) * _FIXED_POINT.get(item.code, 1.0)


def _complex(item: Item, kinds: str) -> np.ndarray:
    """(repeat, fields) float64 values of structures that TYPE describes."""
    name, letters = _name(item.key), _expanded(kinds)
    if not letters or set(letters) - set(_NUMBERS):
        raise TelemetryError(f"{name}: its TYPE does not describe numbers")
    layout = np.dtype([(str(number), _NUMBERS[kind]) for number, kind in enumerate(letters)])
    if layout.itemsize != item.size:
        raise TelemetryError(f"{name}: its TYPE is {layout.itemsize} bytes long, not {item.size}")
    rows = np.frombuffer(item.data, layout)
    with np.errstate(invalid="ignore"):
        columns = [
            rows[str(number)].astype(np.float64) * _FIXED_POINT.get(kind, 1.0)
            for number, kind in enumerate(letters)
        ]
    return np.stack(columns, axis=1)


def _expanded(kinds: str) -> str:
    """`f[3]L` as `fffL`. Raises TelemetryError for more fields than any structure has."""
    found = ""
    for letter, count in re.findall(r"(.)(?:\[(\d{1,4})\])?", kinds):
        found += letter * (int(count) if count else 1)
        if len(found) > _MAX_FIELDS:
            raise TelemetryError(f"TYPE of over {_MAX_FIELDS} fields")
    return found


def _scaled(item: Item, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    name = _name(item.key)
    if len(scale) not in (1, values.shape[1]):
        raise TelemetryError(f"{name}: {len(scale)} scales for {values.shape[1]} channels")
    if not (np.isfinite(scale).all() and scale.all()):
        raise TelemetryError(f"{name}: a scale of 0, or that is no number")
    scaled: np.ndarray = values / scale
    return scaled


def _text(item: Item) -> str:
    text = bytes(item.data[:MAX_TEXT]).split(b"\0")[0].decode("latin-1")
    return "".join(c for c in text if c.isprintable()).strip()


def _name(key: bytes) -> str:
    """A key for a message, which must not quote what is in a file."""
    return key.decode("ascii") if key in _KEYS else "an item"


def stored_from_channels(letters: str | None) -> np.ndarray | None:
    """(3, 3) rotation of channels into the camera's axes (of the picture as stored), by the letters
    of ORIN; None if they are no three axes."""
    if letters is None or len(letters) != 3 or set(letters.upper()) != set("XYZ"):
        return None
    rotation = np.zeros((3, 3))
    for channel, letter in enumerate(letters):
        row, sign = _CAMERA_AXES[letter.upper()]
        rotation[row, channel] = sign if letter.isupper() else -sign
    return rotation if np.linalg.det(rotation) > 0 else None
