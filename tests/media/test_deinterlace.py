"""Interlaced pictures come out whole, each under its own number, and others as they are.

Every picture carries its number as bars along the top; a box moves from field to field.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
import pytest

from ego_assets.media.colour import UNTAGGED, RgbConverter
from ego_assets.media.decode import ClipFrames
from ego_assets.media.deinterlace import deinterlaced
from ego_assets.media.frame_index import index_frames
from ego_assets.operator import Frame
from ego_assets.videos.inspection import probe_video
from ego_assets.videos.settings import ManifestSettings
from tests.support.coded_video import join

WIDTH, HEIGHT, FRAMES, BITS = 320, 240, 40, 8
RATE = Fraction(1, 25)
STEP = 6
"""Pixels that the box moves from one field to the next."""


def field(number: int, moment: int) -> np.ndarray:
    """A picture whose bars say `number` and whose box is where it is at `moment`."""
    image = np.full((HEIGHT, WIDTH), 90, np.uint8)
    for bit in range(BITS):
        image[:40, bit * WIDTH // BITS : (bit + 1) * WIDTH // BITS] = 235 * (number >> bit & 1)
    left = moment * STEP % (WIDTH - 48)
    image[120:200, left : left + 48] = 220
    return image


def number_of(image: np.ndarray) -> int:
    places = (np.arange(BITS) * 2 + 1) * image.shape[1] // (2 * BITS)
    return int(((image[image.shape[0] // 12, places, 1] > 128) << np.arange(BITS)).sum())


def combing(image: np.ndarray) -> float:
    """How much each row of the box differs from the mean of those beside it."""
    rows = image[124:196, :, 1].astype(float)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


@pytest.fixture(scope="module", params=["tff", "bff"])
def interlaced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("interlaced") / f"{request.param}.mp4", request.param)


def write(path: Path, mode: str) -> Path:
    """A video of `field`s; mode: tff, bff or prog."""
    shown_first = 1 if mode == "bff" else 0
    flags = av.filter.Graph()
    layout = av.VideoFormat("yuv420p")
    source = flags.add_buffer(width=WIDTH, height=HEIGHT, format=layout, time_base=RATE)
    setter = flags.add("setfield", mode=mode)
    flags.link_nodes(source, setter, flags.add("buffersink")).configure()
    options = {"g": "10", "qp": "8"}
    if mode != "prog":
        options |= {"x264-params": f"{mode}=1", "flags": "+ildct+ilme"}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            woven = np.empty((HEIGHT, WIDTH), np.uint8)
            woven[shown_first::2] = field(number, 2 * number)[shown_first::2]
            second = 2 * number + (mode != "prog")
            woven[1 - shown_first :: 2] = field(number, second)[1 - shown_first :: 2]
            planes = np.concatenate([woven, np.full((HEIGHT // 2, WIDTH), 128, np.uint8)])
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            picture.pts, picture.time_base = number, RATE
            flags.push(picture)  # what the encoder believes
            container.mux(stream.encode(flags.pull()))
        container.mux(stream.encode())
    return path


def read(path: Path, start: int = 0, end: int = FRAMES, **options: Any) -> list[Frame]:
    return list(ClipFrames(path, start, end).read(**options))


def test_every_frame_comes_out_once_under_its_own_number(interlaced: Path) -> None:
    frames = read(interlaced)
    assert [f.index for f in frames] == list(range(FRAMES))
    assert [number_of(f.image) for f in frames] == list(range(FRAMES))
    times = index_frames(interlaced).pts_s
    assert [f.pts_s for f in frames] == times.tolist()


def test_two_moments_become_the_first(interlaced: Path) -> None:
    with av.open(str(interlaced)) as container:
        woven = [p.to_ndarray(format="rgb24") for p in container.decode(video=0)]
    for frame in read(interlaced)[1:-1]:
        box = np.flatnonzero(frame.image[160, :, 1] > 160)
        left = 2 * frame.index * STEP % (WIDTH - 48)
        if left + 48 + STEP < WIDTH - 48:  # where the box does not jump back
            assert abs(box[0] - left) <= 1
            assert abs(box[-1] - (left + 47)) <= 1
            assert combing(frame.image) < 0.25 * combing(woven[frame.index])


@pytest.mark.parametrize(("start", "end"), [(0, 5), (10, 12), (11, 19), (20, 21), (39, 40)])
def test_a_stretch_shows_what_the_whole_shows_interlaced(
    interlaced: Path, start: int, end: int
) -> None:
    whole = read(interlaced)
    part = read(interlaced, start, end)
    assert [f.index for f in part] == list(range(start, end))
    assert all(np.array_equal(f.image, whole[f.index].image) for f in part)


def test_single_frames_are_those_of_the_whole(interlaced: Path) -> None:
    whole = read(interlaced)
    chosen = [0, 3, 4, 17, 30, 39]
    some = read(interlaced, indices=chosen)
    assert [f.index for f in some] == chosen
    assert all(np.array_equal(f.image, whole[f.index].image) for f in some)


@pytest.mark.parametrize("modes", [["prog", "tff"], ["tff", "prog"]])
def test_a_video_that_is_interlaced_in_part_comes_out_whole(
    tmp_path: Path, modes: list[str]
) -> None:
    parts = [write(tmp_path / f"{mode}.ts", mode) for mode in modes]
    path = join(parts, tmp_path / "joined.ts")
    count = 2 * FRAMES
    frames = read(path, 0, count)
    assert [f.index for f in frames] == list(range(count))
    assert [number_of(f.image) for f in frames] == 2 * list(range(FRAMES))
    with av.open(str(path)) as container:
        stored = list(container.decode(video=0))
    flags = [bool(p.interlaced_frame) for p in stored]
    assert flags == [mode != "prog" for mode in modes for _ in range(FRAMES)]
    for frame, picture, is_interlaced in zip(frames, stored, flags, strict=True):
        image = picture.to_ndarray(format="rgb24")
        if not is_interlaced:
            assert np.array_equal(frame.image, image)
        elif frame.index % FRAMES not in (0, FRAMES - 1):
            assert combing(frame.image) < 0.25 * combing(image) + 1
    for start, end in [(35, 43), (FRAMES - 1, FRAMES), (FRAMES, FRAMES + 1), (51, 60), (22, 30)]:
        part = read(path, start, end)
        assert [f.index for f in part] == list(range(start, end))
        assert all(np.array_equal(f.image, frames[f.index].image) for f in part)
    some = [5, 38, 40, 41, 77]
    found = read(path, indices=some, end=count)
    assert [f.index for f in found] == some
    assert all(np.array_equal(f.image, frames[f.index].image) for f in found)


def test_the_manifest_tells_the_field_order(interlaced: Path) -> None:
    row = probe_video(interlaced, ManifestSettings())
    assert row["accepted"]
    assert row["field_order"] == {"tff": "tt", "bff": "bb"}[interlaced.stem]


def test_the_search_for_cuts_sees_pictures_as_they_are_stored(interlaced: Path) -> None:
    with av.open(str(interlaced)) as container:
        stored = [p.to_ndarray() for p in container.decode(video=0)]
    seen = [p.to_ndarray() for _, p in ClipFrames(interlaced, 0, FRAMES).read_pictures()]
    assert all(np.array_equal(*pair) for pair in zip(stored, seen, strict=True))


def flagged(picture: Any, matrix: int) -> Any:
    """The picture, interlaced and of this matrix, as a decoder would have it."""
    flags = av.filter.Graph()
    size = f"{picture.width}x{picture.height}"
    source = flags.add(
        "buffer", video_size=size, pix_fmt=picture.format.name, time_base="1/25", range="1"
    )
    flags.link_nodes(source, flags.add("setfield", mode="tff"), flags.add("buffersink")).configure()
    picture.pts, picture.time_base, picture.color_range = 0, RATE, 1
    flags.push(picture)
    found: Any = flags.pull()
    found.colorspace, found.color_range = matrix, 1
    assert found.interlaced_frame
    return found


LAYOUTS = ["yuv420p", "yuvj420p", "yuv422p10le", "p010le", "uyvy422", "yuyv422", "nv12"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("matrix", [1, 2, 3, 9, 10])
def test_pictures_of_any_kind_come_out_one_for_one(layout: str, matrix: int) -> None:
    """Also where the size changes on the way; 3 and 10 are matrices that libav's filters refuse."""

    def rgb(picture: Any) -> np.ndarray:
        converter = RgbConverter(UNTAGGED)
        return converter.convert(picture, picture.width, picture.height, shrinks=False)

    pictures, expected = [], []
    for number, side in enumerate([48, 48, 48, 64, 64]):
        image = np.full((side, side, 3), [200 - 40 * number, 60, 30], np.uint8)
        source: Any = av.VideoFrame.from_ndarray(image, format="rgb24")
        # With several threads, libav leaves gaps in some layouts.
        picture = source.reformat(format=layout, threads=1)
        pictures.append((number, flagged(picture, matrix)))
        expected.append(rgb(flagged(picture, matrix)).astype(int))
    found = list(deinterlaced(iter(pictures)))
    assert [n for n, _ in found] == [0, 1, 2, 3, 4]
    for (_, picture), image in zip(found, expected, strict=True):
        assert not picture.interlaced_frame
        # A field has no lines beyond the edge to be interpolated from, nor a picture one before it.
        assert np.abs(rgb(picture) - image)[8:-8].max() <= 3
