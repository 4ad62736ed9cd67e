"""Writes telemetry by its specifications, and videos with it, so that the truth is known."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

GRAVITY = 9.81
MILLISECOND = Fraction(1, 1000)


# -- GPMF ----------------------------------------------------------------------------------------


def klv(key: str, code: str, size: int, repeat: int, data: bytes) -> bytes:
    """One item, padded to 32 bits."""
    head = struct.pack(">4sBBH", key.encode(), ord(code) if code else 0, size, repeat)
    return head + data + bytes(-len(data) % 4)


def nest(key: str, *items: bytes) -> bytes:
    data = b"".join(items)
    return klv(key, "", 1, len(data), data)


def text(key: str, words: str) -> bytes:
    return klv(key, "c", 1, len(words), words.encode("latin-1"))


def numbers(key: str, code: str, rows: Any) -> bytes:
    kind = {"s": ">i2", "S": ">u2", "l": ">i4", "L": ">u4", "f": ">f4", "J": ">u8"}[code]
    rows = np.asarray(rows)
    rows = rows.reshape(len(rows), -1)
    data = rows.astype(kind).tobytes()
    return klv(key, code, rows.shape[1] * np.dtype(kind).itemsize, len(rows), data)


def stream(key: str, values: np.ndarray, scale: int = 1, code: str = "s", *more: bytes) -> bytes:
    """A stream of values (N,) or (N, C) that are stored as whole numbers over a scale."""
    stored = np.asarray(values) * scale
    stored = stored if code == "f" else np.rint(stored)
    return nest("STRM", *more, numbers("SCAL", "s", [scale]), numbers(key, code, stored))


def device(*streams: bytes, name: str = "GoPro Max") -> bytes:
    return nest("DEVC", numbers("DVID", "L", [1]), text("DVNM", name), *streams)


# -- CAMM ----------------------------------------------------------------------------------------


def camm(kind: int, *values: float) -> bytes:
    body = {1: "<2i", 2: "<3f", 3: "<3f", 5: "<3d", 6: "<di2d7f"}[kind]
    return struct.pack("<HH", 0, kind) + struct.pack(body, *values)


# -- videos --------------------------------------------------------------------------------------


def write_video(
    path: Path,
    payloads: Sequence[tuple[float, float, bytes]] = (),
    *,
    tag: str = "gpmd",
    seconds: float = 2.0,
    rate: int = 30,
    late_s: float = 0.0,
    subtitles: Sequence[tuple[float, float, str]] = (),
    codec: str = "mpeg4",
) -> Path:
    """A video with a data track of (start, length, bytes), in seconds of the container.

    late_s: time stamp of the first picture; tag: of the data track in its sample description;
    subtitles: (start, length, words); codec: libx264 has B-frames, which need an edit list.
    """
    with av.open(str(path), "w", format="matroska" if path.suffix == ".mkv" else "mp4") as out:
        video = out.add_stream(codec, rate=rate)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track = out.add_data_stream("bin_data") if payloads else None
        words = None
        if subtitles:
            words = out.add_mux_stream("subrip" if path.suffix == ".mkv" else "mov_text")
        for index in range(round(seconds * rate)):
            picture = np.full((48, 64, 3), 60 + index % 120, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index + round(late_s * rate)
            frame.time_base = Fraction(1, rate)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for start, length, data in payloads:
            out.mux(_packet(track, start, length, data))
        for start, length, said in subtitles:
            data = said.encode()
            if path.suffix != ".mkv":
                data = struct.pack(">H", len(data)) + data
            out.mux(_packet(words, start, length, data))
    if payloads and tag != "gpmd":
        data = path.read_bytes()
        assert data.count(b"gpmd") >= 1
        path.write_bytes(data.replace(b"gpmd", tag.encode()))
    return path


def _packet(stream: Any, start: float, length: float, data: bytes) -> av.Packet:
    packet = av.Packet(data)
    packet.stream = stream
    packet.time_base = MILLISECOND
    packet.pts = packet.dts = round(start * 1000)
    packet.duration = round(length * 1000)
    packet.is_keyframe = True
    return packet


def manifest_row(path: Path, **changes: Any) -> dict[str, Any]:
    """The row of `video_manifest` that a video has."""
    from ego_assets.videos.inspection import FileInspector
    from ego_assets.videos.settings import ManifestSettings

    sha256, size, columns = FileInspector(ManifestSettings()).inspect(path)
    assert columns["accepted"], columns["reject_detail"]
    of = {"video_id": sha256[:16], "shard": "20260101-0000", "uri": str(path), "sha256": sha256}
    return of | {"byte_size": size} | columns | changes


# -- motion --------------------------------------------------------------------------------------


def skew(v: np.ndarray) -> np.ndarray:
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


class Motion:
    """A head that turns and moves. world_from_camera(t): (3, 3); the world's y points down."""

    def __init__(self, seed: int = 0, turn_rad: float = 0.5, move_m: float = 0.03) -> None:
        random = np.random.default_rng(seed)
        self._axes = random.normal(size=(3, 3)) * turn_rad / 2
        self._rates = random.uniform(0.4, 1.6, size=3)
        self._move = random.normal(size=(3, 3)) * move_m
        self._beats = random.uniform(2.0, 6.0, size=3)

    def world_from_camera(self, t: float) -> np.ndarray:
        from scipy.spatial.transform import Rotation

        vector = (self._axes * np.sin(self._rates * t)[:, None]).sum(axis=0)
        found: np.ndarray = Rotation.from_rotvec(vector).as_matrix()
        return found

    def gyro(self, t: float, step: float = 1e-4) -> np.ndarray:
        """Turns in the camera's frame, rad/s."""
        before, after = self.world_from_camera(t - step), self.world_from_camera(t + step)
        turn = (before.T @ after - after.T @ before) / (4 * step)
        return np.array([turn[2, 1], turn[0, 2], turn[1, 0]])

    def accel(self, t: float) -> np.ndarray:
        """What an accelerometer feels in the camera's frame, m/s²."""
        moved = -(self._move * (self._beats**2 * np.sin(self._beats * t))[:, None]).sum(axis=0)
        felt: np.ndarray = self.world_from_camera(t).T @ (moved - np.array([0, GRAVITY, 0]))
        return felt

    def down(self, t: float) -> np.ndarray:
        """Where things fall, in the camera's frame."""
        found: np.ndarray = self.world_from_camera(t).T @ np.array([0.0, 1.0, 0.0])
        return found

    def sampled(self, what: Callable[[float], np.ndarray], times: np.ndarray) -> np.ndarray:
        return np.array([what(float(t)) for t in times])
