"""Writes the videos of data sets: constant rate, no B-frames, BT.709.

The same pictures, settings and version of PyAV give the same bytes, whatever CPUs there are.
Each episode is encoded by itself, beginning with a key frame. A video file is made of whole
episodes by copying their packets, whose times are counted (frame n is at n / fps), never added up.
All episodes of a camera have one format, or joining them is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from ego_assets.exports.files import naming
from ego_assets.exports.grid import ExportError
from ego_assets.exports.settings import VideoSettings
from ego_assets.media.colour import BT709, LIMITED
from ego_assets.media.video_writer import as_yuv

Size = tuple[int, int]
"""(width, height)"""
LIBRARY = f"PyAV {av.__version__}, any CPU"
"""Parts of one file have to come from one version of the encoder, with the same options."""
_ENCODERS = {"h264": "libx264", "av1": "libsvtav1"}


@dataclass(frozen=True)
class EncodedRange:
    """Frames of a video file that begin with a key frame."""

    path: Path
    first: int
    frames: int


def target_size(size: Size, max_side_px: int) -> Size:
    """Size of all pictures of a camera whose first has this size: even, never enlarged."""
    scale = min(1.0, max_side_px / max(size))
    width, height = (max(2, 2 * round(side * scale / 2)) for side in size)
    return width, height


def encode(
    pictures: Iterable[np.ndarray],
    path: Path,
    size: Size,
    fps: int,
    settings: VideoSettings,
    *,
    index_first: bool = False,
) -> int:
    """Encode pictures of `size` to an MP4. Returns how many there were.

    index_first: for a file that is read as it is, and not joined with others.
    """
    count = 0
    options = _INDEX_FIRST if index_first else {}
    with naming(path), av.open(str(path), "w", format="mp4", options=options) as out:
        stream: Any = out.add_stream(
            _ENCODERS[settings.codec], rate=fps, options=_options(settings)
        )
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, fps)
        context.gop_size = settings.keyframe_every
        context.max_b_frames = 0
        context.thread_count = settings.threads
        context.color_range = LIMITED
        context.colorspace = context.color_primaries = context.color_trc = BT709
        reformatter = VideoReformatter()  # remembers its tables from picture to picture
        for picture in pictures:
            frame = as_yuv(picture, reformatter)
            frame.pts, frame.time_base = count, Fraction(1, fps)
            out.mux(stream.encode(frame))
            count += 1
        out.mux(stream.encode())
    return count


def join(stretches: Sequence[EncodedRange], path: Path, fps: int) -> int:
    """Copy stretches one behind the other into an MP4. Returns how many frames it has."""
    count = 0
    with naming(path), av.open(str(path), "w", format="mp4", options=_INDEX_FIRST) as out:
        stream: Any = None
        for stretch in stretches:
            with av.open(str(stretch.path)) as source:
                encoded: Any = source.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(encoded, opaque=True)
                    stream.time_base = Fraction(1, fps)
                    alike = _format_of(encoded)
                elif _format_of(encoded) != alike:
                    raise ExportError(
                        f"{stretch.path} and {stretches[0].path} come from different encoders: "
                        "export to an empty folder"
                    )
                for packet in _packets(source, stretch):
                    packet.stream = stream
                    packet.time_base = Fraction(1, fps)
                    packet.pts = packet.dts = count
                    packet.duration = 1
                    out.mux(packet)
                    count += 1
    return count


class OtherShapeError(ExportError):
    """Pictures of an episode have another shape than those of the data set."""


def resized(pictures: Iterable[np.ndarray], size: Size, letterbox: bool) -> Iterator[np.ndarray]:
    """Bring pictures to `size`. Another shape is refused, or gets black bars.

    A side may be two pixels off, since sizes are even. Raises OtherShapeError.
    """
    for picture in pictures:
        height, width = picture.shape[:2]
        if (width, height) == size:
            yield picture
            continue
        scale = min(size[0] / width, size[1] / height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        if max(size[0] - inner[0], size[1] - inner[1]) <= 2:
            yield _scaled(picture, size)
        elif letterbox:
            yield _with_bars(_scaled(picture, inner), size)
        else:
            raise OtherShapeError(
                f"pictures of {width}x{height} in a data set of {size[0]}x{size[1]}: all pictures "
                "of a camera must have one shape. Export them to a folder of their own, or set "
                "fit: letterbox"
            )


def info_of(size: Size, fps: int, settings: VideoSettings) -> dict[str, Any]:
    """What `meta/info.json` says of the videos of a camera."""
    return {
        "video.height": size[1],
        "video.width": size[0],
        "video.codec": settings.codec,
        "video.pix_fmt": "yuv420p",
        "video.fps": fps,
        "video.channels": 3,
        "video.g": settings.keyframe_every,
        "video.crf": settings.quality,
        "video.preset": settings.speed,
        "video.is_depth_map": False,
        "is_depth_map": False,
        "has_audio": False,
    }


_INDEX_FIRST = {"movflags": "+faststart"}
"""A reader over a network finds the index without reading the end first."""


def _options(settings: VideoSettings) -> dict[str, str]:
    options = {"preset": settings.speed, "crf": str(settings.quality)}
    every = settings.keyframe_every
    if settings.codec == "h264":
        return options | {
            "bf": "0",
            "x264-params": f"keyint={every}:min-keyint={every}:scenecut=0:bframes=0:open-gop=0:"
            "sliced-threads=0:cpu-independent=1",
        }
    return options | {"svtav1-params": f"keyint={every}:scd=0:pred-struct=1:irefresh-type=2"}


def _wrapped(picture: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(picture), format="rgb24")


def _scaled(picture: np.ndarray, size: Size) -> np.ndarray:
    small = _wrapped(picture).reformat(
        width=size[0], height=size[1], interpolation=Interpolation.AREA, threads=1
    )
    return small.to_ndarray()


def _with_bars(picture: np.ndarray, size: Size) -> np.ndarray:
    height, width = picture.shape[:2]
    whole = np.zeros((size[1], size[0], 3), np.uint8)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    whole[top : top + height, left : left + width] = picture
    return whole


def _format_of(stream: Any) -> tuple[Any, ...]:
    context = stream.codec_context
    return context.name, context.width, context.height, bytes(context.extradata or b"")


def _packets(source: Any, stretch: EncodedRange) -> Iterator[Any]:
    """The packets of a stretch, in order. Raises ExportError if there are fewer."""
    stream = source.streams.video[0]
    if stretch.first:
        rate = stream.average_rate
        source.seek(round(stretch.first / rate / stream.time_base), stream=stream)
    found = 0
    for packet in source.demux(stream):
        if not packet.size or packet.pts is None:
            continue
        number = round(packet.pts * stream.time_base * stream.average_rate)
        if number < stretch.first:
            continue
        if not found and (number != stretch.first or not packet.is_keyframe):
            break
        found += 1
        yield packet
        if found == stretch.frames:
            return
    raise ExportError(
        f"{stretch.path} has {found} of {stretch.frames} frames from frame {stretch.first} on: "
        "it was changed. Delete the file, and export again"
    )
