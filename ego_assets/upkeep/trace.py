"""The chain from a number in the lake back to the raw video: rows, file, attempt, code, input.

Here: what is known of a clip, a video or a file. Not here: words on a terminal.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ego_assets.catalog import TABLES, stage_of
from ego_assets.feature import LAKE
from ego_assets.models.suggestions import did_you_mean
from resources.lake import Lake
from resources.ledger import Ledger


class NothingFoundError(LookupError):
    """The lake knows no such clip, video or file."""


def trace(lake: Lake, ledger: Ledger, what: str) -> dict[str, Any]:
    """{"video": …, "clip": …, "tables": {table: {"rows", "file", "provenance", "ledger"}}}.

    what: a clip_id, a video_id, `TABLE/CLIP` for the rows of one table, or the path of a Parquet
    file of the lake (then {"files": {item: …}}). Raises NothingFoundError.
    """
    path = Path(what)
    if path.suffix == ".parquet" and path.is_file():
        return _trace_file(lake, path.resolve())
    table, _, item = what.rpartition("/")
    if table and table not in TABLES:
        known = did_you_mean(table, TABLES) or f": there are {', '.join(TABLES)}"
        raise NothingFoundError(f"there is no table {table}{known}")
    video_id = item.rpartition("-")[0] or item
    for shard in lake.shards():
        videos = lake.read("video_manifest", shard).to_pylist()
        video = next((v for v in videos if v["video_id"] == video_id and v["accepted"]), None)
        if video is None:
            continue
        clips = lake.read("clips", shard, items=[video_id]).to_pylist()
        clip = next((c for c in clips if c["clip_id"] == item), None)
        if clip is None and item != video_id:
            break
        tables = {}
        rows = lake.rows_of_files(shard).items()
        file = next((u for u, r in rows if r["accepted"] and r["video_id"] == video_id), "")
        for name in [table] if table else TABLES:
            kind = stage_of(name).item
            own = {"file": file, "video": video_id, "shard": shard, "lake": LAKE}.get(kind, item)
            where = LAKE if kind == "lake" else shard
            if clip is not None or kind != "clip":
                tables[name] = _of_item(lake, ledger, name, where, own)
        shown = ("video_id", "uri", "sha256", "byte_size", "duration_s", "accepted", "shard")
        found: dict[str, Any] = {"video": {k: video[k] for k in shown}, "tables": tables}
        return found | ({"clip": clip} if clip else {"clips": [c["clip_id"] for c in clips]})
    raise NothingFoundError(f"no clip, video or Parquet file of {lake.location} is called {what}")


def _of_item(lake: Lake, ledger: Ledger, table: str, shard: str, item: str) -> dict[str, Any]:
    provenance = lake.provenance(table, shard, item)
    entries = ledger.entries(stage=table, item_id=item)
    rows = 0
    if provenance is not None:
        # Items of the manifest and of clips are files and videos: their rows are few.
        rows = lake.read(table, shard, items=[item], columns=[TABLES[table].key[0]]).num_rows
    return {
        "rows": rows,
        "file": lake.storage.uri(f"{table}/{shard}.parquet") if provenance else None,
        "provenance": asdict(provenance) if provenance else None,
        "ledger": entries[0].told() if entries else None,
    }


def _trace_file(lake: Lake, path: Path) -> dict[str, Any]:
    if not path.is_relative_to(lake.root) or path.parent.parent != lake.root:
        raise NothingFoundError(f"{path} is no table file of the lake at {lake.root}")
    table, shard = path.parent.name, path.stem
    if table not in TABLES:
        raise NothingFoundError(f"{path}: {table} is no table")
    made = lake.provenances(table, shard)
    return {"table": table, "shard": shard, "units": {u: asdict(p) for u, p in made.items()}}
