"""Writes numbered videos whose pictures are shown at odd times, and says at which."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.support.numbered_video import HEIGHT, RATE, WIDTH, numbered

WRAP_S = Fraction(2**33 * RATE // 90000, RATE)
"""After so many seconds, give or take a picture, time stamps of MPEG-TS begin again."""
DELAY_S = 1024 / 48000
"""What the encoder puts before the audio. Only an edit list can say that it is not to be heard, and
the muxer writes that where the audio begins at 0."""


@dataclass(frozen=True)
class Shown:
    """numbers: of the pictures that a player shows, in order; times: (F,) seconds since the first
    of them; audio_s: when the audio begins, on the same clock."""

    numbers: list[int]
    times: np.ndarray
    audio_s: float | None = None


def write_timed(
    path: Path,
    ticks: Sequence[int],
    *,
    time_base: Fraction = Fraction(1, RATE),
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
    begin_s: Fraction = Fraction(0),
    audio_at_s: Fraction | None = None,
) -> None:
    """Pictures 0, 1, … at these ticks; the video is moved by `begin_s`, and two seconds of audio
    begin at a time of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=mux or {}) as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options=options or {"g": "15"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = time_base
        sound: Any = None if audio_at_s is None else container.add_stream("aac", rate=48000)
        packets = []
        for number, tick in enumerate(ticks):
            picture = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            picture = picture.reformat(format="yuv420p")
            picture.pts, picture.time_base = tick, time_base
            packets += stream.encode(picture)
        packets = [moved(p, begin_s) for p in [*packets, *stream.encode()]]
        if audio_at_s is not None:
            packets += [moved(p, audio_at_s) for p in _noise(sound)]
        packets.sort(key=lambda p: p.dts * p.time_base)
        for packet in packets:
            container.mux(packet)


def _noise(stream: Any) -> list[Any]:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 96000)).astype(np.float32)
    found = []
    for start in range(0, 96000, 1024):
        part = samples[:, start : start + 1024].copy()
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        found += stream.encode(frame)
    return [*found, *stream.encode()]


def moved(packet: Any, seconds: Fraction) -> Any:
    ticks = int(seconds / packet.time_base)
    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
    return packet


def with_edits(path: Path, edits: Sequence[tuple[float, float]]) -> None:
    """Put other edits into the first edit list of a file, of which the space is there: (seconds
    that are shown, second of the media where they begin; -1: nothing is shown)."""
    data = bytearray(path.read_bytes())
    movie = _scale(data, b"mvhd")
    media = _scale(data, b"mdhd")
    entries = b"".join(
        struct.pack(
            ">Iii", round(length * movie), round(begin * media) if begin >= 0 else -1, 65536
        )
        for length, begin in edits
    )
    at = data.index(b"elst") - 4
    old = struct.unpack(">I", data[at : at + 4])[0]
    box = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    grown = len(box) - old
    data[at : at + old] = box
    for name in (b"edts", b"trak", b"moov"):  # the boxes around it; the index is behind the data
        place = data.rindex(name, 0, at + 4) - 4
        size = struct.unpack(">I", data[place : place + 4])[0]
        data[place : place + 4] = struct.pack(">I", size + grown)
    path.write_bytes(data)


def _scale(data: bytearray, name: bytes) -> int:
    at = data.index(name) + 4
    assert data[at] == 0, "32-bit times"
    scale: int = struct.unpack(">I", data[at + 12 : at + 16])[0]
    return scale


def write_cases(folder: Path) -> dict[str, Shown]:
    """A file of each kind: {name: what a player shows}."""
    even = np.arange(90) / RATE
    shown = {"b_frames.mp4": Shown(list(range(90)), even)}
    write_timed(folder / "b_frames.mp4", range(90), options={"g": "15", "bf": "2"})

    steps = (33, 34, 33, 50, 17, 33, 100)
    ticks = np.cumsum([0, *(steps[i % 7] for i in range(89))])
    write_timed(folder / "variable.mp4", ticks.tolist(), time_base=Fraction(1, 1000))
    shown["variable.mp4"] = Shown(list(range(90)), ticks / 1000)

    # The first 13 pictures are decoded and not shown; 77 of 90 packets are.
    write_timed(
        folder / "cut_in.mp4",
        range(90),
        options={"bf": "0", "g": "90"},
        mux={"avoid_negative_ts": "disabled", "movflags": "negative_cts_offsets"},
        begin_s=Fraction(-13, RATE),
    )
    shown["cut_in.mp4"] = Shown(list(range(13, 90)), even[:77])

    # An empty edit, so that pictures come two seconds after the audio.
    write_timed(
        folder / "late_video.mp4",
        range(75),
        options={"g": "15", "bf": "2"},
        begin_s=Fraction(2),
        audio_at_s=Fraction(0),
    )
    shown["late_video.mp4"] = Shown(list(range(75)), even[:75], -2.0)

    write_timed(folder / "late_audio.mp4", range(75), audio_at_s=Fraction(3, 2))
    shown["late_audio.mp4"] = Shown(list(range(75)), even[:75], 1.5 - DELAY_S)

    # A second is left out in the middle, and one at the end.
    write_timed(folder / "two_edits.mp4", range(150), options={"g": "30", "bf": "0"})
    with_edits(folder / "two_edits.mp4", [(2.0, 0.0), (1.0, 3.0)])
    shown["two_edits.mp4"] = Shown([*range(60), *range(90, 120)], even)

    # Time stamps begin again one second after the first picture.
    write_timed(
        folder / "wrap.ts", range(90), begin_s=WRAP_S - 1, audio_at_s=WRAP_S - Fraction(1, 2)
    )
    shown["wrap.ts"] = Shown(list(range(90)), even, 0.5 - DELAY_S)
    return shown
