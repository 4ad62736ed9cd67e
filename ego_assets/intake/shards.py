"""From raw files to shards: fixed batches of videos, balanced by duration.

Here: which files belong to a shard, and its key. Not here: what is in the files (`probe` looks;
a file that cannot be read still gets a shard, so that the manifest can say why it is rejected).
"""

from __future__ import annotations

import heapq
import math
import secrets
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ego_assets.intake.headers import HeaderReader, header_duration_s
from resources.lake import Lake, file_item_id
from resources.raw.limits import SHARD_DURATION_S, SHARD_FILES
from resources.raw.places import free_item, known_files
from resources.raw.presence import VIDEO_SUFFIXES as VIDEO_SUFFIXES
from resources.raw.reader import Listing, is_remote, list_raw, path_of

ASSUMED_BYTES_PER_S = 1_000_000  # where a header tells no duration: about 8 Mbit/s
MAX_DURATION_S = 86_400.0
"""No estimate is longer, whatever a header or a size says."""


@dataclass(frozen=True)
class RawFile:
    """A raw file as the raw lake lists it; duration_s is an estimate from the header.

    item: its name as an item, if that is not the one that its uri gives it (see
    `resources.raw.places`).
    """

    uri: str
    byte_size: int
    duration_s: float
    item: str = ""


def find_files(places: Iterable[str | Path]) -> Listing:
    """Video files in folders and under `s3://` prefixes, by suffix; a named file whatever it is.

    Raises FileNotFoundError for a place that is not there.
    """
    return list_raw(places, VIDEO_SUFFIXES)


def describe_file(
    uri: str, byte_size: int, duration_of: Callable[[Path], float] = header_duration_s
) -> RawFile:
    """Size, and the duration that the header claims; never raises for what is in the file.

    Of a remote file the duration is guessed from its size: it is not fetched for that.
    duration_of: reads the header.
    """
    duration_s = 0.0 if is_remote(uri) else duration_of(path_of(uri))
    if not 0 < duration_s < MAX_DURATION_S:
        duration_s = min(byte_size / ASSUMED_BYTES_PER_S, MAX_DURATION_S)
    return RawFile(uri, byte_size, duration_s)


def balance(files: Sequence[RawFile], min_shards: int = 1) -> list[list[RawFile]]:
    """Split files into as few shards as the limits allow, but at least `min_shards`.

    Longest processing time first (Graham 1969): each file goes to the shard with the least
    footage that has room. Deterministic; a shard is sorted by uri.
    """
    if not files:
        return []
    # A file that fills a shard alone, or claims to, must not thin out the others.
    total = sum(min(f.duration_s, SHARD_DURATION_S) for f in files)
    by_limits = max(math.ceil(total / SHARD_DURATION_S), math.ceil(len(files) / SHARD_FILES))
    count = min(max(by_limits, min_shards), len(files))
    shards: list[list[RawFile]] = [[] for _ in range(count)]
    heap = [(0.0, i) for i in range(count)]
    for file in sorted(files, key=lambda f: (-f.duration_s, f.uri)):
        load, index = heapq.heappop(heap)
        shards[index].append(file)
        if len(shards[index]) < SHARD_FILES:
            heapq.heappush(heap, (load + file.duration_s, index))
    return [sorted(s, key=lambda f: f.uri) for s in shards]


def register_files(lake: Lake, files: Mapping[str, int], *, min_shards: int = 1) -> list[str]:
    """Put files ({uri: size in bytes}) that no shard holds yet into new shards: their keys."""
    keys: list[str] = []
    # Two who look at one time would both find the same files new.
    with lake.storage.lock("shards"):
        known, items = known_files(lake)
        new = {uri: size for uri, size in files.items() if uri not in known}
        with HeaderReader() as headers:
            fresh = [describe_file(uri, size, headers.duration_s) for uri, size in new.items()]
        for batch in balance(named(fresh, items), min_shards):
            keys.append(write_shard(lake, batch, after=keys[-1] if keys else ""))
    return keys


def named(files: Iterable[RawFile], taken: Container[str]) -> list[RawFile]:
    """Files that enter a shard; one whose uri was another file's before gets a name of its own."""
    found = []
    for file in files:
        item = free_item(file.uri, taken)
        found.append(file if item == file_item_id(file.uri) else replace(file, item=item))
    return found


def write_shard(
    lake: Lake, files: Iterable[RawFile], *, wants_run: bool = False, after: str = ""
) -> str:
    """Put files into a new shard: its key. The caller has the lake's lock `shards`.

    wants_run: nobody waits for it, so the raw-data sensor has to ask for its run, under a name that
    no other lake gives it: one Dagster instance may serve several, or one that was made anew.
    after: a key below which none of today is free.
    """
    names = {"item": "unit"}  # as all releases read it
    entries = [{names.get(k, k): v for k, v in vars(f).items() if v != ""} for f in files]
    content: dict[str, Any] = {"files": entries}
    if wants_run:
        content["wants_run"] = secrets.token_hex(8)
    day = datetime.now(UTC).strftime("%Y%m%d")
    number = int(after.partition("-")[2]) + 1 if after.startswith(f"{day}-") else 0
    while not lake.write_shard(key := f"{day}-{number:04d}", content):
        number += 1
    return key


def shards_of(lake: Lake, uris: Iterable[str]) -> list[str]:
    """Keys of the shards that hold any of these files, sorted."""
    known, _ = known_files(lake)
    return sorted({known[uri] for uri in uris if uri in known})
