"""Brings finished files into a data set all together, or not at all.

Files that are new lie in the staging folder. A journal there says where each goes and what is to be
deleted; once it is written, the export is decided, and whoever comes next goes on with it. Readers
meet a half-changed data set only while files are renamed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ego_assets.exports.files import naming, sync

STAGING = ".ego_export"
_JOURNAL = "journal.json"


def publish(folder: Path, moves: Mapping[str, Path], deletes: Sequence[str]) -> None:
    """Give files their names in the folder, in order, and delete others. moves: {name: file}."""
    staging = folder / STAGING
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


def finish(folder: Path) -> None:
    """Go on with what was decided, if anything was, and remove the staging folder then."""
    staging = folder / STAGING
    try:
        journal = json.loads((staging / _JOURNAL).read_text())
    except FileNotFoundError:
        return
    for name, source in journal["moves"].items():
        goal = folder / name
        with naming(goal), suppress(FileNotFoundError):  # it was renamed before
            goal.parent.mkdir(parents=True, exist_ok=True)
            (staging / source).replace(goal)
    for name in journal["deletes"]:
        with naming(folder / name):
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            (folder / name).parent.rmdir()
    sync(folder)
    discard(folder)


def discard(folder: Path) -> None:
    """Remove the staging folder, the journal last of all that could be missed."""
    staging = folder / STAGING
    for path in sorted(staging.glob("*")) if staging.exists() else ():
        if path.is_dir():
            shutil.rmtree(path)
    shutil.rmtree(staging, ignore_errors=True)
