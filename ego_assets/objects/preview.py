"""Draws the axes of objects into frames of a shard, and what moves when."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ego_assets.media.sheets import Picture, Rows, frames_sheet, fullest, videos_of
from ego_assets.operator import LENS, Frame, Intrinsics, intrinsics_of
from ego_assets.vision import draw, plots
from ego_assets.vision.cameras import lens_of_scene, project_points, scaled_intrinsics
from ego_assets.vision.geometry import matrix_from_quaternion
from resources.lake import Lake
from resources.raw.reader import RawReader


def _paint_axes(frame: Frame, tile: np.ndarray, rows: Rows, lens: Intrinsics) -> None:
    camera = scaled_intrinsics(lens, frame.scale, frame.scale)
    for row in rows:
        pose = np.eye(4)
        pose[:3, :3] = matrix_from_quaternion(np.array(row["camera_from_object_xyzw"]))
        pose[:3, 3] = row["camera_from_object_m"]
        draw.draw_axes(tile, camera, pose, length=0.15 * float(np.linalg.norm(pose[:3, 3])))
        if pose[2, 3] > 0:
            x, y = project_points(camera, pose[None, :3, 3])[0]
            draw.draw_label(tile, draw.short_track(row["track_id"]), x + 6, y + 6)


def _legend(rows: Rows) -> Iterable[draw.LegendEntry]:
    yield from ((color, f"{name} axis") for name, color in draw.AXES.items())
    yield None, "of each object's frame, named by its track; length: 15 % of its distance"


def axes_sheet(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    columns = ["clip_id", *LENS]
    scene = lake.read("scene_reconstruction", shard, columns=columns)
    scene = scene.filter(pc.field("intrinsics_source") == "self_calibrated")
    found = {row["clip_id"]: row for row in scene.to_pylist()}

    def paint(frame: Frame, tile: np.ndarray, rows: Rows, video: dict[str, Any]) -> None:
        scene_of = found.get(rows[0]["clip_id"], {})
        _paint_axes(frame, tile, rows, lens_of_scene(scene_of, intrinsics_of(video)))

    return frames_sheet(paint, _legend)(lake, table, shard, raw)


def timeline_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    rows = lake.read(table, shard)
    if not rows.num_rows:
        return None
    video = fullest(rows["video_id"])
    mine = rows.filter(pc.field("video_id") == video).to_pylist()
    tracks = sorted({r["track_id"] for r in mine})[:24]
    shown = [r for r in mine if r["track_id"] in tracks]
    name = Path(videos_of(lake, shard)[video]["uri"]).name
    return "image/png", plots.plot_timeline(shown, f"{table} of shard {shard}: objects of {name}")
