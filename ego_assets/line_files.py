"""Keeps rows in files of JSON lines in the lake, each of which is written once.

    <lake>/{folder}/{time}.{id}.jsonl          some rows
    <lake>/{folder}/together-{sha256}.jsonl    many of them: what the small files said

No file is ever changed. Files are put together by writing their union first and deleting them
afterwards: two at once need no lock, and at any moment each row is in one file at least. Not here:
when that is done, and which of several rows counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Generic, TypeVar

from resources.lake import Lake, LakeError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Row = TypeVar("Row", bound=DataclassInstance)
else:
    Row = TypeVar("Row")
TOGETHER = "together-"
_READERS = 8


class LineFiles(Generic[Row]):
    """The files of one folder. row: a dataclass; what: its rows, for messages. Safe to use from
    many processes at once."""

    def __init__(self, lake: Lake, folder: str, row: type[Row], what: str) -> None:
        self.folder = folder
        self._storage = lake.storage
        self._row = row
        self._what = what
        self._fields = frozenset(field.name for field in fields(row))
        self._known: dict[str, tuple[Row, ...]] = {}

    def add(self, rows: Iterable[Row], time: str, name: str) -> None:
        """Keep rows: when this returns, they are in the lake. time: ISO 8601, UTC, with
        microseconds; name: no other file's."""
        when = "".join(c for c in time[:26] if c.isdigit())
        self._storage.write(f"{self.folder}/{when}.{name}.jsonl", _lines(rows))

    def keys(self) -> list[str]:
        """Where the files lie."""
        return self._storage.list(self.folder)

    def read(self) -> dict[str, tuple[Row, ...]]:
        """What each file says. A file never changes, so each is read once. Raises LakeError."""
        while True:
            keys, known = self.keys(), self._known
            missing = [key for key in keys if key not in known]
            try:
                with ThreadPoolExecutor(_READERS) as pool:
                    read = list(pool.map(self._storage.read, missing))
            except FileNotFoundError:  # they were put together after the listing
                continue
            new = {key: self._parsed(key, data) for key, data in zip(missing, read, strict=True)}
            found = {key: new[key] if key in new else known[key] for key in keys}
            self._known = found
            return found

    def write_together(self, rows: Iterable[Row]) -> str:
        """Write one file of rows that others have. Returns where it lies."""
        data = _lines(rows)
        key = f"{self.folder}/{TOGETHER}{hashlib.sha256(data).hexdigest()}.jsonl"
        self._storage.write(key, data, replace=False)
        return key

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._storage.delete(key)

    def _parsed(self, key: str, data: bytes) -> tuple[Row, ...]:
        try:
            said = [json.loads(line) for line in data.decode().split("\n") if line]
            # A newer release may say more.
            known = ({k: v for k, v in each.items() if k in self._fields} for each in said)
            return tuple(self._row(**each) for each in known)
        except (ValueError, TypeError, AttributeError) as error:
            raise LakeError(
                f"{key} holds no {self._what} ({error}): move the file out of {self.folder} and "
                "look at it"
            ) from error


def _lines(rows: Iterable[Row]) -> bytes:
    return "".join(f"{json.dumps(asdict(r), ensure_ascii=False)}\n" for r in rows).encode()
