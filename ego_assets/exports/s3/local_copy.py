"""Brings a data set in a bucket up to date: a local copy of it is, and what changed is uploaded.

The index goes last. A mark in the bucket says what an upload is about to do: whoever finds one
after a crash goes on with that, and takes files that have not arrived for missing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ego_assets.exports.files import is_inside, naming
from ego_assets.exports.folder import INDEX, damaged_files
from ego_assets.exports.grid import ExportError
from ego_assets.exports.publishing import STAGING
from resources.lake.s3.client import s3_errors
from resources.lake.s3.storage import S3Storage
from resources.lake.storage import LOCKS, file_sha256
from resources.processes.owned_folders import temporary_folder

SCHEME = "s3://"
_INDEXES = (INDEX, "meta/ego_provenance.json")
_MARK = f"{STAGING}/uploading.json"
_BLOCK_BYTES = 2**22
_AT_ONCE = 8
"""Files that are copied at a time: a request for a small one is all waiting."""

_Stamp = tuple[int, int]
"""Bytes and time of a local file: a file that is made again has another."""


@dataclass(frozen=True)
class _Begun:
    """An upload. files: SHA-256 of those that are replaced, None of those that are deleted;
    indexes: the text of those that will be there, none if all of the export is deleted."""

    files: dict[str, str | None] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, storage: S3Storage) -> _Begun | None:
        """One that was killed, if there is one. Raises ExportError."""
        try:
            found = json.loads(storage.read(_MARK))
            indexes = {name: str(text) for name, text in found["indexes"].items()}
            if not indexes.keys() <= set(_INDEXES):
                raise ValueError(f"it names {sorted(indexes)} as indexes")
            return cls(dict(found["files"].items()), indexes)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ExportError(
                f"{storage.uri(_MARK)} cannot be read ({error}): what is beside it may be half of "
                "an export. Give another prefix, or delete all below this one"
            ) from error


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
            begun = _Begun.read(storage)
            if begun and not begun.indexes:
                _delete(storage, begun)
                begun = None
            there = _download(storage, folder, begun or _Begun())
            try:
                yield folder
            except ExportError as error:
                if _changes(folder, there):
                    _upload(storage, folder, there)
                raise ExportError(str(error).replace(str(folder), storage.location)) from error
            if begun or _changes(folder, there):
                _upload(storage, folder, there)
    except s3_errors() as error:
        raise ExportError(f"{out}: {error}") from error


def damaged_objects(out: str) -> dict[str, str]:
    """As `damaged_files`, of an export at s3://bucket/prefix."""
    try:
        return damaged_files(S3Storage(out))
    except s3_errors() as error:
        raise ExportError(f"{out}: {error}") from error


def _download(storage: S3Storage, folder: Path, begun: _Begun) -> dict[str, _Stamp | None]:
    """Copy all files but those that an upload that was killed has not replaced or deleted yet, and
    the indexes as it would have left them. Returns the names in the bucket, with the stamps of the
    copies."""
    ours = (f"{LOCKS}/", f"{STAGING}/")
    names = [name for name in storage.everything() if not name.startswith(ours)]
    strange = next((name for name in names if not is_inside(name)), None)
    if strange or (names and not {*names, *begun.indexes} & set(_INDEXES)):
        raise ExportError(
            f"{storage.location} holds other files ({strange or names[0]}), and no export: give a "
            "prefix with nothing below it"
        )

    def fetch(name: str) -> _Stamp | None:
        path, wanted = folder / name, begun.files.get(name, "")
        if wanted is None:
            return None
        with storage.open(name) as source, naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as goal:
                shutil.copyfileobj(source, goal, _BLOCK_BYTES)
        if wanted and file_sha256(path) != wanted:
            path.unlink()
            return None
        return _stamp(path)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        there = dict(zip(names, pool.map(fetch, names), strict=True))
    for name, text in begun.indexes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
        there[name] = _stamp(folder / name)
    return there


def _changes(folder: Path, there: dict[str, _Stamp | None]) -> bool:
    """Whether files of the copy were written or deleted."""
    return _stamps(folder) != {name: stamp for name, stamp in there.items() if stamp}


def _upload(storage: S3Storage, folder: Path, there: dict[str, _Stamp | None]) -> None:
    """Bring the bucket up to date; the indexes in any case, of which an older one may be there."""

    def put(name: str) -> None:
        storage.put_file(name, folder / name, {})

    def is_of_all(name: str) -> bool:
        return name.startswith("meta/") or ("/" not in name and name.endswith(".json"))

    here = _stamps(folder)
    changed = sorted(n for n, s in here.items() if there.get(n) != s and n not in _INDEXES)
    indexes = [name for name in _INDEXES if name in here]
    begun = _Begun(
        {name: file_sha256(folder / name) for name in changed}
        | dict.fromkeys(sorted(there.keys() - here.keys())),
        {name: (folder / name).read_bytes().decode() for name in indexes},
    )
    storage.write(_MARK, json.dumps(asdict(begun)).encode())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(put, (name for name in changed if not is_of_all(name))))
    for name in (*filter(is_of_all, changed), *indexes):
        put(name)
    _delete(storage, begun)


def _delete(storage: S3Storage, begun: _Begun) -> None:
    """The end of an upload."""
    for name, digest in begun.files.items():
        if digest is None:
            storage.delete(name)
    storage.delete(_MARK)


def _stamps(folder: Path) -> dict[str, _Stamp]:
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {n: _stamp(p) for n, p in paths.items() if not n.startswith(f"{STAGING}/")}


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
