"""What a raw file's audio is, and when a player begins it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from ego_assets.media.containers import must_be_damage, open_media


def choose_audio_stream(container: Any) -> Any | None:
    """The stream with the highest sample rate, then the most channels, then the first."""
    streams = [s for s in container.streams.audio if s.codec_context is not None]
    return max(streams, key=lambda s: (s.sample_rate or 0, s.channels or 0, -s.index), default=None)


def audio_columns(stream: Any | None) -> dict[str, Any]:
    """Columns of `video_manifest` that headers tell."""
    if stream is None:
        return {}
    return {
        "audio_codec": stream.codec_context.name,
        "audio_rate_hz": stream.sample_rate or None,
        "audio_channels": stream.channels or None,
    }


def audio_start_s(path: Path, stream_index: int, first_picture_s: float) -> float | None:
    """Seconds from the first picture to the first sample that is heard; None: none decodes.

    A decoder leaves out what edit lists and the encoder's delay say is not played.
    first_picture_s: time stamp of that picture in the container. Raises OSError if the file cannot
    be read.
    """
    with open_media(path) as container:
        try:
            first = next(container.decode(container.streams[stream_index]), None)
        except av.FFmpegError as error:
            must_be_damage(error, path)
            return None
        if first is None or first.pts is None or first.time_base is None:
            return None
        return float(first.pts * first.time_base) - first_picture_s
