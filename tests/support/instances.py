"""Dagster instances whose databases need no migration.

Dagster brings three databases of a new instance through its history, at half a second of CPU. Here
it does so once a process; every test gets a copy of the empty files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg

from dagster_project.executors.storages.sqlite_engines import keep_engines


@contextmanager
def dagster_instance(folder: Path, **options: Any) -> Iterator[dg.DagsterInstance]:
    """As `dagster.instance_for_test`, in a folder that is there."""
    add_databases(folder)
    keep_engines()
    with dg.instance_for_test(temp_dir=str(folder), **options) as instance:
        yield instance


def add_databases(home: Path) -> None:
    """Copy the files of an instance without anything in it."""
    shutil.copytree(_migrated().name, home, dirs_exist_ok=True)


@cache
def _migrated() -> TemporaryDirectory[str]:
    """Their folder, which goes with this process."""
    folder = TemporaryDirectory(prefix="dagster-")
    with dg.instance_for_test(temp_dir=folder.name):
        pass
    return folder
