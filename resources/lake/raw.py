"""Raw videos where they lie: files of this machine, or objects of an S3 bucket. Never written.

Here: what there is (`list_raw`, `scan_raw`), what version of it (`raw_version`), and a local path
to read it from (`RawReader`; remote objects go through the scratch space). Not here: what is in a
file.

A uri is an absolute path, `s3://bucket/key`, or, for a path that is not printable text (any bytes
may be in a name), `file://` with percent-encoding.
"""

from __future__ import annotations

import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from resources.lake.raw_local import (
    RawEntry,
    RawMovedError,
    RawRefusedError,
    check_local,
    entry_of,
    path_of,
    resolved,
    scan_folder,
    suffix_of,
    uri_of,
)
from resources.lake.s3 import find_object, make_client
from resources.lake.scratch import Scratch

__all__ = ["RawEntry", "RawMovedError", "RawRefusedError", "path_of", "uri_of"]
S3 = "s3://"
SIDECAR = ".camera.json"
MAX_SIDECAR_BYTES = 2**20
"""A larger calibration file is not read, and not fetched."""
MAX_KEY_BYTES = 1024
"""Of a key on S3."""


class RawChangedError(ValueError):
    """A raw file is no longer the one that was entered: another try cannot help."""


@dataclass
class Listing:
    """files: {uri: size in bytes}, sorted. refused: {uri: why it is not taken}."""

    files: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def is_remote(uri: str) -> bool:
    return uri.startswith(S3)


def sidecar_of(uri: str) -> str:
    """The uri of a video's calibration file, beside it."""
    if is_remote(uri):
        folder, _, name = uri.rpartition("/")
        return f"{folder}/{Path(name).stem}{SIDECAR}"
    return uri_of(path_of(uri).with_suffix(SIDECAR))


def list_raw(places: Iterable[str | Path], suffixes: frozenset[str]) -> Listing:
    """All files under folders and prefixes with one of the suffixes; a named file whatever it is.

    Hidden files are left out. What cannot or must not be read is refused and named, and everything
    else comes in: a link that leads out of its folder (whoever may put files there must not have
    others read), a pipe, a folder without permission. Raises FileNotFoundError for a place that is
    not there.
    """
    found = Listing()
    for place in places:
        for entry in scan_raw(place, suffixes):
            if entry.refused:
                found.refused[entry.uri] = entry.refused
            elif entry.uri:
                found.files[entry.uri] = entry.byte_size
    found.files = dict(sorted(found.files.items()))
    return found


def scan_raw(place: str | Path, suffixes: frozenset[str], after: str = "") -> Iterator[RawEntry]:
    """What `list_raw` finds in one place, as it is found: always in one order, so that it can be
    left off and taken up `after` the position of an entry. Raises FileNotFoundError, and of a
    bucket what boto3 raises.
    """
    if is_remote(text := str(place)):
        yield from _scan_bucket(text, suffixes, after)
        return
    path = resolved(text)
    if stat.S_ISREG(path.stat().st_mode):
        if not after:
            yield entry_of(path, path_of(text).name)
        return
    yield from scan_folder(path, suffixes, after)


def _scan_bucket(place: str, suffixes: frozenset[str], after: str) -> Iterator[RawEntry]:
    bucket, key = _bucket_and_key(place)
    client = make_client()
    if key and not key.endswith("/") and (version := raw_version(place)) is not None:
        if not after:
            yield RawEntry(place, int(version[0]), str(version[1]), key)
        return
    prefix = f"{key.rstrip('/')}/" if key else ""
    start = {"StartAfter": after} if after else {}
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **start)
    is_empty = not after
    for page in pages:
        for entry in page.get("Contents", ()):
            is_empty = False
            found = entry["Key"]
            parts = found.removeprefix(prefix).rstrip("/").split("/")
            is_folder = found.endswith("/") and not entry["Size"]
            if is_folder or suffix_of(parts[-1]) not in suffixes:
                continue
            if why := _fault_of_key(found):
                yield RawEntry(f"{S3}{bucket}/{quote(found)}", 0, "", found, why)
            elif not any(p.startswith(".") for p in parts):
                yield RawEntry(f"{S3}{bucket}/{found}", entry["Size"], entry["ETag"], found)
        if page.get("Contents"):
            yield RawEntry("", 0, "", page["Contents"][-1]["Key"])
    if is_empty:
        raise FileNotFoundError(f"no object or prefix {place}")


def _fault_of_key(key: str) -> str:
    """Why an object cannot be asked for, or named to a person, by its key; empty: it can."""
    if key.endswith("/"):
        return "a key that ends with a slash is taken for a folder: copy the object to another key"
    if {".", ".."} & set(key.split("/")):
        return "a key with . or .. between slashes is not asked for: it can lead to another object"
    if any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in key):
        return "a key with control characters is not taken: copy the object to another key"
    return ""


def raw_version(uri: str) -> tuple[int | str, ...] | None:
    """What changes when the bytes do, without reading them; None if there is no such file.

    A local file that is a link by now, or is reached through one, is not there any more.
    """
    if not is_remote(uri):
        try:
            found = check_local(uri)
        except (OSError, ValueError):
            return None
        return found.st_size, found.st_mtime_ns
    bucket, key = _bucket_and_key(uri)
    if len(key.encode("utf-8", "surrogateescape")) > MAX_KEY_BYTES:
        return None
    head = find_object(make_client(), bucket, key)
    return (head["ContentLength"], head["ETag"]) if head else None


def sidecar_version(uri: str) -> tuple[int | str, ...] | None:
    """As `raw_version`, of the calibration beside a video; also of one that is refused."""
    beside = sidecar_of(uri)
    if is_remote(uri):
        return raw_version(beside)
    path = path_of(beside)
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            target = path.stat()
            return found.st_size, found.st_mtime_ns, target.st_size, target.st_mtime_ns
        return found.st_size, found.st_mtime_ns
    except (OSError, ValueError):
        return None


class RawReader:
    """Local paths of raw files, for as long as they are held.

    moved: told of bytes that were fetched, and the seconds that they took.
    """

    def __init__(
        self, scratch: Scratch | None = None, moved: Callable[[int, float], None] | None = None
    ) -> None:
        self._scratch = scratch
        self._moved = moved

    @contextmanager
    def hold(self, uri: str, sha256: str | None = None) -> Iterator[Path]:
        """The file at `uri`, its calibration beside it; not to be written.

        A calibration that is too large is not fetched. sha256: of the bytes as they were entered,
        checked where a copy is made. Raises FileNotFoundError, RawRefusedError, RawMovedError,
        RawChangedError, ScratchError, botocore's errors.
        """
        if not is_remote(uri):
            check_local(uri)
            yield path_of(uri)
            return
        if self._scratch is None:
            self._scratch = Scratch.of_machine()
        version = raw_version(uri)
        if version is None:
            raise FileNotFoundError(f"{uri} is not there (any more)")
        parts = [(uri, version)]
        calibration = sidecar_version(uri)
        if calibration is not None and int(calibration[0]) <= MAX_SIDECAR_BYTES:
            parts.append((sidecar_of(uri), calibration))
        with self._scratch.hold(parts, self._moved) as path:
            if sha256 and self._scratch.sha256(path) != sha256:
                raise RawChangedError(
                    f"{uri} has other bytes than when its manifest was made: run video_manifest "
                    "again"
                )
            yield path


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(S3).partition("/")
    if not bucket:
        raise ValueError(f"not an S3 location: {uri}; write s3://bucket/prefix")
    return bucket, key
