"""Searches all bytes of a lake's folder for a word."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq


def bytes_with(root: Path, word: str) -> list[str]:
    """Files that have a word in their names, bytes, or rows; but for tombstones."""
    found = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or name.startswith("_forgotten/"):
            continue
        data = path.read_bytes()
        if path.name == "ledger.sqlite":
            data = without_tombstones(path)
        if path.suffix == ".parquet":
            batch = pq.read_table(path)
            data += str(batch.schema.metadata).encode() + str(batch.to_pylist()).encode()
        if word in name or word.encode() in data:
            found.append(name)
    return found


def without_tombstones(path: Path) -> bytes:
    """All bytes of a ledger, with what is free in it, but for the table of tombstones."""
    copy = path.parents[2] / "ledger.copy"
    shutil.copy(path, copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("DELETE FROM forgotten")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return copy.read_bytes()
