"""Makes whole pictures of interlaced ones: libav's `bwdif`, one picture out for each one in.

The picture shows the moment of its first field; lines of the second are interpolated from the
field, and from the pictures before and after. So each needs its neighbours, and comes out the same
wherever decoding began as long as they are there. Pictures that are flagged as progressive pass
through as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.filter

from ego_assets.media.colour import convertible

_TICK = Fraction(1, 1000)
Indexed = tuple[int, Any]


def deinterlaced(pictures: Iterator[Indexed]) -> Iterator[Indexed]:
    """(index, picture) of each of these, in order. Every picture's time stamp becomes its index."""
    graph, shape = None, None
    for index, picture in pictures:
        convertible(picture)
        found = (picture.width, picture.height, picture.format.name)
        if graph is None or found != shape:
            if graph is not None:
                yield from _rest(graph)
            graph, shape = _graph(picture), found
        picture.pts, picture.time_base = index, _TICK
        graph.push(picture)
        yield from _ready(graph)
    if graph is not None:
        yield from _rest(graph)


def _graph(picture: Any) -> Any:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        video_size=f"{picture.width}x{picture.height}",
        pix_fmt=picture.format.name,
        time_base=str(_TICK),
        colorspace=str(int(picture.colorspace)),
        range=str(int(picture.color_range)),
    )
    filtering = graph.add("bwdif", mode="send_frame", parity="auto", deint="interlaced")
    graph.link_nodes(source, filtering, graph.add("buffersink")).configure()
    return graph


def _ready(graph: Any) -> Iterator[Indexed]:
    while True:
        try:
            picture = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield picture.pts // 2, picture  # the filter counts in half ticks


def _rest(graph: Any) -> Iterator[Indexed]:
    graph.push(None)
    yield from _ready(graph)
