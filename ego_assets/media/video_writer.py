"""Writes pictures as a video that plays wherever videos play: H.264 in MP4.

Not here: what is in the pictures, decoding (`decode`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from ego_assets.media.colour import BT709, FULL, LIMITED

TIME_BASE = Fraction(1, 90_000)
KEYFRAME_S = 1.0


def write_mp4(path: Path, frames: Iterable[tuple[float, np.ndarray]]) -> int:
    """Write (time in seconds, (H, W, 3) uint8 RGB) pictures. Returns how many there were.

    4:2:0 in BT.709, limited range, and tagged so; no B-frames, so that any frame is found by its
    time; the index first, so that a browser plays it while it loads. Times are kept as they are,
    from the first frame on. The file is there whole or not at all.

    Raises ValueError without pictures, or if their sizes differ.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        count = _write(aside, frames)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return count


def _write(path: Path, frames: Iterable[tuple[float, np.ndarray]]) -> int:
    count, first, last = 0, 0.0, -1
    reformatter = VideoReformatter()
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream: Any = None
        for seconds, image in frames:
            height, width = (n + n % 2 for n in image.shape[:2])
            if stream is None:
                stream = _stream(out, width, height)
                first = seconds
            if (stream.width, stream.height) != (width, height):
                raise ValueError(f"{path}: pictures of several sizes")
            padded = np.zeros((height, width, 3), np.uint8)
            padded[: image.shape[0], : image.shape[1]] = image
            picture = as_yuv(padded, reformatter)
            last = max(last + 1, round((seconds - first) / TIME_BASE))
            picture.pts, picture.time_base = last, TIME_BASE
            out.mux(stream.encode(picture))
            count += 1
        if stream is None:
            raise ValueError(f"{path}: there is no picture to write")
        out.mux(stream.encode())
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
    )
    found.colorspace, found.color_range = BT709, LIMITED
    found.color_primaries = found.color_trc = BT709
    return found


def _stream(out: Any, width: int, height: int) -> Any:
    options = {"preset": "veryfast", "crf": "20", "bf": "0"}
    stream = out.add_stream("libx264", rate=30, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.time_base = stream.time_base = TIME_BASE
    context.gop_size = round(30 * KEYFRAME_S)
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED
    return stream
