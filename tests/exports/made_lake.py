"""Lakes of several shards, sizes and rates, shard by shard: beyond what `numbered_lake` makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ego_assets.catalog import TABLES
from resources.lake import Lake
from tests.episodes.made_footage import FPS, SHARD, MadeVideo, cut
from tests.exports.numbered_lake import NumberedLake, provenance, robots, write_numbered

Made = NumberedLake
__all__ = ["SHARD", "Made", "MadeVideo", "add_shard", "make"]


def make(folder: Path, *videos: MadeVideo, **settings: Any) -> NumberedLake:
    """A lake of one shard with episodes of numbered videos, robots' joints among its tables."""
    made = NumberedLake(Lake(folder / "lake"), folder, {})
    add_shard(made, SHARD, *videos, **settings)
    return made


def add_shard(
    made: NumberedLake,
    shard: str,
    *videos: MadeVideo,
    size: tuple[int, int] = (192, 108),
    fps: int = 30,
    mapped: Callable[[dict[str, Any]], list[dict[str, Any]]] = lambda row: [row],
    **settings: Any,
) -> None:
    """Add a shard, whose videos have this size and rate. mapped: rows of `robot_mappings` in place
    of one."""
    made.lake.write_shard(shard, {"videos": []})
    rows = cut(*videos, **{"validation_share": 0.0} | settings)
    manifest = []
    for video in videos:
        path = made.folder / f"{video.video_id}.mp4"
        write_numbered(path, video.count, fps, size=size)
        width, height = size
        manifest.append(
            video.manifest() | {"uri": str(path), "width_px": width, "height_px": height}
        )
    joints = [row for one in robots(rows) for row in mapped(one)]
    rows = rows | {"video_manifest": manifest, "robot_mappings": joints}
    for table, mine in rows.items():
        item = "unit" if table != "video_manifest" else shard
        filled = [dict.fromkeys(TABLES[table].arrow_schema().names) | row for row in mine]
        for row in filled:
            row |= {"shard": shard} if "shard" in row else {}
            row |= {k: row[k] * FPS / fps for k in row if k.endswith("pts_s") and row[k]}
        made.lake.publish(table, shard, item, TABLES[table].from_rows(filled), provenance(item))
        made.tables.setdefault(table, []).extend(filled)
