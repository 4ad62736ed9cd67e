"""From raw files to shards: fixed batches of videos, balanced by duration.

Here: which files belong to a shard, and its key. Not here: what is in the files (`probe` looks;
a file that cannot be read still gets a shard, so that the manifest can say why it is rejected).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from resources.lake import Lake

SHARD_DURATION_S = 900.0
SHARD_MAX_FILES = 64
ASSUMED_BYTES_PER_S = 1_000_000  # where a header tells no duration: about 8 Mbit/s
VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".mov",
        ".m4v",
        ".mkv",
        ".webm",
        ".avi",
        ".ts",
        ".mts",
        ".m2ts",
        ".mpg",
        ".mpeg",
        ".3gp",
        ".flv",
        ".wmv",
        ".ogv",
    ]
)


@dataclass(frozen=True)
class RawFile:
    """A raw file as the raw lake lists it; duration_s is an estimate from the header."""

    uri: str
    byte_size: int
    duration_s: float


def find_files(paths: Iterable[Path]) -> list[Path]:
    """Video files under `paths`, sorted: all of a folder's by suffix, a named file whatever it is.

    Raises FileNotFoundError for a path that is not there.
    """
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found.update(
                p
                for p in path.rglob("*")
                if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file() and not _is_hidden(p, path)
            )
        elif path.is_file():
            found.add(path)
        else:
            raise FileNotFoundError(f"no file or folder {path}")
    return sorted({p.resolve() for p in found})


def describe_file(path: Path) -> RawFile:
    """Size, and the duration that the header claims; never raises for what is in the file."""
    from ego_assets.operators.decode import open_media

    size = path.stat().st_size
    try:
        with open_media(path) as container:
            duration_s = (container.duration or 0) / 1e6
    except Exception:  # the probe will say what is wrong with it
        duration_s = 0.0
    if not 0 < duration_s < 86_400:
        duration_s = size / ASSUMED_BYTES_PER_S
    return RawFile(str(path), size, duration_s)


def balance(files: Sequence[RawFile], min_shards: int = 1) -> list[list[RawFile]]:
    """Split files into as few shards as the limits allow, but at least `min_shards`.

    Longest processing time first (Graham 1969): each file goes to the shard with the least
    footage that has room. Deterministic; a shard is sorted by uri.
    """
    if not files:
        return []
    total = sum(f.duration_s for f in files)
    by_limits = max(math.ceil(total / SHARD_DURATION_S), math.ceil(len(files) / SHARD_MAX_FILES))
    count = min(max(by_limits, min_shards), len(files))
    shards: list[list[RawFile]] = [[] for _ in range(count)]
    heap = [(0.0, i) for i in range(count)]
    for file in sorted(files, key=lambda f: (-f.duration_s, f.uri)):
        load, index = heapq.heappop(heap)
        shards[index].append(file)
        if len(shards[index]) < SHARD_MAX_FILES:
            heapq.heappush(heap, (load + file.duration_s, index))
    return [sorted(s, key=lambda f: f.uri) for s in shards]


def register_files(lake: Lake, paths: Iterable[Path], *, min_shards: int = 1) -> list[str]:
    """Put files that no shard holds yet into new shards. Returns the keys of the new shards."""
    known = {f["uri"] for shard in lake.shards() for f in lake.read_shard(shard)["files"]}
    fresh = [describe_file(p) for p in paths if str(p) not in known]
    day = datetime.now(UTC).strftime("%Y%m%d")
    keys = []
    number = 0
    for files in balance(fresh, min_shards):
        content = {"files": [vars(f) for f in files]}
        while not lake.write_shard(key := f"{day}-{number:04d}", content):
            number += 1
        keys.append(key)
    return keys


def shards_of(lake: Lake, paths: Iterable[Path]) -> list[str]:
    """Keys of the shards that hold any of `paths`, sorted."""
    wanted = {str(p) for p in paths}
    return [
        shard
        for shard in lake.shards()
        if any(f["uri"] in wanted for f in lake.read_shard(shard)["files"])
    ]


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
