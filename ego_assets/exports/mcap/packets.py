"""The packets of a video as `foxglove.CompressedVideo` wants them: each can be decoded when those
before it have been, and a key frame brings all that a decoder has to know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext

from ego_assets.exports.files import naming

_FILTERS = {"h264": "h264_mp4toannexb", "av1": "av1_metadata=td=remove"}


def packets_of(path: Path, codec: str) -> Iterator[bytes]:
    """Yield the packets of a video without B-frames that an export wrote, one a frame: H.264 as
    Annex B, AV1 as a low-overhead bitstream."""
    with naming(path), av.open(str(path)) as source:
        stream = source.streams.video[0]
        convert = BitStreamFilterContext(_FILTERS[codec], stream)
        for packet in source.demux(stream):
            yield from map(bytes, convert.filter(packet if packet.size else None))
