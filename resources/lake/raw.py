"""Raw videos where they lie: files of this machine, or objects of an S3 bucket. Never written.

Here: what there is (`list_raw`, `scan_raw`), whether a file is there and in which version (`look`,
`raw_version`), and a local path to read it from (`RawReader`; remote objects go through the scratch
space), which makes sure that what is read is what was hashed. Not here: what is in a file, what it
means that a local file is not there (`presence`).

A uri is an absolute path, `s3://bucket/key`, or, for a path that is not printable text (any bytes
may be in a name), `file://` with percent-encoding.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote_from_bytes, unquote_to_bytes

from resources.lake.presence import (
    RawAwayError,
    RawGoneError,
    RawState,
    RawUnreadError,
    listed_version,
    look_at,
    unread_error,
)
from resources.lake.s3 import find_object, has_bucket, make_client
from resources.lake.scratch import Scratch
from resources.lake.storage import file_sha256

S3 = "s3://"
ENCODED = "file://"
SIDECAR = ".camera.json"
LISTING_PAGE = 1000


class RawChangedError(ValueError):
    """A raw file is no longer the one that was entered: another try cannot help."""


@dataclass
class Listing:
    """files: {uri: size in bytes}, sorted. refused: {uri: why it is not taken}."""

    files: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def uri_of(path: Path) -> str:
    """The uri of a local path, which may hold any bytes."""
    return _uri_of_text(str(path))


def _uri_of_text(text: str) -> str:
    if text.isprintable() and not text.startswith(ENCODED):
        return text
    return ENCODED + quote_from_bytes(os.fsencode(text))


def path_of(uri: str) -> Path:
    """The local path of a uri that is not remote."""
    if uri.startswith(ENCODED):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(ENCODED))))
    return Path(uri)


def is_remote(uri: str) -> bool:
    return uri.startswith(S3)


def sidecar_of(uri: str) -> str:
    """The uri of a video's calibration file, beside it."""
    if is_remote(uri):
        folder, _, name = uri.rpartition("/")
        return f"{folder}/{Path(name).stem}{SIDECAR}"
    return uri_of(path_of(uri).with_suffix(SIDECAR))


@dataclass(frozen=True)
class RawEntry:
    """A file as a listing shows it; refused: why it is not taken.

    position: where a later listing of its place goes on after it. An entry without a uri is no
    file: it only says how far a listing has come that finds nothing.
    """

    uri: str
    byte_size: int
    version: str
    position: str
    refused: str = ""


def list_raw(places: Iterable[str | Path], suffixes: frozenset[str]) -> Listing:
    """All files under folders and prefixes with one of the suffixes; a named file whatever it is.

    Hidden files are left out. A link that leads out of its folder is refused: whoever may put
    files there must not have others read. Raises FileNotFoundError for a place that is not there.
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
    path = path_of(text).expanduser()
    if path.is_file():
        if not after:
            yield _entry_of(path.resolve(), path.name)
        return
    if not path.is_dir():
        raise FileNotFoundError(f"no file or folder {path}")
    yield from _scan_folder(path.resolve(), path.resolve(), "", suffixes, tuple(_parts(after)))


def _scan_folder(
    root: Path, folder: Path, position: str, suffixes: frozenset[str], after: tuple[str, ...]
) -> Iterator[RawEntry]:
    """Depth first, by name; `after` are the parts of a position in this folder."""
    try:
        with os.scandir(folder) as found:
            children = sorted(found, key=lambda child: child.name)
    except OSError:  # gone since its parent was read, or not ours to read
        return
    first = after[0] if after else ""
    for number, child in enumerate(children, start=1):
        name = child.name
        if name[0] == "." or name < first or (name == first and len(after) == 1):
            continue
        here = f"{position}/{name}" if position else name
        if child.is_dir(follow_symlinks=False):
            rest = after[1:] if name == first else ()
            yield from _scan_folder(root, folder / name, here, suffixes, rest)
        elif _suffix(name) in suffixes:
            with suppress(OSError):  # gone since the folder was read
                if child.is_symlink():
                    yield from _linked(Path(child.path), root, here)
                elif child.is_file():
                    stat = child.stat()
                    uri = _uri_of_text(child.path)
                    yield RawEntry(uri, stat.st_size, listed_version(stat), here)
        elif number % LISTING_PAGE == 0:
            yield RawEntry("", 0, "", here)


def _suffix(name: str) -> str:
    """As of a Path, which takes ten times as long to make: this is done for every raw file."""
    _, dot, suffix = name.rpartition(".")
    return (dot + suffix).lower()


def _linked(link: Path, root: Path, position: str) -> Iterator[RawEntry]:
    target = link.resolve()
    if not target.is_relative_to(root):
        why = "a link that leads out of its folder is not followed"
        yield RawEntry(uri_of(link), 0, "", position, why)
    elif target.is_file():
        yield _entry_of(target, position)


def _entry_of(path: Path, position: str) -> RawEntry:
    stat = path.stat()
    return RawEntry(uri_of(path), stat.st_size, listed_version(stat), position)


def _parts(position: str) -> list[str]:
    return position.split("/") if position else []


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
            parts = entry["Key"].removeprefix(prefix).split("/")
            hidden = any(p.startswith(".") for p in parts)
            if not hidden and _suffix(parts[-1]) in suffixes:
                uri = f"{S3}{bucket}/{entry['Key']}"
                yield RawEntry(uri, entry["Size"], entry["ETag"], entry["Key"])
        if page.get("Contents"):
            yield RawEntry("", 0, "", page["Contents"][-1]["Key"])
    if is_empty:
        raise FileNotFoundError(f"no object or prefix {place}")


def raw_version(uri: str) -> tuple[int | str, ...] | None:
    """What changes when the bytes do, without reading them; None if there is no such file."""
    if not is_remote(uri):
        try:
            stat = path_of(uri).stat()
        except OSError:
            return None
        return stat.st_size, stat.st_mtime_ns
    head = find_object(make_client(), *_bucket_and_key(uri))
    return (head["ContentLength"], head["ETag"]) if head else None


def look(uri: str) -> RawState:
    """The state of a raw file. Raises RawAwayError, RawGoneError, and of S3 botocore's errors."""
    if not is_remote(uri):
        return look_at(path_of(uri))
    bucket, key = _bucket_and_key(uri)
    head = find_object(make_client(), bucket, key)
    if head is not None:
        size, etag = head["ContentLength"], head["ETag"]
        return RawState(size, etag, f"{etag}:{size}")
    if not has_bucket(make_client(), bucket):
        raise RawAwayError(errno.ENOENT, f"there is no bucket {bucket}", uri)
    raise RawGoneError(errno.ENOENT, "there is no such object (any more)", uri)


