"""Raw videos where they lie: files of this machine, or objects of an S3 bucket. Never written.

Here: what there is (`list_raw`), what version of it (`raw_version`), and a local path to read it
from (`RawReader`; remote objects go through the scratch space). Not here: what is in a file.

A uri is an absolute path, `s3://bucket/key`, or, for a path that is not printable text (any bytes
may be in a name), `file://` with percent-encoding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from resources.lake.s3 import error_code, make_client
from resources.lake.scratch import Scratch

S3 = "s3://"
ENCODED = "file://"
SIDECAR = ".camera.json"
_MISSING = {"404", "NoSuchKey", "NotFound"}


class RawChangedError(ValueError):
    """A raw file is no longer the one that was entered: another try cannot help."""


@dataclass
class Listing:
    """files: {uri: size in bytes}, sorted. refused: {uri: why it is not taken}."""

    files: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def uri_of(path: Path) -> str:
    """The uri of a local path, which may hold any bytes."""
    text = str(path)
    if text.isprintable() and not text.startswith(ENCODED):
        return text
    return ENCODED + quote_from_bytes(os.fsencode(path))


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


def list_raw(places: Iterable[str | Path], suffixes: frozenset[str]) -> Listing:
    """All files under folders and prefixes with one of the suffixes; a named file whatever it is.

    Hidden files are left out. A link that leads out of its folder is refused: whoever may put
    files there must not have others read. Raises FileNotFoundError for a place that is not there.
    """
    found = Listing()
    for place in places:
        text = str(place)
        if is_remote(text):
            _list_bucket(text, suffixes, found)
        else:
            _list_folder(path_of(text).expanduser(), suffixes, found)
    found.files = dict(sorted(found.files.items()))
    return found


def _list_folder(place: Path, suffixes: frozenset[str], found: Listing) -> None:
    if place.is_file():
        path = place.resolve()
        found.files[uri_of(path)] = path.stat().st_size
        return
    if not place.is_dir():
        raise FileNotFoundError(f"no file or folder {place}")
    root = place.resolve()
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in suffixes:
                continue
            target = path.resolve()
            if path.is_symlink() and not target.is_relative_to(root):
                found.refused[uri_of(path)] = "a link that leads out of its folder is not followed"
            elif target.is_file():
                found.files[uri_of(target)] = target.stat().st_size


def _list_bucket(place: str, suffixes: frozenset[str], found: Listing) -> None:
    bucket, key = _bucket_and_key(place)
    client = make_client()
    if key and not key.endswith("/") and raw_version(place) is not None:
        size = client.head_object(Bucket=bucket, Key=key)["ContentLength"]
        found.files[place] = size
        return
    prefix = f"{key.rstrip('/')}/" if key else ""
    count = 0
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for entry in page.get("Contents", ()):
            count += 1
            parts = entry["Key"].removeprefix(prefix).split("/")
            hidden = any(p.startswith(".") for p in parts)
            if not hidden and Path(parts[-1]).suffix.lower() in suffixes:
                found.files[f"{S3}{bucket}/{entry['Key']}"] = entry["Size"]
    if not count:
        raise FileNotFoundError(f"no object or prefix {place}")


def raw_version(uri: str) -> tuple[int | str, ...] | None:
    """What changes when the bytes do, without reading them; None if there is no such file."""
    if not is_remote(uri):
        try:
            stat = path_of(uri).stat()
        except OSError:
            return None
        return stat.st_size, stat.st_mtime_ns
    from botocore.exceptions import ClientError

    bucket, key = _bucket_and_key(uri)
    try:
        head = make_client().head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error_code(error) in _MISSING:
            return None
        raise
    return head["ContentLength"], head["ETag"]


class RawReader:
    """Local paths of raw files, for as long as they are held."""

    def __init__(self, scratch: Scratch | None = None) -> None:
        self._scratch = scratch

    @contextmanager
    def hold(self, uri: str, sha256: str | None = None) -> Iterator[Path]:
        """The file at `uri`, its calibration beside it; not to be written.

        sha256: of the bytes as they were entered, checked where a copy is made. Raises
        FileNotFoundError, RawChangedError, ScratchError, botocore's errors.
        """
        if not is_remote(uri):
            yield path_of(uri)
            return
        if self._scratch is None:
            self._scratch = Scratch.of_machine()
        version = raw_version(uri)
        if version is None:
            raise FileNotFoundError(f"{uri} is not there (any more)")
        beside = sidecar_of(uri)
        parts = [(uri, version)]
        if (calibration := raw_version(beside)) is not None:
            parts.append((beside, calibration))
        with self._scratch.hold(parts) as path:
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
