"""Raw videos where they lie: files of this machine, or objects of an S3 bucket. Never written.

Here: what there is (`list_raw`, `scan_raw`), whether a file is there and in which version (`look`,
`raw_version`), and a local path to read it from (`RawReader`; remote objects go through the scratch
space), which makes sure that what is read is what was hashed. Not here: what is in a file, the
listing of local folders (`raw_local`), what it means that a local file is not there (`presence`),
files beside a video (`sidecars`).
"""

from __future__ import annotations

import errno
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from resources.lake.s3.client import has_bucket, make_client
from resources.lake.storage import file_sha256
from resources.raw.local import RawEntry, entry_of, resolved, scan_folder, suffix_of
from resources.raw.presence import (
    RawAwayError,
    RawGoneError,
    RawMovedError,
    RawRefusedError,
    RawState,
    RawUnreadError,
    look_at,
    raw_version,
    unread_error,
)
from resources.raw.s3.objects import bucket_and_key, head_of
from resources.raw.scratch import Scratch
from resources.raw.sidecars import find_sidecar
from resources.raw.uris import (
    FOOTAGE,
    MAX_SIDECAR_BYTES,
    S3,
    is_remote,
    path_of,
    sidecar_of,
    sidecars_of,
    uri_of,
)

__all__ = [
    "RawEntry",
    "RawMovedError",
    "RawRefusedError",
    "is_remote",
    "path_of",
    "raw_version",
    "sidecar_of",
    "uri_of",
]


class RawChangedError(ValueError):
    """A raw file is no longer the one that was entered: another try cannot help."""


@dataclass
class Listing:
    """files: {uri: size in bytes}, sorted. refused: {uri: why it is not taken}."""

    files: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


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
    bucket, key = bucket_and_key(place)
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


def look(uri: str) -> RawState:
    """The state of a raw file. Raises RawRefusedError, RawAwayError, RawGoneError, and of S3
    botocore's errors."""
    if not is_remote(uri):
        return look_at(path_of(uri))
    bucket, key = bucket_and_key(uri)
    head = head_of(bucket, key)
    if head is not None:
        size, etag = head["ContentLength"], head["ETag"]
        return RawState(size, etag, f"{etag}:{size}")
    if not has_bucket(make_client(), bucket):
        raise RawAwayError(errno.ENOENT, f"there is no bucket {bucket}", uri)
    raise RawGoneError(errno.ENOENT, "there is no such object (any more)", uri)


class Memory(Protocol):
    """Remembers in which state a file had which content, so that it is not hashed each time."""

    def recall(self, uri: str, sha256: str) -> str | None:
        """Return the state in which the file was read when it had this content.

        "" if that state is not known; None if nothing is known of the file.
        """
        ...

    def remember(self, uri: str, sha256: str, state: str) -> None:
        """In this state the file has this content."""
        ...


