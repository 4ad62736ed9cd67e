"""The picture of each asset as metadata: what a person looks at first when a shard is done."""

from __future__ import annotations

from typing import Any

import dagster as dg

from ego_assets import catalog
from ego_assets.feature import load
from ego_assets.media.sheets import Picture
from ego_assets.vision import plots
from resources.lake import Lake
from resources.raw.reader import Memory, RawReader


def preview(lake: Lake, table: str, shard: str, memory: Memory | None = None) -> Picture | None:
    """Draw a shard's table; None where there is nothing to show, or no way to show it.

    memory: of the raw files, which are hashed without it.
    """
    declared = catalog.info(table).preview
    return load(declared)(lake, table, shard, RawReader(memory=memory)) if declared else None


def preview_metadata(
    lake: Lake, table: str, shard: str, log: Any, memory: Memory | None = None
) -> dict[str, Any]:
    """Metadata entry `picture`: markdown with the picture inside, so that it needs no server."""
    try:
        found = preview(lake, table, shard, memory)
    except Exception as error:  # a picture must never fail a result
        log.warning(f"no picture of {table} {shard}: {type(error).__name__}: {error}")
        return {"picture": f"could not be drawn: {type(error).__name__}: {error}"}
    if found is None:
        return {"picture": "no rows to show"} if catalog.info(table).preview else {}
    media, data = found
    return {"picture": dg.MetadataValue.md(f"![{table} {shard}]({plots.data_uri(data, media)})")}
