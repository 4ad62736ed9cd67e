"""Draws the cameras and points of a shard from above."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.media.sheets import MAX_BYTES, Picture, fullest, videos_of
from ego_assets.vision import draw, plots
from resources.lake import Lake
from resources.raw.reader import RawReader


def reconstruction_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    rows = lake.read(table, shard)
    valid = rows.filter(pc.field("is_valid"))
    if not valid.num_rows:
        reasons = pc.value_counts(rows["invalid_reason"]).to_pylist()
        tile = draw.blank_tile(800, 260)
        draw.draw_words(tile, "no frame is registered")
        for line, entry in enumerate(reasons[:8], 1):
            draw.draw_words(tile, f"{entry['counts']} frames: {entry['values']}", line)
        return "image/jpeg", draw.encode_jpeg(tile, MAX_BYTES)
    world = fullest(valid["world_id"])
    mine = rows.filter(pc.field("world_id") == world).sort_by("frame_index")
    keys = {k for k in mine["points_uri"].to_pylist() if k}
    points = np.concatenate([lake.read_arrays(k)["points"] for k in sorted(keys)]) if keys else None
    share = f"{valid.num_rows} of {rows.num_rows} frames of the shard registered"
    name = Path(videos_of(lake, shard)[mine["video_id"][0].as_py()]["uri"]).name
    title = f"{table} of shard {shard}: the camera's path in {name} ({share})"
    paths = {"camera": path_of(mine, "world_from_camera_m")}
    return "image/png", plots.plot_paths(paths, points, title, "world units")


def path_of(rows: pa.Table, column: str) -> np.ndarray:
    gap = [float("nan")] * 3
    return np.array([p if p is not None else gap for p in rows[column].to_pylist()])