class RawReader:
    """Local paths of raw files, for as long as they are held.

    moved: told of bytes that were fetched, and the seconds that they took.
    """

    def __init__(
        self,
        scratch: Scratch | None = None,
        moved: Callable[[int, float], None] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._scratch = scratch
        self._moved = moved
        self._memory = memory
        self._hashed: dict[tuple[str, str], str] = {}

    @contextmanager
    def hold(self, uri: str, sha256: str | None = None) -> Iterator[Path]:
        """The file at `uri`, its calibration beside it; not to be written.

        A calibration that is too large is not fetched. sha256: of the bytes as they were entered.
        They are compared where a copy is made, and of a local file unless `memory` has them in the
        state that it is in: one that nothing is known of is hashed, once by this reader. A local
        file must also end the block as it began it: else what was made of it would be of nobody
        knows which bytes.

        Raises RawRefusedError, RawChangedError, RawAwayError, RawGoneError (a FileNotFoundError),
        ScratchError, botocore's errors; also in place of an error inside the block that came of the
        file's absence.
        """
        if is_remote(uri):
            with self._hold_copy(uri, sha256) as path:
                yield path
            return
        path = path_of(uri)
        before = look_at(path)
        if sha256:
            self._check(uri, sha256, before)
        try:
            yield path
        except Exception as error:
            self._explain(error, uri, sha256, before)
            raise
        self._must_be_as_before(uri, sha256, before)

    def _check(self, uri: str, sha256: str, state: RawState) -> None:
        """Raises RawChangedError unless the file has this content."""
        known = self._memory.recall(uri, sha256) if self._memory else None
        if state.text and state.text in {known, self._hashed.get((uri, sha256))}:
            return
        if hash_local(path_of(uri), state) != sha256:
            raise RawChangedError(_other_bytes(uri))
        if state.text:
            self._hashed[uri, sha256] = state.text
        if self._memory and state.text:
            self._memory.remember(uri, sha256, state.text)

    def _must_be_as_before(self, uri: str, sha256: str | None, before: RawState) -> None:
        after = look_at(path_of(uri))
        if after.identity == before.identity:
            return
        # Its mode may have changed, or its owner, or the number of its links: bytes decide.
        if not sha256 or hash_local(path_of(uri), after) != sha256:
            raise RawChangedError(
                f"{uri} was changed or replaced while it was read"
                if not sha256
                else _other_bytes(uri)
            )
        if self._memory and after.text:
            self._memory.remember(uri, sha256, after.text)

    def _explain(self, error: Exception, uri: str, sha256: str | None, before: RawState) -> None:
        """Raise what an error comes of, if that is the file."""
        try:
            self._must_be_as_before(uri, sha256, before)
        except (RawAwayError, RawGoneError, RawChangedError) as cause:
            raise cause from error
        beside = (*sidecars_of(uri), *sidecars_of(uri, FOOTAGE))
        if unread := unread_error(error, path_of(uri), *map(path_of, beside)):
            raise _unread(uri, unread) from error

    @contextmanager
    def _hold_copy(self, uri: str, sha256: str | None) -> Iterator[Path]:
        if self._scratch is None:
            self._scratch = Scratch.of_machine()
        version = raw_version(uri)
        if version is None:
            look(uri)  # raises, saying what is not there
            raise RawGoneError(errno.ENOENT, "it was not there a moment ago", uri)
        parts = [(uri, version)]
        beside = find_sidecar(uri)
        calibration = None if beside is None else raw_version(beside)
        if beside is not None and calibration and int(calibration[0]) <= MAX_SIDECAR_BYTES:
            parts.append((beside, calibration))
        with self._scratch.hold(parts, self._moved) as path:
            if sha256 and self._scratch.sha256(path) != sha256:
                raise RawChangedError(_other_bytes(uri))
            try:
                yield path
            except Exception as error:
                beside_it = (path_of(place) for place in sidecars_of(uri_of(path)))
                if unread := unread_error(error, path, *beside_it):
                    raise _unread(uri, unread) from error
                raise

    def sha256(self, uri: str) -> str:
        """Of the file as it is now. Raises as `hold` does."""
        if is_remote(uri):
            with self._hold_copy(uri, None) as path:
                assert self._scratch is not None
                return self._scratch.sha256(path)
        return hash_local(path_of(uri), look_at(path_of(uri)))


def hash_local(path: Path, state: RawState) -> str:
    """SHA-256 of a local file that is in this state, before and after.

    Raises RawChangedError, RawAwayError, RawGoneError; OSError if it cannot be read.
    """
    try:
        found = file_sha256(path)
    except OSError as error:
        look_at(path)  # raises if it is not there
        named = OSError(error.errno, error.strerror, str(path))  # reading does not name its file
        if unread_error(named, path):
            raise _unread(uri_of(path), named) from error
        raise
    if look_at(path).identity != state.identity:
        raise RawChangedError(f"{uri_of(path)} was changed or replaced while it was read")
    return found


def _unread(uri: str, error: OSError) -> RawUnreadError:
    return RawUnreadError(error.errno, f"it is there, and could not be read: {error.strerror}", uri)


def _other_bytes(uri: str) -> str:
    return f"{uri} has other bytes than when its manifest was made: run video_manifest again"
