"""Makes a lake whose shards are finished, without computing: files, rows, ledger and what Dagster
has on record are as runs leave them.

The raw files are no videos: nobody opens them, since what is done is told by their state.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_project.home import open_instance
from ego_assets.catalog import TABLES
from ego_assets.engine.choices import Part, share_out
from ego_assets.engine.plan import ShardInputs, StageSpec, WorkItem, chain, probe_inputs
from ego_assets.graph.backends import Backends
from ego_assets.graph.partitions import SHARDS
from ego_assets.graph.recipes import Recipes
from ego_assets.intake.shards import RawFile, write_shard
from ego_assets.intake.sources import look_at
from ego_assets.upkeep.recovery.agreement import note_file
from resources.lake import Lake, Provenance
from resources.ledger import Ledger, State
from resources.ledger.sources import Source, Sources
from resources.ledger.tables import work
from resources.raw.places import files_of
from resources.storage import Storage

CLIPS = 2
FRAMES = 600
OLD = 1_700_000_000


def make_finished_lake(folder: Path, shards: int, files: int = 1) -> Lake:
    """Make a lake of so many shards, with so many raw files of two clips each."""
    lake, raw = Lake(folder / "lake"), folder / "raw"
    raw.mkdir(parents=True)
    ledger = Ledger.of(lake.location)
    ledger.open()
    recipes = Recipes(Storage(lake_root=lake.location), Backends())
    made = []
    for number in range(shards):
        paths = [raw / f"{number:05d}-{n:02d}.mp4" for n in range(files)]
        for path in paths:
            path.write_bytes(path.name.encode())
            os.utime(path, (OLD, OLD))  # it may not be written while it is looked at
        shard = write_shard(lake, [RawFile(str(p), p.stat().st_size, 40.0) for p in paths])
        _finish(lake, ledger, shard, [p.spec for parts in recipes.default for p in parts])
        made.append(shard)
    with open_instance(lake.location) as instance:
        instance.add_dynamic_partitions(SHARDS, made)
        for shard in made:
            for table in TABLES:
                event = dg.AssetMaterialization(table, partition=shard)
                instance.report_runless_asset_event(event)
    return lake


def _finish(lake: Lake, ledger: Ledger, shard: str, specs: Sequence[StageSpec]) -> None:
    sources = Sources(ledger)
    entered = []
    for file in files_of(lake, shard):
        state, sidecar = look_at(file.uri)
        sha256, inputs = _sha256(file.uri), probe_inputs(file.uri)
        size = state.byte_size
        entered.append(
            Source(file.item, shard, file.uri, size, sha256, state.identity, sidecar, inputs)
        )
    sources.enter(entered)
    sources.update(entered)
    for spec in specs:
        inputs = ShardInputs(lake, ledger, shard)
        items = []
        for _, groups in share_out([Part(spec)], inputs):
            for group in groups:
                previous = None
                for item in group.items:
                    previous = chain(item.base_fingerprint, previous)
                    items.append((item, previous))
        for table in spec.tables:
            entries = [_make(lake, table, shard, item, mark) for item, mark in items]
            with ledger.transaction() as connection:
                connection.execute(work.insert(), entries)
            lake.compact(table, shard, lambda made=items: {u.item_id for u, _ in made})
            note_file(lake, ledger, table, shard)


def _make(lake: Lake, table: str, shard: str, item: WorkItem, fingerprint: str) -> dict[str, Any]:
    """Publish an item's rows. Returns its entry in the ledger."""
    names: dict[str, Any] = dict.fromkeys(Provenance.__dataclass_fields__, "x")
    own = {"attempt": 1, "token": 1, "fingerprint": fingerprint, "input_hash": item.input_hash}
    origin = Provenance(**names | own | {"provisional": ""})
    batch = TABLES[table].from_rows(_rows(table, shard, item))
    published = lake.publish(table, shard, item.item_id, batch, origin)
    return {
        "stage": table,
        "item_id": item.item_id,
        "shard": shard,
        "video_id": item.video_id,
        "fingerprint": fingerprint,
        "state": State.DONE,
        "attempts": 1,
        "token": 1,
        "digest": published.sha256,
    }


def _rows(table: str, shard: str, item: WorkItem) -> list[dict[str, Any]]:
    if table == "video_manifest":
        return [_video(shard, item)]
    if table == "clips":
        return [_clip(shard, item, index) for index in range(CLIPS)]
    return []


def _video(shard: str, item: WorkItem) -> dict[str, Any]:
    sha256 = _sha256(item.payload["uri"])
    return dict.fromkeys(TABLES["video_manifest"].model_fields) | {
        "video_id": sha256[:16],
        "shard": shard,
        "uri": item.payload["uri"],
        "byte_size": item.payload["byte_size"],
        "sha256": sha256,
        "accepted": True,
        "width_px": 1920,
        "height_px": 1080,
        "frame_count": CLIPS * FRAMES,
        "average_rate_fps": 30.0,
        "duration_s": CLIPS * FRAMES / 30,
        "camera_model": "PINHOLE",
        "fx_px": 1000.0,
        "fy_px": 1000.0,
        "cx_px": 960.0,
        "cy_px": 540.0,
        "intrinsics_source": "assumed_fov",
    }


def _clip(shard: str, item: WorkItem, index: int) -> dict[str, Any]:
    return dict.fromkeys(TABLES["clips"].model_fields) | {
        "video_id": item.item_id,
        "shard": shard,
        "clip_id": f"{item.item_id}-{index:04d}",
        "clip_index": index,
        "take_id": f"{item.item_id}-t000",
        "index_in_take": index,
        "start_frame": index * FRAMES,
        "end_frame": (index + 1) * FRAMES,
        "start_pts_s": index * FRAMES / 30,
        "end_pts_s": (index + 1) * FRAMES / 30,
        "context_frames": 0,
        "split_reason": "length" if index else "start",
        "estimated_cost": 1.0,
    }


def _sha256(uri: str) -> str:
    return hashlib.sha256(Path(uri.removeprefix("file://")).read_bytes()).hexdigest()
