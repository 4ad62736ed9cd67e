"""Draws the first frames of a shard's videos and clips."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from ego_assets.media.sheets import Picture, read_frames, sheet_of, spread, videos_of
from ego_assets.vision import draw
from resources.lake import Lake
from resources.raw.reader import RawReader

TILES = 6
"""Videos or clips that are shown."""


def manifest_sheet(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    videos = lake.read("video_manifest", shard).sort_by("uri").to_pylist()
    tiles = []
    for video in spread(videos, TILES):
        name = Path(video["uri"]).name
        if video["accepted"]:
            # The first that is not damaged.
            frame = next(read_frames(raw, video, 0, video["frame_count"]), None)
            tile = frame.image.copy() if frame else draw.blank_tile()
            facts = f"{video['duration_s']:.1f} s {video['average_rate_fps']:.3g} fps"
            words = [name, f"{video['width_px']}x{video['height_px']} {facts}"]
        else:
            tile = draw.blank_tile()
            words = [name, f"rejected: {video['reject_reason']}", video["reject_detail"] or ""]
        for line, text in enumerate(words):
            draw.draw_words(tile, text, line)
        tiles.append(tile)
    legend = "a video's first frame; dark: it was rejected, for the reason that is given"
    title = f"{table} of shard {shard}: {len(tiles)} of {len(videos)} videos"
    return sheet_of(tiles, title, [(None, legend)])


def clips_sheet(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    videos = videos_of(lake, shard)
    tiles = []
    clips = lake.read("clips", shard).sort_by("clip_id").to_pylist()
    for clip in spread(clips, TILES):
        video = videos[clip["video_id"]]
        first = clip["start_frame"]
        for frame in islice(read_frames(raw, video, first, clip["end_frame"]), 1):
            tile = frame.image.copy()
            span = f"{clip['start_pts_s']:.1f}-{clip['end_pts_s']:.1f} s"
            draw.draw_words(tile, Path(video["uri"]).name)
            draw.draw_words(tile, f"clip {clip['clip_index']} {span} {clip['split_reason']}", 1)
            tiles.append(tile)
    legend = "a clip's first frame; its number, from when to when, and why it begins there"
    title = f"{table} of shard {shard}: {len(tiles)} of {len(clips)} clips"
    return sheet_of(tiles, title, [(None, legend)])
