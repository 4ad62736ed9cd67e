"""Keeps what Dagster makes again and again for its SQLite files.

Dagster makes an engine for each connection, which compiles each statement again, and reads all of
its migrations to tell whether a file is up to date: half of the CPU that an event costs, and most
of what it takes to open an instance. An engine without a pool holds no connection, so one for each
file does, also beyond a fork. Not here: what is in the files.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage

STORAGES: tuple[Any, ...] = (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)
_MOST = 32
"""Files: each run has one of its own."""
_read_scripts: Any = ScriptDirectory.from_config.__func__  # type: ignore[attr-defined]
_scripts: dict[tuple[str | None, ...], ScriptDirectory] = {}


def keep_engines() -> None:
    """Have Dagster use one engine for each SQLite file in this process, and read its migrations
    once, from now on."""
    for storage in STORAGES:
        storage.create_engine = kept_engine
    ScriptDirectory.from_config = classmethod(_kept_scripts)  # type: ignore


def kept_engine(url: str, **options: Any) -> sa.Engine:
    """Return an engine as `sqlalchemy.create_engine` does: the one of before, if it is kept."""
    if options.get("poolclass") is not sa.pool.NullPool:
        return sa.create_engine(url, **options)
    arguments = options.pop("connect_args", {})
    return _kept(url, tuple(sorted(arguments.items())), tuple(sorted(options.items())))


@lru_cache(maxsize=_MOST)
def _kept(url: str, arguments: tuple[Any, ...], options: tuple[Any, ...]) -> sa.Engine:
    return sa.create_engine(url, connect_args=dict(arguments), **dict(options))


def _kept_scripts(kind: type[ScriptDirectory], config: Config) -> ScriptDirectory:
    where = tuple(config.get_main_option(n) for n in ("script_location", "version_locations"))
    if where not in _scripts:
        _scripts[where] = _read_scripts(kind, config)
    return _scripts[where]
