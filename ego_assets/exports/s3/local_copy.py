"""Brings a data set in a bucket up to date: a local copy of it is, and what changed is uploaded.

The index goes last. A mark in the bucket names what an upload is about to replace or delete:
whoever finds one after a crash takes those files for missing, so they are made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ego_assets.exports.files import is_inside
from ego_assets.exports.folder import INDEX
from ego_assets.exports.grid import ExportError
from ego_assets.exports.publishing import STAGING
from resources.lake.s3.client import s3_errors
from resources.lake.s3.storage import S3Storage
from resources.lake.storage import LOCKS
from resources.processes.owned_folders import temporary_folder

SCHEME = "s3://"
_INDEXES = (INDEX, "meta/ego_provenance.json")
_MARK = f"{STAGING}/uploading.json"
_BLOCK_BYTES = 2**22

_Stamp = tuple[int, int]
"""Bytes and time of a local file: a file that is made again has another."""


@contextmanager
def local_copy(out: str) -> Iterator[Path]:
    """A local folder with what a bucket has at `out` (s3://bucket/prefix). When the block ends, the
    bucket gets what changed in it; also after an ExportError, which may have deleted files.

    Raises ExportError where the prefix holds anything else than an export, or the server refuses.
    """
    try:
        storage = S3Storage(out)
        with storage.lock("export"), temporary_folder() as top:
            folder = top / "export"
            stale = _about_to_change(storage)
            there = _download(storage, folder, stale)
            try:
                yield folder
            except ExportError as error:
                _upload(storage, folder, there)
                raise ExportError(str(error).replace(str(folder), storage.location)) from error
            _upload(storage, folder, there, is_whole=bool(stale))
    except s3_errors() as error:
        raise ExportError(f"{out}: {error}") from error


def _about_to_change(storage: S3Storage) -> set[str]:
    """Names that an upload which was killed may have replaced or deleted."""
    try:
        return set(json.loads(storage.read(_MARK)))
    except FileNotFoundError:
        return set()
    except (ValueError, TypeError) as error:
        raise ExportError(f"{storage.uri(_MARK)} cannot be read ({error}): delete it") from error


def _download(storage: S3Storage, folder: Path, stale: set[str]) -> dict[str, _Stamp | None]:
    """Copy all files but those that are stale. Returns the names in the bucket, with the stamps of
    the copies."""
    ours = (f"{LOCKS}/", f"{STAGING}/")
    names = [name for name in storage.everything() if not name.startswith(ours)]
    strange = next((name for name in names if not is_inside(name)), None)
    if strange or (names and not {*names, *stale} & set(_INDEXES)):
        raise ExportError(
            f"{storage.location} holds other files ({strange or names[0]}), and no export: give a "
            "prefix with nothing below it"
        )
    there: dict[str, _Stamp | None] = {}
    for name in names:
        there[name] = None
        if name not in stale:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with storage.open(name) as source, path.open("wb") as goal:
                shutil.copyfileobj(source, goal, _BLOCK_BYTES)
            there[name] = _stamp(path)
    return there


def _upload(
    storage: S3Storage, folder: Path, there: dict[str, _Stamp | None], *, is_whole: bool = False
) -> None:
    """Bring the bucket up to date, if files changed. is_whole: also if none did, since all that was
    stale has been made again."""
    here = {
        str(path.relative_to(folder)): _stamp(path)
        for path in folder.rglob("*")
        if path.is_file() and STAGING not in path.relative_to(folder).parts
    }
    changed = sorted(
        (name for name, stamp in here.items() if there.get(name) != stamp),
        key=lambda name: (name in _INDEXES, name.startswith("meta/"), name.endswith(".json"), name),
    )
    gone = sorted(there.keys() - here.keys())
    if not changed and not any(there[name] for name in gone) and not is_whole:
        return
    told = [name for name in (*changed, *gone) if name not in _INDEXES]
    storage.write(_MARK, json.dumps(told).encode())
    for name in changed:
        storage.put_file(name, folder / name, {})
    for name in gone:
        storage.delete(name)
    storage.delete(_MARK)


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