def sidecar_state(uri: str) -> str | None:
    """What tells one version of a video's calibration file from another; None if it has none.

    Only to be believed where the video itself was there before and after.
    """
    beside = sidecar_of(uri)
    if is_remote(uri):
        version = raw_version(beside)
        return None if version is None else ":".join(map(str, version))
    try:
        found = path_of(beside).stat()
    except OSError:
        return None
    return f"{found.st_size}:{listed_version(found)}"


class Memory(Protocol):
    """Remembers in which state a file had which content, so that it is not hashed each time."""

    def recall(self, uri: str, sha256: str) -> str | None:
        """The state in which the file was read that has this content; "" if there is none to go by;
        None if nothing is known of the file at all."""
        ...

    def remember(self, uri: str, sha256: str, state: str) -> None:
        """In this state the file has this content."""
        ...


class RawReader:
    """Local paths of raw files, for as long as they are held."""

    def __init__(self, scratch: Scratch | None = None, memory: Memory | None = None) -> None:
        self._scratch = scratch
        self._memory = memory

    @contextmanager
    def hold(self, uri: str, sha256: str | None = None) -> Iterator[Path]:
        """The file at `uri`, its calibration beside it; not to be written.

        sha256: of the bytes as they were entered. They are compared where a copy is made, and of a
        local file where its state is not the one that `memory` has of them. A local file must also
        end the block as it began it: else what was made of it would be of nobody knows which bytes.

        Raises RawChangedError, RawAwayError, RawGoneError (a FileNotFoundError), ScratchError,
        botocore's errors; also in place of an error inside the block that came of the file's
        absence.
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
        if self._memory is None or known is None or (known and known == state.text):
            return
        if hash_local(path_of(uri), state) != sha256:
            raise RawChangedError(_other_bytes(uri))
        if state.text:
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
        if unread := unread_error(error, path_of(uri), path_of(sidecar_of(uri))):
            raise _unread(uri, unread) from error

    @contextmanager
    def _hold_copy(self, uri: str, sha256: str | None) -> Iterator[Path]:
        if self._scratch is None:
            self._scratch = Scratch.of_machine()
        version = raw_version(uri)
        if version is None:
            look(uri)  # raises, saying what is not there
            raise RawGoneError(errno.ENOENT, "it was not there a moment ago", uri)
        beside = sidecar_of(uri)
        parts = [(uri, version)]
        if (calibration := raw_version(beside)) is not None:
            parts.append((beside, calibration))
        with self._scratch.hold(parts) as path:
            if sha256 and self._scratch.sha256(path) != sha256:
                raise RawChangedError(_other_bytes(uri))
            try:
                yield path
            except Exception as error:
                if unread := unread_error(error, path, path.with_suffix(SIDECAR)):
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


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(S3).partition("/")
    if not bucket:
        raise ValueError(f"not an S3 location: {uri}; write s3://bucket/prefix")
    return bucket, key
