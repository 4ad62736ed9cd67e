"""Files beside a video that are named like it, `<stem><suffix>`, and that a stage reads too.

Anybody may have put them there, so they are only read if they are plain files of a bounded size.
Not here: calibration, which belongs to what is known of the video itself (`reader`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from resources.lake.s3.client import make_client
from resources.raw.objects import bucket_and_key
from resources.raw.presence import RawGoneError, RawRefusedError, look_at
from resources.raw.reader import RawReader
from resources.raw.uris import SIDECAR, is_remote, path_of, sidecar_of

MAX_BESIDE_BYTES = 256 * 2**20
"""A larger file is not read, and not fetched."""
Version = tuple[str, int | str, int | str]
"""Name, size, and what changes when the bytes do."""


def find_beside(uri: str, suffixes: Sequence[str]) -> dict[str, Version]:
    """{uri: version} of those that are there, also of what must not be read."""
    if not suffixes:
        return {}
    stem = sidecar_of(uri).removesuffix(SIDECAR)
    places = [f"{stem}{suffix}" for suffix in suffixes]
    found = _objects(places) if is_remote(uri) else _files(places)
    return {place: (place.rpartition("/")[2], *version) for place, version in found.items()}


def _files(places: Sequence[str]) -> dict[str, tuple[int | str, int | str]]:
    found: dict[str, tuple[int | str, int | str]] = {}
    for place in places:
        try:
            state = path_of(place).lstat()
        except (OSError, ValueError):
            continue
        found[place] = state.st_size, state.st_mtime_ns
    return found


def _objects(places: Sequence[str]) -> dict[str, tuple[int | str, int | str]]:
    """In one listing: their names begin alike."""
    keys = {bucket_and_key(place)[1]: place for place in places}
    bucket = bucket_and_key(places[0])[0]
    listed = make_client().list_objects_v2(Bucket=bucket, Prefix=os.path.commonprefix(list(keys)))
    there = {entry["Key"]: entry for entry in listed.get("Contents", ())}
    return {
        place: (there[key]["Size"], there[key]["ETag"])
        for key, place in keys.items()
        if key in there
    }


@contextmanager
def hold_beside(raw: RawReader, uri: str, version: Version) -> Iterator[Path | None]:
    """A local path of such a file; None if it must not be read, or is gone by now."""
    with ExitStack() as held:
        yield _path(held, raw, uri, int(version[1]))


def _path(held: ExitStack, raw: RawReader, uri: str, byte_size: int) -> Path | None:
    if byte_size > MAX_BESIDE_BYTES:
        return None
    try:
        if is_remote(uri):
            return held.enter_context(raw.hold(uri))
        look_at(path_of(uri))
    except (RawRefusedError, RawGoneError):
        return None
    return path_of(uri)
