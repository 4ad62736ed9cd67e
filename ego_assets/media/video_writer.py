"""Writes pictures as a video that plays wherever videos play: H.264 in MP4.

Not here: what is in the pictures, decoding (`decode`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from ego_assets.media.colour import BT709, FULL, LIMITED
from ego_assets.media.containers import must_be_damage, open_media

TIME_BASE = Fraction(1, 90_000)
KEYFRAME_S = 1.0
CRF = 20
SOUND_CODECS = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
"""What MP4 holds, and players play."""


@dataclass(frozen=True)
class Sound:
    """The first sound track of a file, to be copied as it is, not decoded.

    zero_s: second 0 of the pictures' times, in the file's own. What begins before the first picture
    is left out.
    """

    path: Path
    zero_s: float

    @classmethod
    def of(cls, path: Path, zero_s: float) -> tuple[Sound | None, str]:
        """The sound of a file, if it has one that MP4 can hold; and what becomes of it, in words.

        Raises what `open_media` does.
        """
        with open_media(path) as source:
            tracks = source.streams.audio
            if not tracks:
                return None, "no sound"
            context = tracks[0].codec_context
            codec = context.codec.canonical_name if context else "of an unknown kind"
            more = f", {len(tracks) - 1} further tracks left out" if len(tracks) > 1 else ""
        if codec not in SOUND_CODECS:
            return None, f"sound left out: MP4 does not hold {codec}"
        return cls(path, zero_s), f"sound copied ({codec}){more}"

    def packets(self, source: Any, stream: Any, first: float) -> Iterator[tuple[float, Any]]:
        """(seconds, packet for `stream`) as far as the file can be read, from second `first` on."""
        mine = source.streams.audio[0]
        offset = round((self.zero_s + first) / mine.time_base)
        try:
            for packet in source.demux(mine):
                if not packet.size or packet.pts is None or packet.pts < offset:
                    continue
                packet.pts -= offset
                packet.dts = packet.pts
                packet.stream = stream
                yield float(packet.pts * mine.time_base), packet
        except av.FFmpegError as error:
            must_be_damage(error, self.path)


def write_mp4(
    path: Path,
    frames: Iterable[tuple[float, np.ndarray]],
    *,
    crf: int = CRF,
    sound: Sound | None = None,
) -> int:
    """Write (time in seconds, (H, W, 3) uint8 RGB) pictures. Returns how many there were.

    4:2:0 in BT.709, limited range, and tagged so; no B-frames, so that any frame is found by its
    time; the index first, so that a browser plays it while it loads. Times are kept as they are,
    from the first frame on. The file is there whole or not at all.

    Raises ValueError without pictures, or if their sizes differ.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        count = _write(aside, frames, crf, sound)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return count


def _write(
    path: Path, frames: Iterable[tuple[float, np.ndarray]], crf: int, sound: Sound | None
) -> int:
    count, first, last = 0, 0.0, -1
    reformatter = VideoReformatter()
    with ExitStack() as stack:
        out = stack.enter_context(
            av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        )
        heard: Iterator[tuple[float, Any]] = iter(())
        waiting: tuple[float, Any] | None = None
        stream: Any = None
        for seconds, image in frames:
            height, width = (n + n % 2 for n in image.shape[:2])
            if stream is None:
                stream = _stream(out, width, height, crf)
                first = seconds
                if sound is not None:
                    source = stack.enter_context(open_media(sound.path))
                    track = out.add_stream_from_template(source.streams.audio[0])
                    heard = sound.packets(source, track, first)
                    waiting = next(heard, None)
            if (stream.width, stream.height) != (width, height):
                raise ValueError(f"{path}: pictures of several sizes")
            padded = np.zeros((height, width, 3), np.uint8)
            padded[: image.shape[0], : image.shape[1]] = image
            picture = as_yuv(padded, reformatter)
            last = max(last + 1, round((seconds - first) / TIME_BASE))
            picture.pts, picture.time_base = last, TIME_BASE
            out.mux(stream.encode(picture))
            count += 1
            while waiting and waiting[0] <= seconds - first:
                out.mux(waiting[1])
                waiting = next(heard, None)
        if stream is None:
            raise ValueError(f"{path}: there is no picture to write")
        out.mux(stream.encode())
        while waiting:
            out.mux(waiting[1])
            waiting = next(heard, None)
    return count


def as_yuv(picture: np.ndarray, reformatter: VideoReformatter) -> av.VideoFrame:
    """An (H, W, 3) uint8 RGB picture of even sides as 4:2:0 in BT.709, limited range, tagged so.

    reformatter: remembers its tables from picture to picture.
    """
    rgb = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(picture), format="rgb24")
    found = reformatter.reformat(
        rgb,
        format="yuv420p",
        dst_colorspace=BT709,
        src_color_range=FULL,
        dst_color_range=LIMITED,
        interpolation=Interpolation.AREA,
        threads=1,
    )
    found.colorspace, found.color_range = BT709, LIMITED
    found.color_primaries = found.color_trc = BT709
    return found


def _stream(out: Any, width: int, height: int, crf: int) -> Any:
    options = {"preset": "veryfast", "crf": str(crf), "bf": "0"}
    stream = out.add_stream("libx264", rate=30, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.time_base = stream.time_base = TIME_BASE
    context.gop_size = round(30 * KEYFRAME_S)
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED
    return stream
