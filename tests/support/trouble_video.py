"""Writes the videos that people report trouble with, a property each, and says what is right.

Every picture carries its own number (`numbered_video`). Odd times are in `timed_video`, damage of
all kinds in `test_damage`.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.support.numbered_video import HEIGHT, RATE, WIDTH, numbered, with_hole
from tests.support.timed_video import moved

HDR = "log-level=none:colorprim=bt2020:transfer={}:colormatrix=bt2020nc"
WRAP_S = Fraction(2**33, 90000)


@dataclass(frozen=True)
class Right:
    """ticks, rate: picture n is shown at ticks[n] / rate; manifest: columns that are so; lost:
    whether pictures are missing, or not to be trusted."""

    ticks: Sequence[int]
    rate: Fraction = Fraction(RATE)
    manifest: dict[str, Any] = field(default_factory=dict)
    lost: bool = False

    @property
    def times(self) -> np.ndarray:
        return np.array(self.ticks) / float(self.rate)


def write(
    path: Path,
    ticks: Sequence[int],
    *,
    codec: str = "libx264",
    rate: Fraction = Fraction(RATE),
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    begin_s: Fraction = Fraction(0),
    quarter_turns: int = 0,
) -> Path:
    """Pictures 0, 1, … at ticks / rate. quarter_turns: clockwise, that a player has to turn them by
    (MP4 alone)."""
    with av.open(str(path), "w", options=mux or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {"g": "15"})
        stored = np.rot90(numbered(0), quarter_turns)
        stream.width, stream.height, stream.pix_fmt = stored.shape[1], stored.shape[0], pixels
        stream.codec_context.time_base = 1 / rate
        stream.metadata.update(tags or {})
        packets: list[Any] = []
        for number, tick in enumerate(ticks):
            image = np.ascontiguousarray(np.rot90(numbered(number), quarter_turns))
            picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            picture.pts, picture.time_base = tick, 1 / rate
            packets += stream.encode(picture)
        for packet in [*packets, *stream.encode()]:
            container.mux(moved(packet, begin_s) if begin_s else packet)
    if quarter_turns:
        _turn(path, quarter_turns, stored.shape[1], stored.shape[0])
    return path


def _turn(path: Path, quarter_turns: int, width: int, height: int) -> None:
    """Write a display matrix into the header of the first track."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd")
    at += 4 + 4 + (32 if data[at + 4] else 20) + 16
    one = 1 << 16
    turned = {
        1: (0, one, 0, -one, 0, 0, height * one, 0),
        2: (-one, 0, 0, 0, -one, 0, width * one, height * one),
        3: (0, -one, 0, one, 0, 0, 0, width * one),
    }[quarter_turns]
    data[at : at + 36] = struct.pack(">9i", *turned, 1 << 30)
    path.write_bytes(data)


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        yield name, at, at + size
        at += size


