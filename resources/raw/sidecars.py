"""Files beside a video: its calibration, the one that says whose footage it is, and those that only
a stage asks for.

Here: which file counts, what tells one version from another, the bytes of the second, paths of the
others. Anybody may have put them there, so they are only read if they are plain and small. Not
here: their names (`uris`), what is in them.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resources.lake.s3.client import MISSING, error_code, make_client, read_body
from resources.raw.plain_files import NotAFileError, read_beside
from resources.raw.presence import (
    RawGoneError,
    RawRefusedError,
    listed_version,
    look_at,
    raw_version,
)
from resources.raw.s3.objects import bucket_and_key, first_object
from resources.raw.scratch import note_video
from resources.raw.uris import (
    CAMERA,
    FOOTAGE,
    MAX_SIDECAR_BYTES,
    SIDECAR_SUFFIXES,
    is_remote,
    path_of,
    sidecar_of,
    sidecars_of,
)

if TYPE_CHECKING:
    from resources.raw.reader import RawReader

MAX_BESIDE_BYTES = 256 * 2**20
"""A larger file is not read, and not fetched."""
Version = tuple[str, int | str, int | str]
"""Name, size, and what changes when the bytes do."""
_CHANGED = MISSING | {"PreconditionFailed", "412"}


class FileBeside(NamedTuple):
    """A file beside a video. fault: why its bytes are not read; empty: they are."""

    name: str
    data: bytes
    fault: str = ""


def find_sidecar(uri: str, kind: str = CAMERA) -> str | None:
    """The uri of the file of a kind that a video has beside it: its own, else that of its
    folder."""
    return next(_there(uri, kind), None)


def _there(uri: str, kind: str) -> Iterator[str]:
    """The file of a kind that a video has of its own, and that of its folder, as far as they are
    there."""
    places, half = sidecars_of(uri, kind), len(SIDECAR_SUFFIXES[kind])
    for named in (places[:half], places[half:]):
        if found := _first_of(named):
            yield found


def _first_of(places: Sequence[str]) -> str | None:
    """The first that is there. Their names differ in their suffix alone."""
    if is_remote(places[0]):
        return first_object(places)
    return next((place for place in places if os.path.lexists(path_of(place))), None)


def sidecar_version(uri: str) -> tuple[int | str, ...] | None:
    """As `raw_version`, of the calibration of a video; also of one that is refused."""
    beside = find_sidecar(uri)
    if beside is None:
        return None
    if is_remote(uri):
        return raw_version(beside)
    seen = _sidecar_stats(beside)
    return tuple(n for found in seen for n in (found.st_size, found.st_mtime_ns)) or None


def sidecar_state(uri: str) -> str | None:
    """What tells one version of the files beside a video from another; None if it has none.

    Only to be believed where the video itself was there before and after.
    """
    camera = "".join(_state_of(uri, beside) for beside in islice(_there(uri, CAMERA), 1))
    footage = _AND_FOLDERS.join(filter(None, (_state_of(uri, b) for b in _there(uri, FOOTAGE))))
    return f"{camera}{_AND_FOOTAGE}{footage}" if footage else camera or None


def calibration_state(state: str | None) -> str | None:
    """A `sidecar_state` without what says whose footage it is."""
    return (state or "").partition(_AND_FOOTAGE)[0] or None


def sidecar_kinds(state: str | None) -> Counter[str]:
    """How many files of each kind count for a video in a `sidecar_state`."""
    camera, _, footage = (state or "").partition(_AND_FOOTAGE)
    return Counter([CAMERA] * bool(camera) + [FOOTAGE] * len(footage.split("/") if footage else ()))


_AND_FOOTAGE, _AND_FOLDERS = "//", "/"
"""Between the states of the two kinds, and of the two of footage; no name has them."""


def _state_of(uri: str, beside: str) -> str:
    if is_remote(uri):
        state = ":".join(map(str, raw_version(beside) or ()))
    else:
        seen = _sidecar_stats(beside)
        state = ":".join(f"{found.st_size}:{listed_version(found)}" for found in seen)
    # Which file it is says its name, but for the usual one.
    usual = {sidecar_of(uri, kind) for kind in (CAMERA, FOOTAGE)}
    name = "" if beside in usual else f"{beside.rpartition('/')[2]}:"
    return f"{name}{state}" if state else ""


def read_footage_sidecars(uri: str) -> list[FileBeside]:
    """The files that say whose footage a video is: that of its folder, then its own, which counts
    where both say something.

    One that is replaced meanwhile counts as none: its `sidecar_state` is another one then. Raises
    OSError if its place is away; of S3 botocore's errors.
    """
    read = [_read(beside) for beside in _there(uri, FOOTAGE)]
    return [found for found in reversed(read) if found is not None]


def read_own_footage_sidecar(uri: str) -> FileBeside | None:
    """As `read_footage_sidecars`, without that of the folder."""
    beside = _first_of(sidecars_of(uri, FOOTAGE)[: len(SIDECAR_SUFFIXES[FOOTAGE])])
    return None if beside is None else _read(beside)


def _read(beside: str) -> FileBeside | None:
    name = beside.rpartition("/")[2]
    if is_remote(beside):
        return _read_object(beside, name)
    try:
        data = read_beside(path_of(beside), MAX_SIDECAR_BYTES)
    except NotAFileError as error:
        return FileBeside(name, b"", str(error))
    return None if data is None else FileBeside(name, data)


def _read_object(uri: str, name: str) -> FileBeside | None:
    from botocore.exceptions import ClientError

    version = raw_version(uri)
    if version is None:
        return None
    if int(version[0]) > MAX_SIDECAR_BYTES:
        return FileBeside(name, b"", f"it is larger than {MAX_SIDECAR_BYTES // 2**20} MiB")
    bucket, key = bucket_and_key(uri)
    where = {"Bucket": bucket, "Key": key, "IfMatch": str(version[1])}
    try:
        return FileBeside(name, read_body(make_client(), **where))
    except ClientError as error:
        if error_code(error) in _CHANGED:
            return None
        raise


def _sidecar_stats(uri: str) -> list[os.stat_result]:
    """Of a local file beside a video, and of what it is a link to."""
    path = path_of(uri)
    try:
        found = path.lstat()
        return [found, path.stat()] if stat.S_ISLNK(found.st_mode) else [found]
    except (OSError, ValueError):
        return []


def find_beside(uri: str, suffixes: Sequence[str]) -> dict[str, Version]:
    """{uri: version} of those that are there, also of what must not be read."""
    if not suffixes:
        return {}
    stem = sidecar_of(uri).removesuffix(f".{CAMERA}.json")
    places = [f"{stem}{suffix}" for suffix in suffixes]
    found = _objects(places) if is_remote(uri) else _files(places)
    return {place: (place.rpartition("/")[2], *version) for place, version in found.items()}


def beside_state(uri: str, suffixes: Sequence[str]) -> list[Version] | None:
    """What tells one version of them from another, whatever the video's name is: suffix, size, and
    modification time or ETag. None: it cannot be told now, because the video cannot be seen or its
    bucket cannot be listed."""
    from botocore.exceptions import BotoCoreError, ClientError

    if not suffixes:
        return []
    start = len(sidecar_of(uri).removesuffix(f".{CAMERA}.json"))
    is_local = not is_remote(uri)
    try:
        if is_local and raw_version(uri) is None:
            return None
        found = find_beside(uri, suffixes)
        if is_local and raw_version(uri) is None:
            return None
    except (BotoCoreError, ClientError):
        return None
    return [(place[start:], *version[1:]) for place, version in found.items()]


def _files(places: Sequence[str]) -> dict[str, tuple[int | str, int | str]]:
    found: dict[str, tuple[int | str, int | str]] = {}
    for place in places:
        try:
            state = path_of(place).lstat()
            may_read = os.access(path_of(place), os.R_OK, follow_symlinks=False)
        except (OSError, ValueError):
            continue
        # Permission may come later, and changes neither size nor time.
        found[place] = state.st_size, state.st_mtime_ns if may_read else "may not be read"
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
def hold_beside(raw: RawReader, uri: str, version: Version, sha256: str) -> Iterator[Path | None]:
    """A local path of such a file; None if it must not be read, or is gone by now. sha256: of the
    video; who erases that in the scratch space erases a copy of the file, too."""
    with ExitStack() as held:
        yield _path(held, raw, uri, int(version[1]), sha256)


def _path(held: ExitStack, raw: RawReader, uri: str, byte_size: int, sha256: str) -> Path | None:
    if byte_size > MAX_BESIDE_BYTES:
        return None
    try:
        if is_remote(uri):
            copy = held.enter_context(raw.hold(uri))
            note_video(copy, sha256)
            return copy
        look_at(path_of(uri))
    except (RawRefusedError, RawGoneError):
        return None
    return path_of(uri)
