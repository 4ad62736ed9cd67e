"""The picture of each asset as metadata: what a person looks at first when a shard is done.

Dagster shows Markdown in place if it is short, else behind a link, and keeps all of it in its
database. So a picture is a file in the lake, which `ego up` serves, and the metadata has its URL.
Another web server serves no such files: for it the picture itself is in the metadata, and smaller.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from ego_assets import catalog
from ego_assets.environment import serves_pictures
from ego_assets.feature import load
from ego_assets.media.pictures import Pictures
from ego_assets.media.sheets import Picture
from ego_assets.vision import draw, plots
from resources.lake import Lake
from resources.raw.reader import Memory, RawReader

EMBEDDED_BYTES = 45_000
"""Of frames inside the metadata; plots are smaller, or little more."""


def preview(lake: Lake, table: str, shard: str, memory: Memory | None = None) -> Picture | None:
    """Draw a shard's table; None where there is nothing to show, or no way to show it.

    memory: of the raw files, which are hashed without it.
    """
    declared = catalog.info(table).preview
    return load(declared)(lake, table, shard, RawReader(memory=memory)) if declared else None


def preview_metadata(
    lake: Lake, table: str, shard: str, log: Any, memory: Memory | None = None
) -> dict[str, Any]:
    """Metadata entry `picture`: Markdown that shows the picture of a shard."""
    try:
        found = preview(lake, table, shard, memory)
        if found is None:
            return {"picture": "no rows to show"} if catalog.info(table).preview else {}
        if serves_pictures():
            shown = _linked(lake, table, shard, found)
        else:
            shown = f"![{table} of shard {shard}]({_embedded(found)})"
    except Exception as error:  # a picture must never fail a result
        log.warning(f"no picture of {table} {shard}: {type(error).__name__}: {error}")
        return {"picture": f"could not be drawn: {type(error).__name__}: {error}"}
    return {"picture": dg.MetadataValue.md(shown)}


def _linked(lake: Lake, table: str, shard: str, picture: Picture) -> str:
    name, url = f"{table} of shard {shard}", Pictures(lake).keep(table, shard, picture)
    return f"[![{name}]({url})]({url})\n\n[{name}: open the picture alone]({url})"


def _embedded(picture: Picture) -> str:
    media, data = picture
    if media == "image/jpeg" and len(data) > EMBEDDED_BYTES:
        data = draw.shrink_jpeg(data, EMBEDDED_BYTES)
    return plots.data_uri(data, media)
