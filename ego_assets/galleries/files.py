"""Keeps the galleries of shards as files in the lake.

    <lake>/_galleries/{shard}/index.html              the page; its links work wherever it is opened
    <lake>/_galleries/{shard}/{clip}.{digest}.mp4     a clip with all that was found drawn into it
    <lake>/_galleries/{shard}/{clip}.{digest}.jpg     a frame from its middle

The digest is of what a video shows: one that was made from other rows has another name.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from resources.lake import Lake

FOLDER = "_galleries"
URL = "/galleries"
"""Of a server that shows them, the path under which it does."""
PAGE = "index.html"
TYPES = {".html": "text/html; charset=utf-8", ".mp4": "video/mp4", ".jpg": "image/jpeg"}
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_NAME = re.compile(r"index\.html|[A-Za-z0-9][A-Za-z0-9_-]{0,150}\.[0-9a-f]{16}\.(mp4|jpg)")


class GalleryFiles:
    """The files of the galleries of a lake."""

    def __init__(self, lake: Lake) -> None:
        self.storage = lake.storage

    def key(self, shard: str, name: str) -> str | None:
        """The key of a file of a shard's gallery; None if none can have that name."""
        if not (_SHARD.fullmatch(shard) and _NAME.fullmatch(name)):
            return None
        return f"{FOLDER}/{shard}/{name}"

    def page(self, shard: str) -> str:
        """Where the page of a shard lies: a path, or a URL of the bucket."""
        return self.storage.uri(f"{FOLDER}/{shard}/{PAGE}")

    def has_page(self, shard: str) -> bool:
        return self.storage.exists(f"{FOLDER}/{shard}/{PAGE}")

    def names(self, shard: str) -> set[str]:
        """Names of the files that a shard's gallery has."""
        return {key.rpartition("/")[2] for key in self.storage.list(f"{FOLDER}/{shard}")}

    def remove(self, shard: str, names: Collection[str]) -> None:
        for name in names:
            self.storage.delete(f"{FOLDER}/{shard}/{name}")


def url_of(shard: str) -> str:
    """URL of the gallery of a shard."""
    return f"{URL}/{shard}/"


def is_of_video(key: str, shards: Collection[str], video_id: str) -> bool:
    """Whether a file of the lake is of a gallery, and shows a video or names it: the pages of the
    shards that had it, and the videos of its clips."""
    match key.split("/"):
        case [folder, shard, name] if folder == FOLDER:
            return name.startswith(video_id) or (shard in shards and name == PAGE)
    return False
