"""Brings finished files into a data set all together, or not at all.

Files that are new lie in the staging folder. A journal there says where each goes and what is to be
deleted; once it is written, the export is decided, and whoever comes next goes on with it. Readers
meet a half-changed data set only while files are renamed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ego_assets.exports.files import is_inside, naming, remove, sync
from ego_assets.exports.grid import ExportError

STAGING = ".ego_export"
PLAN = "plan.json"
"""Says what the episodes that wait in the staging folder were encoded under."""
_JOURNAL = "journal.json"


def publish(folder: Path, moves: Mapping[str, Path], deletes: Sequence[str]) -> None:
    """Give files their names in the folder, in order, and delete others. moves: {name: file}."""
    staging = folder / STAGING
    staging.mkdir(exist_ok=True)
    for path in moves.values():
        sync(path)
    journal = {
        "moves": {name: str(path.relative_to(staging)) for name, path in moves.items()},
        "deletes": list(deletes),
    }
    aside = staging / f"{_JOURNAL}.unfinished"
    with naming(aside):
        aside.write_text(json.dumps(journal))
    sync(aside)
    aside.rename(staging / _JOURNAL)
    sync(staging)
    finish(folder)


def finish(folder: Path, is_ours: Callable[[str], bool] = is_inside) -> None:
    """Go on with what was decided, if anything was, and remove the staging folder then.

    is_ours: whether a format has files of this name. Raises ExportError for a journal that names
    others.
    """
    staging = folder / STAGING
    try:
        journal = json.loads((staging / _JOURNAL).read_text())
    except FileNotFoundError:
        return
    _check(journal, staging / _JOURNAL, is_ours)
    for name, source in journal["moves"].items():
        goal = folder / name
        with naming(goal), suppress(FileNotFoundError):  # it was renamed before
            goal.parent.mkdir(parents=True, exist_ok=True)
            (staging / source).replace(goal)
    for name in journal["deletes"]:
        with naming(folder / name):
            (folder / name).unlink(missing_ok=True)
        for parent in (folder / name).parents:
            if parent == folder:
                break
            with suppress(OSError):
                parent.rmdir()
    # Until all names are on the disk, a power cut must find the journal.
    named = {folder / name for name in (*journal["moves"], *journal["deletes"])}
    for parent in sorted({p for path in named for p in path.parents if p.is_relative_to(folder)}):
        if parent.exists():
            sync(parent)
    discard(folder)


def publish_nothing(
    folder: Path,
    files: Iterable[str],
    were: Collection[str],
    skipped: Collection[str],
    *,
    is_same: bool,
) -> str:
    """Delete the files of an export of which no episode can be written again, if some are no longer
    wanted: consent may be gone, and the others are out of date. Returns what became of them.

    were: ids of the episodes in it; skipped: of those that are wanted and cannot be written;
    is_same: whether the same was asked for before. If not, a slip would delete what is not meant.
    """
    if set(were) <= set(skipped):
        if not skipped:  # what a killed export has staged is not wanted either
            discard(folder)
        return ""
    if not is_same:
        return (
            f". {folder} still has {len(were)} episodes, of another lake or with other settings: "
            "delete it if they are not to stay"
        )
    publish(folder, {}, sorted(name for name in set(files) if (folder / name).exists()))
    return f". The episodes that were in {folder} ({len(were)}) are deleted"


def is_same_request(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two provenances are of the same lake and the same choice of episodes."""
    of_both = ({name: each.get(name) for name in ("lake", "content")} for each in (before, now))
    first, second = (json.dumps(each, sort_keys=True) for each in of_both)
    return first == second


def discard(folder: Path) -> None:
    """Remove the staging folder: first the plan, so that nobody counts on what is left if that is
    interrupted, and last the journal."""
    staging = folder / STAGING
    if not staging.exists():
        return
    (staging / PLAN).unlink(missing_ok=True)
    sync(staging)
    for path in sorted(staging.glob("*")):
        if path.is_dir():
            remove(path)
    shutil.rmtree(staging, ignore_errors=True)


def _check(journal: Any, path: Path, is_ours: Callable[[str], bool]) -> None:
    """Raise ExportError if a journal names files that no export has: somebody else wrote it."""
    try:
        names = [*journal["moves"], *journal["deletes"]]
        sources = list(journal["moves"].values())
    except (AttributeError, KeyError, TypeError) as error:
        raise ExportError(f"{path} is no journal of an export: delete {path.parent}") from error
    strange = [name for name in names if not is_ours(str(name))]
    strange += [source for source in sources if not is_inside(str(source))]
    if strange:
        raise ExportError(
            f"{path} names {strange[0]!r}, which is no file of the folder: nothing was changed. "
            f"Delete {path.parent} if you trust the rest of the folder"
        )
