"""Finds the tracks of a media file that hold telemetry, and reads them.

Tracks are known by what is in them, since not all that a container says of them is told by libav.
Here: packets of data and subtitle streams, and their times. Not here: what a packet says.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
import av.stream
import numpy as np

from ego_assets.media import progress
from ego_assets.media.containers import must_be_damage, open_media
from ego_assets.telemetry.formats import gpmf, subtitles
from ego_assets.telemetry.formats.camm import CammTrack, is_camm
from ego_assets.telemetry.samples import GPS, SourceTelemetry, TelemetryError

MAX_PACKET_BYTES = gpmf.MAX_PAYLOAD_BYTES
_TEXTS = {"mov_text", "srt", "subrip", "text", "webvtt", "ass", "ssa"}
_MAX_ASKED = 16
"""Packets of a track that are looked at to know what it is: the first of them may be damaged."""
_MAX_STRETCH = 1.1
"""The last payload of a recording may be full for a part of its time only: its samples are not
stretched over all of it."""
_DEFAULT_PAYLOAD_S = 1.0
"""Of a GPMF payload whose length nothing tells: cameras write one a second."""


@dataclass(frozen=True)
class _Packet:
    time_s: float
    length_s: float | None
    data: bytes


class _Track(Protocol):
    kind: str

    def add(self, packet: _Packet) -> int: ...

    def into(self, source: SourceTelemetry) -> None: ...


def read_tracks(
    path: Path, first_picture_s: float, max_samples: int = 2**31
) -> list[SourceTelemetry]:
    """The telemetry in a media file, one source a track.

    first_picture_s: time stamp of the first picture in the container, which is time 0;
    max_samples: of all tracks together, where reading ends. Raises BadInputError if it is no media
    file, OSError if it cannot be read.
    """
    tracks: dict[int, tuple[_Track, SourceTelemetry]] = {}
    seen: Counter[int] = Counter()
    count, cut = 0, None
    with open_media(path) as container:
        streams = _streams(container)
        if not streams:
            return []
        try:
            for stream, packet in _packets(container, streams, first_picture_s):
                index = stream.index
                if index not in tracks and seen[index] < _MAX_ASKED:
                    if (track := _track_of(stream, packet.data)) is not None:
                        source = SourceTelemetry(track.kind, f"stream {index}")
                        tracks[index] = track, source
                        if skipped := seen[index]:
                            source.faults.add(f"its first {skipped} packets are no {track.kind}")
                    seen[index] += 1
                if index in tracks:
                    count += _add(*tracks[index], packet)
                if count > max_samples:
                    cut = f"over {max_samples} samples (max_samples): the rest was not read"
                    break
        except av.FFmpegError as error:
            must_be_damage(error, path)
            cut = "the file is damaged: what comes after it was not read"
    found = []
    for track, source in tracks.values():
        if cut is not None:
            source.faults.add(cut)
        track.into(source)
        if source.series or source.faults.count:
            found.append(source)
    return found


def _streams(container: Any) -> list[Any]:
    """Those that may hold telemetry; the packets of all others are skipped."""
    wanted = [s for s in container.streams if s.type == "data" or _codec(s) in _TEXTS]
    for stream in container.streams:
        if stream not in wanted:
            stream.discard = av.stream.Discard.all
    return wanted


def _codec(stream: Any) -> str:
    return stream.name or "" if stream.type in ("data", "subtitle") else ""


def _packets(
    container: Any, streams: list[Any], first_picture_s: float
) -> Iterator[tuple[Any, _Packet]]:
    for packet in container.demux(streams):
        progress.moved()
        at = packet.pts if packet.pts is not None else packet.dts
        if not packet.size or at is None or packet.time_base is None:
            continue
        base = float(packet.time_base)
        length = packet.duration * base if packet.duration else None
        is_sane = packet.size <= MAX_PACKET_BYTES
        data = bytes(packet) if is_sane else b""
        yield packet.stream, _Packet(at * base - first_picture_s, length, data)


def _track_of(stream: Any, first: bytes) -> _Track | None:
    """The reader of a track, by one of its first packets; None if that is no telemetry."""
    codec = _codec(stream)
    if codec in _TEXTS:
        return _SubtitleTrack(codec)
    if first[:4] == b"DEVC":
        return _GpmfTrack()
    return _CammPackets() if is_camm(first) else None


def _add(track: _Track, source: SourceTelemetry, packet: _Packet) -> int:
    """How many samples it has."""
    try:
        if not packet.data:
            raise TelemetryError(f"a packet of over {MAX_PACKET_BYTES // 2**20} MiB")
        return track.add(packet)
    except TelemetryError as error:
        source.faults.add(f"{packet.time_s:.2f} s: {error}")
        return 1


class _SubtitleTrack:
    kind = "subtitle"

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._rows: list[tuple[float, dict[str, float]]] = []

    def add(self, packet: _Packet) -> int:
        row = subtitles.read_text(subtitles.text_of(self._codec, packet.data))
        if row:
            self._rows.append((packet.time_s, row))
        return len(row)

    def into(self, source: SourceTelemetry) -> None:
        subtitles.samples_into(source, self._rows)


class _CammPackets:
    kind = "camm"

    def __init__(self) -> None:
        self._track = CammTrack()

    def add(self, packet: _Packet) -> int:
        self._track.add(packet.time_s, packet.data)
        return 1

    def into(self, source: SourceTelemetry) -> None:
        self._track.into(source)


class _GpmfTrack:
    """Payloads of GPMF, mostly one a second; their samples are spread evenly over their time."""

    kind = "gpmd"

    def __init__(self) -> None:
        self._payloads: list[tuple[float, float | None, gpmf.Payload]] = []

    def add(self, packet: _Packet) -> int:
        payload = gpmf.read_payload(packet.data)
        self._payloads.append((packet.time_s, packet.length_s, payload))
        if payload.fault is not None:
            raise TelemetryError(payload.fault)
        return sum(len(s.values) for s in payload.streams)

    def into(self, source: SourceTelemetry) -> None:
        streams = [s for _, _, p in self._payloads for s in p.streams if s.key in _VECTORS]
        is_known = bool(streams) and all(_turn_of(s) is not None for s in streams)
        source.axes = "stored picture" if is_known else "sensor"
        timed = list(self._timed())
        usual = _usual_steps(timed)
        for start, length, payload in timed:
            source.device = source.device or payload.device
            for stream in payload.streams:
                count = len(stream.values)
                step = min(length / max(count, 1), _MAX_STRETCH * usual[stream.key])
                times = start + step * np.arange(count)
                try:
                    source.add(times, **_columns(stream, is_known))
                except TelemetryError as error:
                    source.faults.add(f"{start:.2f} s: {error}")

    def _timed(self) -> Iterator[tuple[float, float, gpmf.Payload]]:
        """(start, length, payload): without a length until the next, or as the one before."""
        ends = [start for start, _, _ in self._payloads[1:]]
        before = _DEFAULT_PAYLOAD_S
        for (start, length, payload), end in zip(self._payloads, [*ends, None], strict=True):
            if not length or length <= 0:
                length = end - start if end is not None and end > start else before
            before = length
            yield start, length, payload


def _usual_steps(timed: list[tuple[float, float, gpmf.Payload]]) -> dict[str, float]:
    """Median time between two samples of each kind of stream."""
    steps: dict[str, list[float]] = {}
    for _, length, payload in timed:
        for stream in payload.streams:
            if len(stream.values):
                steps.setdefault(stream.key, []).append(length / len(stream.values))
    return defaultdict(
        lambda: _DEFAULT_PAYLOAD_S, {k: float(np.median(v)) for k, v in steps.items()}
    )


_VECTORS = {"ACCL": "accel_mps2", "GYRO": "gyro_radps"}
_LEAST_CHANNELS = {"ACCL": 3, "GYRO": 3, "GPS5": 5, "GPS9": 9}


def _turn_of(stream: gpmf.SensorStream) -> np.ndarray | None:
    return gpmf.stored_from_channels(stream.axes)


def _columns(stream: gpmf.SensorStream, is_turned: bool) -> dict[str, np.ndarray]:
    """The columns that a stream is about. Raises TelemetryError."""
    values, key = stream.values, stream.key
    if values.shape[1] < (least := _LEAST_CHANNELS.get(key, 1)):
        raise TelemetryError(f"{key} has {values.shape[1]} channels, not {least}")
    if key in _VECTORS:
        turn = _turn_of(stream) if is_turned else None
        vectors = values[:, :3] if turn is None else values[:, :3] @ turn.T
        found = {_VECTORS[key]: vectors}
        if key == "ACCL" and "TMPC" in stream.about:
            found["temperature_c"] = np.full(len(values), np.nan)
            found["temperature_c"][:1] = stream.about["TMPC"]  # it is measured once a payload
        return found
    if key in ("GPS5", "GPS9"):
        return _places(stream)
    if key == "SHUT":
        return {"exposure_s": values[:, 0]}
    return {"iso": values[:, 0] * (100.0 if key == "ISOG" else 1.0)}  # a gain, of ISO 100


def _places(stream: gpmf.SensorStream) -> dict[str, np.ndarray]:
    """Where the receiver has a fix: without one, positions are old or made up."""
    values = stream.values
    if stream.key == "GPS9":
        dop, fix = values[:, 7], values[:, 8]
    else:
        dop = np.full(len(values), stream.about.get("GPSP", np.nan) / 100.0)
        fix = np.full(len(values), stream.about.get("GPSF", 3.0))
    altitude = np.where(fix >= 3, values[:, 2], np.nan)
    columns = (values[:, 0], values[:, 1], altitude, values[:, 3], np.full(len(fix), np.nan), dop)
    has_fix = fix >= 2
    return {n: np.where(has_fix, c, np.nan) for n, c in zip(GPS, columns, strict=True)}
