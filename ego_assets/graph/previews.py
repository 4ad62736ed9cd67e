"""The picture of each asset: what a person looks at first when a shard is done.

Here: which rows are shown, and the metadata that carries the picture. Not here: drawing
(`ego_assets.vision.draw`, `plots`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ego_assets.engine.tasks import intrinsics_of
from ego_assets.operator import Frame
from ego_assets.vision import draw, plots
from ego_assets.vision.geometry import matrix_from_quaternion
from ego_assets.vision.mask_scaling import decode_area
from resources.lake import Lake
from resources.raw.reader import Memory, RawReader

TILES = 9
TILE_SIDE_PX = 256
MAX_BYTES = 45_000
"""Of a picture: every shard's pictures lie in Dagster's database."""
_Rows = list[dict[str, Any]]
_Preview = Callable[[Lake, str, str, RawReader], tuple[str, bytes] | None]


def preview(
    lake: Lake, table: str, shard: str, memory: Memory | None = None
) -> tuple[str, bytes] | None:
    """(media type, picture) of a shard's table, or None where there is nothing to show.

    memory: of the raw files, which are hashed without it.
    """
    return _PREVIEWS[table](lake, table, shard, RawReader(memory=memory))


def preview_metadata(
    lake: Lake, table: str, shard: str, log: Any, memory: Memory | None = None
) -> dict[str, Any]:
    """Metadata entry `picture`: markdown with the picture inside, so that it needs no server."""
    import dagster as dg

    try:
        found = preview(lake, table, shard, memory)
    except Exception as error:  # a picture must never fail a result
        log.warning(f"no picture of {table} {shard}: {type(error).__name__}: {error}")
        return {"picture": f"could not be drawn: {type(error).__name__}: {error}"}
    if found is None:
        return {"picture": "no rows to show"}
    media, data = found
    return {"picture": dg.MetadataValue.md(f"![{table} {shard}]({plots.data_uri(data, media)})")}


def _manifest_sheet(lake: Lake, table: str, shard: str, raw: RawReader) -> tuple[str, bytes] | None:
    videos = lake.read("video_manifest", shard).sort_by("uri").to_pylist()
    tiles = []
    for video in _spread(videos, 12):
        name = Path(video["uri"]).name
        if video["accepted"]:
            frame = next(_read(raw, video, 0, 1, [0]), None)
            tile = frame.image.copy() if frame else draw.blank_tile()
            facts = f"{video['duration_s']:.1f} s {video['average_rate_fps']:.3g} fps"
            words = [name, f"{video['width_px']}x{video['height_px']} {facts}"]
        else:
            tile = draw.blank_tile()
            words = [name, f"rejected: {video['reject_reason']}", video["reject_detail"] or ""]
        for line, text in enumerate(words):
            draw.draw_words(tile, text, line)
        tiles.append(tile)
    return _sheet(tiles)


def _clips_sheet(lake: Lake, table: str, shard: str, raw: RawReader) -> tuple[str, bytes] | None:
    videos = _videos(lake, shard)
    tiles = []
    clips = lake.read("clips", shard).sort_by("clip_id").to_pylist()
    for clip in _spread(clips, 12):
        video = videos[clip["video_id"]]
        first = clip["start_frame"]
        for frame in _read(raw, video, first, first + 1, [first]):
            tile = frame.image.copy()
            span = f"{clip['start_pts_s']:.1f}-{clip['end_pts_s']:.1f} s"
            draw.draw_words(tile, Path(video["uri"]).name)
            draw.draw_words(tile, f"clip {clip['clip_index']} {span} {clip['split_reason']}", 1)
            tiles.append(tile)
    return _sheet(tiles)


def _frames_sheet(
    paint: Callable[[Frame, np.ndarray, _Rows, dict[str, Any]], None],
) -> _Preview:
    """A sheet of frames spread over the shard, each painted with its rows."""

    def sheet(lake: Lake, table: str, shard: str, raw: RawReader) -> tuple[str, bytes] | None:
        videos = _videos(lake, shard)
        clips = {c["clip_id"]: c for c in lake.read("clips", shard).to_pylist()}
        rows = lake.read(table, shard)
        if "is_valid" in rows.column_names:
            rows = rows.filter(pc.field("is_valid"))
        tiles = []
        for clip_id, indices in _chosen_frames(rows).items():
            mine = rows.filter(pc.field("clip_id") == clip_id)
            clip = clips[clip_id]
            video = videos[clip["video_id"]]
            for frame in _read(raw, video, clip["start_frame"], clip["end_frame"], indices):
                tile = np.ascontiguousarray(frame.image).copy()
                chosen = mine.filter(pc.field("frame_index") == frame.index).to_pylist()
                paint(frame, tile, chosen, video)
                draw.draw_words(tile, f"{Path(video['uri']).name} frame {frame.index}")
                tiles.append(tile)
        return _sheet(tiles)

    return sheet


def _paint_detections(frame: Frame, tile: np.ndarray, rows: _Rows, video: dict[str, Any]) -> None:
    for row in rows:
        color = draw.side_color(row["side"]) if row["side"] else draw.color_of(row["label"])
        draw.draw_box(tile, np.array(row["box"]) * frame.scale, color)


def _paint_masks(frame: Frame, tile: np.ndarray, rows: _Rows, video: dict[str, Any]) -> None:
    for row in rows:
        size = (tile.shape[0], tile.shape[1])
        mask = decode_area(row["rle"], row["height_px"], row["width_px"], size)
        color = draw.side_color(row["side"]) if "side" in row else draw.color_of(row["track_id"])
        draw.overlay_mask(tile, mask, color)
        draw.draw_box(tile, np.array(row["box"]) * frame.scale, color)


def _paint_hands(frame: Frame, tile: np.ndarray, rows: _Rows, video: dict[str, Any]) -> None:
    for row in rows:
        joints = np.array(row["joints_px"]) * frame.scale
        draw.draw_hand(tile, joints, draw.side_color(row["side"]))


def _paint_axes(frame: Frame, tile: np.ndarray, rows: _Rows, video: dict[str, Any]) -> None:
    matrix = intrinsics_of(video).matrix(frame.scale)
    for row in rows:
        pose = np.eye(4)
        pose[:3, :3] = matrix_from_quaternion(np.array(row["camera_from_object_xyzw"]))
        pose[:3, 3] = row["camera_from_object_m"]
        draw.draw_axes(tile, matrix, pose, length=0.15 * float(np.linalg.norm(pose[:3, 3])))


def _reconstruction_plot(
    lake: Lake, table: str, shard: str, raw: RawReader
) -> tuple[str, bytes] | None:
    rows = lake.read(table, shard)
    valid = rows.filter(pc.field("is_valid"))
    if not valid.num_rows:
        reasons = pc.value_counts(rows["invalid_reason"]).to_pylist()
        tile = draw.blank_tile(640, 240)
        draw.draw_words(tile, "no frame is registered")
        for line, entry in enumerate(reasons[:8], 1):
            draw.draw_words(tile, f"{entry['counts']} frames: {entry['values']}", line)
        return "image/jpeg", draw.encode_jpeg(tile, MAX_BYTES)
    world = _fullest(valid["world_id"])
    mine = rows.filter(pc.field("world_id") == world).sort_by("frame_index")
    keys = {k for k in mine["points_uri"].to_pylist() if k}
    points = np.concatenate([lake.read_arrays(k)["points"] for k in sorted(keys)]) if keys else None
    share = f"{valid.num_rows} of {rows.num_rows} frames of the shard registered"
    title = f"cameras and points of {world} ({share})"
    paths = {"camera": _path(mine, "world_from_camera_m")}
    return "image/png", plots.plot_paths(paths, points, title, "world units")


def _timeline_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> tuple[str, bytes] | None:
    rows = lake.read(table, shard)
    if not rows.num_rows:
        return None
    video = _fullest(rows["video_id"])
    mine = rows.filter(pc.field("video_id") == video).to_pylist()
    tracks = sorted({r["track_id"] for r in mine})[:24]
    shown = [r for r in mine if r["track_id"] in tracks]
    return "image/png", plots.plot_timeline(shown, f"movements of objects in video {video}")


def _robot_plot(lake: Lake, table: str, shard: str, raw: RawReader) -> tuple[str, bytes] | None:
    rows = lake.read(table, shard)
    if not rows.num_rows:
        return None
    track = _fullest(rows["track_id"])
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


_PREVIEWS: dict[str, _Preview] = {
    "video_manifest": _manifest_sheet,
    "clips": _clips_sheet,
    "detections": _frames_sheet(_paint_detections),
    "object_masks": _frames_sheet(_paint_masks),
    "hand_masks": _frames_sheet(_paint_masks),
    "hand_poses": _frames_sheet(_paint_hands),
    "scene_reconstruction": _reconstruction_plot,
    "object_poses": _frames_sheet(_paint_axes),
    "object_movements": _timeline_plot,
    "robot_mappings": _robot_plot,
}


def _videos(lake: Lake, shard: str) -> dict[str, dict[str, Any]]:
    rows = lake.read("video_manifest", shard).to_pylist()
    return {v["video_id"]: v for v in rows if v["accepted"]}


def _read(
    raw: RawReader, video: dict[str, Any], start: int, end: int, indices: list[int]
) -> Iterator[Frame]:
    from ego_assets.media.decode import ClipFrames

    with raw.hold(video["uri"], video["sha256"]) as path:
        yield from ClipFrames(path, start, end).read(max_side_px=TILE_SIDE_PX, indices=indices)


def _chosen_frames(rows: pa.Table) -> dict[str, list[int]]:
    """Up to TILES frames that have rows, spread over clips and time: {clip: frame indices}."""
    keys = rows.select(["clip_id", "frame_index"]).group_by(["clip_id", "frame_index"])
    found = sorted((r["clip_id"], r["frame_index"]) for r in keys.aggregate([]).to_pylist())
    # Two clips may show one frame; the middles of equal stretches avoid starts and ends.
    chosen: dict[str, list[int]] = {}
    for clip_id, frame_index in _spread(found, TILES):
        chosen.setdefault(clip_id, []).append(frame_index)
    return chosen


def _spread(items: list[Any], count: int) -> list[Any]:
    if len(items) <= count:
        return items
    return [items[int((i + 0.5) * len(items) / count)] for i in range(count)]


def _fullest(column: pa.ChunkedArray) -> str:
    counts = pc.value_counts(column).to_pylist()
    return max(counts, key=lambda c: (c["counts"], c["values"]))["values"]


def _path(rows: pa.Table, column: str) -> np.ndarray:
    gap = [float("nan")] * 3
    return np.array([p if p is not None else gap for p in rows[column].to_pylist()])


def _sheet(tiles: list[np.ndarray]) -> tuple[str, bytes] | None:
    if not tiles:
        return None
    return "image/jpeg", draw.encode_jpeg(
        draw.contact_sheet(tiles, side_px=TILE_SIDE_PX), MAX_BYTES
    )
