"""Erases data sets that were exported into the lake and have a video that was forgotten.

Pictures do not say whose they are, the rows and records beside them do: so a data set goes as a
whole. Episodes that wait in a staging folder may have neither; they go always, for an export makes
them again. Not here: exports elsewhere, of which the lake does not know.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath

from ego_assets.exports.files import IN_LAKE, alone_in
from ego_assets.exports.folder import INDEX
from ego_assets.exports.publishing import STAGING, discard, finish
from ego_assets.upkeep.erasure.traces import trace_in
from resources.lake import Lake
from resources.lake.storage import LocalStorage, UnsafeKeyError


def erase_data_sets(lake: Lake, video_id: str, keys: Iterable[str]) -> list[str]:
    """Delete those that have a video, and what is staged. keys: of the files in `exports/`. Returns
    the folders and files that went. Raises ExportError while one is being written."""
    gone = []
    for name, files in _by_data_set(keys).items():
        if name in files:  # a file of no data set
            if _has(lake, name, video_id):
                lake.storage.delete(name)
                gone.append(name)
            continue
        with _alone(lake, name):
            if _erase(lake, video_id, name):
                gone.append(name)
    return gone


def _erase(lake: Lake, video_id: str, name: str) -> bool:
    files = []
    for key in lake.storage.everything(name):
        if STAGING in key.split("/"):
            lake.storage.delete(key)
        else:
            files.append(key)
    telling = [key for key in files if _has(lake, key, video_id)]
    if telling:
        # Those that tell go last, so that whoever is killed goes on.
        for key in (*(key for key in files if key not in telling), *telling):
            lake.storage.delete(key)
    folders = {str(folder) for key in files for folder in PurePosixPath(key).parents}
    for folder in sorted(folders, key=len, reverse=True):
        if folder.startswith(f"{name}/"):  # an export goes to an empty folder only
            lake.storage.drop_empty(folder)
    return bool(telling)


def _has(lake: Lake, key: str, video_id: str) -> bool:
    with suppress(FileNotFoundError, UnsafeKeyError):
        return trace_in(lake, key, video_id)
    return False


@contextmanager
def _alone(lake: Lake, name: str) -> Iterator[None]:
    """Keep exports out of a data set, and end what one that was killed had begun."""
    if not isinstance(lake.storage, LocalStorage):  # exports are written to folders only
        yield
        return
    folder = lake.storage.path(name)
    with alone_in(folder):
        finish(folder)  # else it would have files of two exports
        discard(folder)
        yield


def _by_data_set(keys: Iterable[str]) -> dict[str, list[str]]:
    """{folder of a data set: its files}; a file that is in none stands for itself. Of data sets
    inside of each other, the outermost."""
    files = list(keys)
    roots = {IN_LAKE} if f"{IN_LAKE}/meta/info.json" in files else set[str]()
    for key in files:
        parts = key.split("/")[:-1]
        marks = [n for n, part in enumerate(parts) if n > 1 and part in {"meta", STAGING}]
        if marks:
            roots.add("/".join(parts[: marks[0]]))
        elif key.endswith(f"/{INDEX}") and parts:
            roots.add("/".join(parts))
        elif parts[1:2] == [STAGING]:
            roots.add(IN_LAKE)
    found: dict[str, list[str]] = defaultdict(list)
    for key in files:
        above = [str(folder) for folder in reversed(PurePosixPath(key).parents)]
        found[next((folder for folder in above if folder in roots), key)].append(key)
    return dict(found)
