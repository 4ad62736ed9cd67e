"""Contact sheets of a shard: frames spread over it, with what was found drawn into them.

Here: which rows and frames are shown, and putting them together. Not here: what is drawn for a
table (`preview.py` of its room), drawing itself (`ego_assets.vision.draw`, `plots`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.media.decode import ClipFrames
from ego_assets.operator import Frame
from ego_assets.vision import draw
from resources.lake import Lake
from resources.raw.reader import RawReader

TILES = 4
TILE_SIDE_PX = 400
COLUMNS = 2
"""Dagster's UI shows pictures as wide as they are, and has about 800 px for them."""
MAX_BYTES = 120_000
"""Of a picture: each table of each shard has one."""
Rows = list[dict[str, Any]]
Picture = tuple[str, bytes]
"""Media type, and the encoded picture."""
Preview = Callable[[Lake, str, str, RawReader], Picture | None]
"""(lake, table, shard, raw files) to the picture of that shard's table; None: nothing to show."""


def frames_sheet(
    paint: Callable[[Frame, np.ndarray, Rows, dict[str, Any]], None],
    legend: Callable[[Rows], Iterable[draw.LegendEntry]] = lambda rows: (),
) -> Preview:
    """A sheet of frames spread over the shard, each painted with its rows.

    legend: what the colours stand for, by the rows that are painted.
    """

    def sheet(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
        videos = videos_of(lake, shard)
        clips = {c["clip_id"]: c for c in lake.read("clips", shard).to_pylist()}
        every = rows = lake.read(table, shard)
        if "is_valid" in rows.column_names:
            rows = rows.filter(pc.field("is_valid"))
        tiles, painted = [], []
        for clip_id, indices in chosen_frames(rows).items():
            mine = rows.filter(pc.field("clip_id") == clip_id)
            clip = clips[clip_id]
            video = videos[clip["video_id"]]
            for frame in read_frames(raw, video, clip["start_frame"], clip["end_frame"], indices):
                tile = np.ascontiguousarray(frame.image).copy()
                chosen = mine.filter(pc.field("frame_index") == frame.index).to_pylist()
                paint(frame, tile, chosen, video)
                draw.draw_words(tile, f"{Path(video['uri']).name} frame {frame.index}")
                tiles.append(tile)
                painted += chosen
        entries = list(legend(painted))
        if bad := every.num_rows - rows.num_rows:
            words = (
                f"not drawn: {bad:,} of the shard's {every.num_rows:,} rows, which are not valid"
            )
            entries.append((None, words))
        frames = "1 frame" if len(tiles) == 1 else f"{len(tiles)} frames"
        return sheet_of(tiles, f"{table} of shard {shard}, drawn into {frames}", entries)

    return sheet


def videos_of(lake: Lake, shard: str) -> dict[str, dict[str, Any]]:
    rows = lake.read("video_manifest", shard).to_pylist()
    return {v["video_id"]: v for v in rows if v["accepted"]}


def read_frames(
    raw: RawReader,
    video: dict[str, Any],
    start: int,
    end: int,
    indices: list[int] | None = None,
) -> Iterator[Frame]:
    with raw.hold(video["uri"], video["sha256"]) as path:
        frames = ClipFrames(path, start, end, stream_index=video.get("video_stream_index"))
        yield from frames.read(max_side_px=TILE_SIDE_PX, indices=indices)


def chosen_frames(rows: pa.Table) -> dict[str, list[int]]:
    """Up to TILES frames that have rows, spread over clips and time: {clip: frame indices}."""
    keys = rows.select(["clip_id", "frame_index"]).group_by(["clip_id", "frame_index"])
    found = sorted((r["clip_id"], r["frame_index"]) for r in keys.aggregate([]).to_pylist())
    # Two clips may show one frame; the middles of equal stretches avoid starts and ends.
    chosen: dict[str, list[int]] = {}
    for clip_id, frame_index in spread(found, TILES):
        chosen.setdefault(clip_id, []).append(frame_index)
    return chosen


def spread(items: list[Any], count: int) -> list[Any]:
    if len(items) <= count:
        return items
    return [items[int((i + 0.5) * len(items) / count)] for i in range(count)]


def fullest(column: pa.ChunkedArray) -> str:
    counts = pc.value_counts(column).to_pylist()
    most: str = max(counts, key=lambda c: (c["counts"], c["values"]))["values"]
    return most


def sheet_of(
    tiles: list[np.ndarray], title: str = "", legend: Iterable[draw.LegendEntry] = ()
) -> Picture | None:
    """Put tiles together, with a title and what their colours stand for."""
    if not tiles:
        return None
    sheet = draw.contact_sheet(tiles, COLUMNS, TILE_SIDE_PX)
    sheet = draw.with_legend(sheet, title, legend)
    return "image/jpeg", draw.encode_jpeg(sheet, MAX_BYTES)
