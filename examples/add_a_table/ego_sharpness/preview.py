"""The picture of a shard: its clips, each with its sharpness."""

from ego_assets.media.sheets import Picture, read_frames, sheet_of, spread, videos_of
from ego_assets.vision import draw
from resources.lake import Lake
from resources.raw.reader import RawReader


def sheet(lake: Lake, table: str, shard: str, raw: RawReader) -> Picture | None:
    videos = videos_of(lake, shard)
    clips = {clip["clip_id"]: clip for clip in lake.read("clips", shard).to_pylist()}
    tiles = []
    for row in spread(lake.read(table, shard).sort_by("clip_id").to_pylist(), 4):
        start = clips[row["clip_id"]]["start_frame"]
        for frame in read_frames(raw, videos[row["video_id"]], start, start + 1, [start]):
            tile = frame.image.copy()
            draw.draw_words(tile, f"sharpness {row['sharpness']:.0f}")
            tiles.append(tile)
    legend = [(None, "a clip's first frame, and how sharp the clip is")]
    return sheet_of(tiles, f"{table} of shard {shard}", legend)
