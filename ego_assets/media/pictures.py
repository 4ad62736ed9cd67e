"""Keeps the pictures of shards as files in the lake, for web servers that show them.

    <lake>/_previews/{table}/{shard}.jpg|png    of each table of each shard, the newest
    <lake>/_previews/{table}/latest.jpg|png     the newest of all shards

Here: where they lie and their URLs. Not here: drawing (`sheets`, `preview.py` of each room).
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress

from ego_assets.media.sheets import Picture
from resources.lake import Lake

FOLDER = "_previews"
URL = "/previews"
"""Of a server that shows them, the path under which it does."""
LATEST = "latest"
EXTENSIONS = {"image/jpeg": "jpg", "image/png": "png"}
_FIRST_BYTES = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Pictures:
    """The pictures of a lake."""

    def __init__(self, lake: Lake) -> None:
        self._storage = lake.storage

    def keep(self, table: str, shard: str, picture: Picture) -> str:
        """Write a shard's picture in place of the one before. Returns its URL on a server.

        What follows the `?` tells one picture of a shard from the next for a browser.
        """
        media, data = picture
        for name in (shard, LATEST):
            self._storage.write(_key(table, name, media), data)
            for other in EXTENSIONS.keys() - {media}:
                self._storage.delete(_key(table, name, other))
        digest = hashlib.sha256(data).hexdigest()[:12]
        return f"{URL}/{table}/{shard}?{digest}"

    def read(self, table: str, name: str) -> Picture | None:
        """The picture of a shard, or the latest one; None if there is none of that name.

        Nothing else is read, whatever the names are, and nothing but a picture is returned.
        """
        if not (_NAME.fullmatch(table) and _NAME.fullmatch(name)):
            return None
        for media, begin in _FIRST_BYTES.items():
            with suppress(FileNotFoundError):
                data = self._storage.read(_key(table, name, media))
                if data.startswith(begin):
                    return media, data
        return None


def latest_url(table: str) -> str:
    """URL of the newest picture of a table."""
    return f"{URL}/{table}/{LATEST}"


def _key(table: str, name: str, media: str) -> str:
    return f"{FOLDER}/{table}/{name}.{EXTENSIONS[media]}"