def _with_cover(path: Path) -> None:
    """Have the first stream of a file whose index lies at its end be a picture of its cover."""
    cover = io.BytesIO()
    with av.open(cover, "w", format="image2pipe") as container:
        stream: Any = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 640, 640, "yuvj420p"
        picture = av.VideoFrame.from_ndarray(np.full((640, 640, 3), 30, np.uint8), format="rgb24")
        picture = picture.reformat(format="yuvj420p")
        picture.pts = 0
        for packet in (*stream.encode(picture), *stream.encode()):
            container.mux(packet)

    def box(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I4s", len(data) + 8, name) + data

    image = box(b"data", struct.pack(">II", 13, 0) + cover.getvalue())
    handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    tags = box(b"meta", bytes(4) + handler + box(b"ilst", box(b"covr", image)))
    data = path.read_bytes()
    start, end = next((a, b) for name, a, b in _boxes(data) if name == b"moov")
    movie = data[start + 8 : end]
    first = struct.unpack(">I", movie[:4])[0]
    movie = box(b"moov", movie[:first] + box(b"udta", tags) + movie[first:])
    path.write_bytes(data[:start] + movie + data[end:])


def _with_data_stream(source: Path, path: Path) -> None:
    """Beside the video a stream that looks like GoPro's telemetry, and is none."""
    with av.open(str(path), "w") as out, av.open(str(source)) as given:
        video = out.add_stream_from_template(given.streams.video[0])
        data = out.add_data_stream("bin_data")
        for number, packet in enumerate(given.demux(video=0)):
            if packet.dts is None:
                continue
            packet.stream = video
            out.mux(packet)
            if number % 30 == 0:
                other = av.Packet(b"DEVC" + bytes(60))
                other.stream, other.time_base = data, Fraction(1, 1000)
                other.pts = other.dts = number * 33
                out.mux(other)


def _with_proxy(path: Path, count: int) -> None:
    """A small stream of other pictures before the one of numbered pictures."""
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in ((160, 120), (WIDTH, HEIGHT)):
            stream: Any = container.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for number in range(count):
            for stream, image in zip(
                streams, (np.full((120, 160, 3), 255, np.uint8), numbered(number)), strict=True
            ):
                picture = av.VideoFrame.from_ndarray(image, format="rgb24")
                picture = picture.reformat(format="yuv420p")
                picture.pts, picture.time_base = number, Fraction(1, RATE)
                container.mux(stream.encode(picture))
        for stream in streams:
            container.mux(stream.encode())


def _count_wrongly(path: Path, count: int) -> None:
    """Have the headers of an AVI promise another number of pictures."""
    data = bytearray(path.read_bytes())
    for name, offset in ((b"strh", 32), (b"avih", 16)):
        struct.pack_into("<I", data, data.index(name) + 8 + offset, count)
    path.write_bytes(data)


def write_trouble(folder: Path) -> dict[str, Right]:
    """A file of each kind: {name: what is right}; 45 pictures, unless that is the point."""
    folder.mkdir(parents=True, exist_ok=True)
    even, right = range(45), {}

    def add(name: str, ticks: Sequence[int] = even, *, lost: bool = False, **how: Any) -> Path:
        manifest = how.pop("manifest", {})
        right[name] = Right(ticks, how.get("rate", Fraction(RATE)), manifest, lost)
        return write(folder / name, ticks, **how)

    base = add("base_bframes.mp4", options={"bf": "2", "g": "30"})
    for turns in (1, 2, 3):
        said = {"rotation_deg": 90 * turns, "width_px": WIDTH, "height_px": HEIGHT}
        add(f"rotate{90 * turns}.mp4", quarter_turns=turns, manifest=said)
    for transfer, name in (("smpte2084", "hdr_pq.mp4"), ("arib-std-b67", "hdr_hlg.mp4")):
        said = {"color_transfer": transfer, "color_primaries": "bt2020", "bit_depth": 10}
        add(
            name,
            range(20),
            codec="libx265",
            pixels="yuv420p10le",
            options={"x265-params": HDR.format(transfer)},
            manifest=said | {"color_matrix": "bt2020nc", "color_range": "limited"},
        )
    fragments = "frag_keyframe+empty_moov+default_base_moof"
    add("fragmented.mp4", mux={"movflags": fragments})
    fast = {"mux": {"movflags": "faststart"}}
    add("faststart.mp4", **fast)
    with_hole(add("hole_in_the_middle.mp4", range(90), lost=True, **fast), after=b"mdat")
    cut = add("truncated_tail.mp4", range(90), lost=True, **fast)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 7 // 10])
    plain = {"options": {"g": "15", "bf": "0"}}
    add("ts_pts_wrap.ts", begin_s=WRAP_S - 1, **plain)
    vp9 = {"deadline": "realtime", "cpu-used": "8"}
    add("browser_live.webm", codec="libvpx-vp9", options=vp9, mux={"live": "1"})
    add("mkv_live_no_duration.mkv", mux={"live": "1"})
    add("av1.mp4", range(20), codec="libsvtav1", options={"preset": "12"})
    sar = {"x264-params": "sar=4/3"}
    add("anamorphic_sar4_3.mp4", options=sar, manifest={"sample_aspect_ratio": 4 / 3})
    tff = {"x264-params": "tff=1", "flags": "+ildct+ilme"}
    add("interlaced_tff.mp4", options=tff, manifest={"field_order": "tt"})
    add("timecode_track.mov", tags={"timecode": "11:07:15:07"})
    add("fps_29_97.mp4", rate=Fraction(30000, 1001))
    long = {"g": "600", "keyint_min": "600", "sc_threshold": "0"}
    add("fps_59_94_long_gop.mp4", range(180), rate=Fraction(60000, 1001), options=long)
    screen = [i * 41 + i % 3 for i in even]
    add("screen_1000fps_timebase.mp4", screen, rate=Fraction(1000), **plain)
    add("mute_tail_frame.mp4", [*range(30), 30 * 20], **plain)
    right["cover_is_stream_0.mp4"] = Right(even, manifest={"video_stream_index": 1})
    (folder / "cover_is_stream_0.mp4").write_bytes(
        write(folder / "covered.mp4", even, options={"bf": "2", "g": "16"}).read_bytes()
    )
    _with_cover(folder / "cover_is_stream_0.mp4")
    (folder / "covered.mp4").unlink()
    _with_data_stream(base, folder / "gopro_like.mp4")
    right["gopro_like.mp4"] = Right(even)
    _with_proxy(folder / "two_videos_small_first.mp4", 30)
    said = {"video_stream_index": 1, "video_stream_count": 2, "width_px": WIDTH}
    right["two_videos_small_first.mp4"] = Right(range(30), manifest=said)
    _count_wrongly(add("avi_wrong_count.avi", codec="mpeg4"), 46)
    return right
