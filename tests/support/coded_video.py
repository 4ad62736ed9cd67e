"""Writes small videos whose samples and tags are given, so that their right colours are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

LUMA = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020": (0.2627, 0.0593)}
"""Weights of red and blue in luma."""
X265 = "log-level=none:qp=2:bframes=0:frame-threads=1"
"""With several threads, a file of a single picture cannot always be written."""


def ycbcr(rgb: np.ndarray, matrix: str, bits: int = 8, *, full: bool = False) -> np.ndarray:
    """(H, W, 3) codes of (H, W, 3) R'G'B' from 0 to 1, as the standards define them."""
    red, blue = LUMA[matrix]
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    cb = (rgb[..., 2] - luma) / (2 * (1 - blue))
    cr = (rgb[..., 0] - luma) / (2 * (1 - red))
    unit = 2 ** (bits - 8)
    if full:
        top = 2**bits - 1
        codes = [luma * top, cb * top + 128 * unit, cr * top + 128 * unit]
    else:
        codes = [luma * 219 * unit + 16 * unit, *(c * 224 * unit + 128 * unit for c in (cb, cr))]
    rounded: np.ndarray = np.rint(np.clip(np.stack(codes, -1), 0, 2**bits - 1))
    return rounded.astype(np.uint16 if bits > 8 else np.uint8)


def patches(colours: Sequence[Sequence[float]], width: int, height: int) -> np.ndarray:
    """(H, W, 3) of columns of one colour each."""
    column = np.arange(width) * len(colours) // width
    return np.broadcast_to(np.array(colours)[column], (height, width, 3))


def middles(image: np.ndarray, count: int) -> np.ndarray:
    """(count, 3) colours in the middle of the columns of `patches`."""
    height, width = image.shape[:2]
    places = (np.arange(count) * 2 + 1) * width // (2 * count)
    return image[height // 2, places].astype(float)


def _planes(codes: np.ndarray) -> np.ndarray:
    """Planes as PyAV takes them: nothing converts their colours."""
    width = codes.shape[1]
    chroma = [codes[::2, ::2, i].reshape(-1, width) for i in (1, 2)]
    return np.ascontiguousarray(np.concatenate([codes[..., 0], *chroma]))


def write_coded(
    path: Path,
    pictures: Iterable[np.ndarray],
    tags: dict[str, int] | None = None,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> Path:
    """Write (H, W, 3) codes, uint16 for 10 bits, without loss of more than a code or two.

    tags: attributes of the encoder such as `color_trc`; none: the stream says nothing.
    """
    with av.open(str(path), "w") as container:
        stream: Any = None
        for number, codes in enumerate(pictures):
            layout = "yuv420p" if codes.dtype == np.uint8 else "yuv420p10le"
            if stream is None:
                settings = {"qp": "2", "x265-params": X265} | (options or {})
                if codec != "libx265":
                    del settings["x265-params"]
                stream = container.add_stream(codec, rate=30, options=settings)
                stream.height, stream.width = codes.shape[:2]
                stream.pix_fmt = layout
                for name, value in (tags or {}).items():
                    setattr(stream.codec_context, name, value)
            picture = av.VideoFrame.from_ndarray(_planes(codes), format=layout)
            for name, value in (tags or {}).items():
                setattr(picture, name, value)
            picture.pts, picture.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def join(paths: Sequence[Path], joined: Path) -> Path:
    """One transport stream after the other, as they are coded."""
    with av.open(str(joined), "w") as out:
        stream: Any = None
        begin = end = 0
        for path in paths:
            with av.open(str(path)) as part:
                source = part.streams.video[0]
                stream = stream or out.add_stream_from_template(source)
                for packet in part.demux(source):
                    if packet.size and packet.pts is not None and packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + begin, packet.dts + begin
                        end = max(end, packet.pts)
                        packet.stream = stream
                        out.mux(packet)
            begin = end + 3600
    return joined
