"""Draws the joint positions of a robot hand over time."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from ego_assets.media.sheets import Picture, fullest
from ego_assets.vision import plots
from resources.lake import Lake
from resources.raw.reader import RawReader


def joints_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    rows = lake.read(table, shard)
    if not rows.num_rows:
        return None
    track = fullest(rows["track_id"])
    mine = rows.filter(pc.field("track_id") == track)
    robot = mine["robot"][0].as_py()
    mine = mine.filter(pc.field("robot") == robot).sort_by("pts_s").to_pylist()
    times = np.array([r["pts_s"] for r in mine])
    joints = np.array([r["joint_positions"] for r in mine])
    errors = np.array([r["fingertip_error_m"] for r in mine]) * 1000
    series = [
        ("joints [rad]", times, joints, mine[0]["joint_names"]),
        ("fingertip error [mm]", times, errors, mine[0]["fingertip_names"]),
    ]
    return "image/png", plots.plot_series(series, f"{robot}, {mine[0]['side']} hand, track {track}")
