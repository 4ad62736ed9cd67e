"""Of several video streams, the largest real one is taken, wherever it lies in the file."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ego_assets.media.decode import ClipFrames
from ego_assets.videos.inspection import probe_video
from ego_assets.videos.settings import ManifestSettings

Stream = tuple[str, int, int, int]
"""Codec, width, height, pictures."""
PROXY, MAIN = ("libx264", 160, 120, 12), ("libx264", 640, 480, 12)
STILL, SINGLE, MOTION_JPEG = (
    ("mjpeg", 1280, 960, 1),
    ("libx264", 1280, 960, 1),
    ("mjpeg", 640, 480, 12),
)
EMPTY = ("libx264", 1280, 960, 0)


def write_streams(path: Path, streams: Sequence[Stream]) -> Path:
    """Each stream is as light as its place: 60, 120, 180."""
    with av.open(str(path), "w") as container:
        made: list[tuple[Any, Stream]] = []
        for codec, width, height, count in streams:
            stream: Any = container.add_stream(codec, rate=30)
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            made.append((stream, (codec, width, height, count)))
        for place, (stream, (_, width, height, count)) in enumerate(made):
            image = np.full((height, width, 3), 60 * (place + 1), np.uint8)
            for number in range(count):
                picture = av.VideoFrame.from_ndarray(image, format="rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 30)
                container.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv"])  # the latter does not count its pictures
@pytest.mark.parametrize(
    ("streams", "chosen"),
    [
        ([PROXY, MAIN], 1),
        ([MAIN, PROXY], 0),
        ([MAIN, MAIN], 0),
        ([STILL, PROXY], 1),
        ([PROXY, STILL, MAIN], 2),
        ([SINGLE, PROXY], 1),
        ([PROXY, SINGLE], 0),
        ([MOTION_JPEG, PROXY], 0),
        ([PROXY, MOTION_JPEG], 1),
    ],
    ids=[
        "proxy first",
        "proxy last",
        "equal",
        "still first",
        "still between",
        "single first",
        "single last",
        "motion jpeg first",
        "motion jpeg last",
    ],
)
def test_the_largest_video_is_taken(
    tmp_path: Path, streams: Sequence[Stream], chosen: int, ending: str
) -> None:
    path = write_streams(tmp_path / f"v.{ending}", streams)
    row = probe_video(path, ManifestSettings())
    assert row["accepted"], row["reject_detail"]
    assert (row["video_stream_index"], row["video_stream_count"]) == (chosen, len(streams))
    assert (row["width_px"], row["height_px"]) == streams[chosen][1:3]
    frames = list(ClipFrames(path, 0, row["frame_count"]).read())
    assert frames[0].image.mean() == pytest.approx(60 * (chosen + 1), abs=3)


def test_a_stream_without_pictures_is_not_taken(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "v.mkv", [EMPTY, PROXY])
    row = probe_video(path, ManifestSettings())
    assert (row["accepted"], row["video_stream_index"], row["video_stream_count"]) == (True, 1, 2)


def test_a_still_picture_alone_is_rejected_as_one(tmp_path: Path) -> None:
    row = probe_video(write_streams(tmp_path / "v.mp4", [STILL]), ManifestSettings())
    assert row["reject_reason"] == "still_image"
