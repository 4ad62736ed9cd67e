"""Writes small videos of which every picture carries its own number: 16 bars along its top."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from ego_assets.media.decode import ClipFrames
from ego_assets.media.frame_index import index_frames

RATE, WIDTH, HEIGHT, BARS = 30, 320, 240, 16
X264 = {"g": "15", "bf": "2"}


def numbered(number: int) -> np.ndarray:
    """A picture with its number as bars, white for 1, the least first; a square moves below."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for bar in range(BARS):
        image[: HEIGHT // 6, bar * WIDTH // BARS : (bar + 1) * WIDTH // BARS] = (
            255 if number >> bar & 1 else 0
        )
    left = number * 5 % (WIDTH - 40)
    image[HEIGHT // 2 : HEIGHT // 2 + 40, left : left + 40] = (200, 60, 30)
    return image


def number_of(image: np.ndarray) -> int:
    """The number in a picture (H, W, 3) of any size."""
    height, width = image.shape[:2]
    middles = [(2 * bar + 1) * width // (2 * BARS) for bar in range(BARS)]
    return sum(int(image[height // 12, x].mean() > 127) << b for b, x in enumerate(middles))


def write_numbered(
    path: Path,
    count: int = 90,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
    rate: int = RATE,
    numbers: Iterable[int] | None = None,
    tags: dict[str, str] | None = None,
) -> Path:
    """Numbered pictures at a constant rate. numbers: other ones than 0, 1, …; tags: of the file,
    such as `creation_time`."""
    given = list(numbers if numbers is not None else range(count))
    with av.open(str(path), "w", options=mux or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or X264)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.metadata.update(tags or {})
        for place, number in enumerate(given):
            picture = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            picture.pts, picture.time_base = place, Fraction(1, rate)
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


def without_packets(source: Path, path: Path, places: Container[int]) -> Path:
    """A copy of a video that lacks these packets, counted as they are stored."""
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0], opaque=True)
        for place, packet in enumerate(given.demux(video=0)):
            if packet.size and place not in places:
                packet.stream = stream
                container.mux(packet)
    return path


def rewritten(source: Path, path: Path, change: Callable[[int, bytes], bytes]) -> Path:
    """A copy of a video with other bytes in its packets, which are counted as they are stored."""
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0], opaque=True)
        for place, packet in enumerate(given.demux(video=0)):
            if packet.size:
                other = av.Packet(change(place, bytes(packet)))
                other.pts, other.dts, other.duration = packet.pts, packet.dts, packet.duration
                other.time_base, other.is_keyframe = packet.time_base, packet.is_keyframe
                other.stream = stream
                container.mux(other)
    return path


def with_hole(path: Path, first: float = 0.45, last: float = 0.5, after: bytes = b"") -> Path:
    """Zeros over a share of what follows `after` in a file."""
    data = bytearray(path.read_bytes())
    begin = max(data.find(after), 0)
    start, end = (begin + int((len(data) - begin) * share) for share in (first, last))
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    return path


def lies(path: Path, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """(number that belongs there by its time, number in the picture) where they differ."""
    index = index_frames(path)
    frames = ClipFrames(path, start, len(index) if end is None else end).read()
    shown = [(round(f.pts_s * RATE), number_of(f.image)) for f in frames]
    return [pair for pair in shown if pair[0] != pair[1]]
