"""Draws the waterfall of a shard, a frame of its episodes, and how hands move in one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.arrays import array_of
from ego_assets.episodes.waterfall import COLUMNS, waterfall
from ego_assets.media.sheets import TILES, Picture, read_frames, sheet_of, spread, videos_of
from ego_assets.vision import draw, plots
from resources.lake import Lake
from resources.raw.reader import RawReader


def waterfall_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    """Hours of footage, what each rule leaves of them, and what is kept."""
    rows = lake.read(table, shard, columns=COLUMNS)
    if not rows.num_rows:
        return None
    title = f"yield of shard {shard}"
    return "image/png", plots.plot_waterfall(waterfall([rows]).steps(), "s", title)


def episodes_sheet(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    """The middle frame of some episodes, with what it says of them."""
    episodes = spread(lake.read(table, shard).sort_by("episode_id").to_pylist(), TILES)
    videos, tiles = videos_of(lake, shard), []
    for episode in episodes:
        video = videos[episode["video_id"]]
        start, end = episode["start_frame"], episode["end_frame"]
        for frame in read_frames(raw, video, start, end, [(start + end) // 2]):
            tile = np.ascontiguousarray(frame.image).copy()
            length = episode["end_pts_s"] - episode["start_pts_s"]
            at = f"{episode['start_pts_s']:.1f} s"
            draw.draw_words(tile, f"{Path(video['uri']).name} {at}, {length:.1f} s")
            draw.draw_label(tile, f"{episode['instruction']} ({episode['split']})", 8, 40)
            tiles.append(tile)
    named = "one" if len(tiles) == 1 else f"{len(tiles)} of them"
    return sheet_of(tiles, f"{table} of shard {shard}: the middle frame of {named}")


def cameras_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    """The path of the camera in the episode with the most frames."""
    rows = lake.read(table, shard)
    if not rows.num_rows:
        return None
    episode, mine, first, count = _largest(rows)
    known = mine.filter(pc.is_valid(mine["world_from_camera_m"]))
    path = np.full((count, 3), np.nan)
    path[known["frame_index"].to_numpy() - first] = array_of(known["world_from_camera_m"])
    title = f"{episode}: the camera in the world, known in {len(known)} of {count} frames"
    return "image/png", plots.plot_paths({"camera": path}, None, title, "m")


def trajectories_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    """The wrists of the episode with the most rows."""
    rows = lake.read(table, shard)
    if not rows.num_rows:
        return None
    episode, mine, first, count = _largest(rows)
    in_world = mine["world_from_hand_m"].null_count == 0
    column = "world_from_hand_m" if in_world else "camera_from_hand_m"
    paths = {}
    for side in ("left", "right"):
        of_side = mine.filter(pc.field("side") == side)
        path = np.full((count, 3), np.nan)
        path[of_side["frame_index"].to_numpy() - first] = array_of(of_side[column])
        if of_side.num_rows:
            paths[f"{side} wrist"] = path
    where = "the world" if in_world else "the camera frame"
    return "image/png", plots.plot_paths(paths, None, f"{episode}: wrists in {where}", "m")


def _largest(rows: pa.Table) -> tuple[str, pa.Table, int, int]:
    """(id, rows by frame, first frame, frames) of the episode with the most rows."""
    counts = pc.value_counts(rows["episode_id"]).to_pylist()
    episode: str = max(counts, key=lambda c: (c["counts"], c["values"]))["values"]
    mine = rows.filter(pc.field("episode_id") == episode).sort_by("frame_index")
    first = mine["frame_index"][0].as_py()
    return episode, mine, first, mine["frame_index"][-1].as_py() - first + 1
