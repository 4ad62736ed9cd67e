"""One Parquet file of the lake: its rows, and what its footer says of them.

Not here: which files there are, and which rows of theirs count (`lake`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from resources.lake.provenance import Provenance
from resources.lake.s3.storage import S3Storage
from resources.lake.storage import LocalStorage
from resources.lake.table import SCHEMA_VERSION, TABLES, SchemaError

PROVENANCE = b"ego.provenance"
ITEMS = b"ego.units"
SCHEMA = b"ego.schema_version"
OWN = ("fingerprint", "input_hash", "attempt", "created_at", "token")


class LakeError(RuntimeError):
    """The lake holds something that it should not; the message names the file."""


@dataclass(frozen=True)
class ParquetFile:
    """An open Parquet file of the lake. `footer` is read when it is opened, and only then."""

    file: pa.NativeFile
    footer: pq.ParquetFile

    @property
    def metadata(self) -> dict[bytes, bytes]:
        return self.footer.metadata.metadata or {}

    @property
    def items(self) -> dict[str, dict[str, Any]]:
        """What a compacted file says of its items. Raises ValueError for a file that does not."""
        if ITEMS not in self.metadata:
            raise ValueError("it does not say what items it holds")
        items: dict[str, dict[str, Any]] = json.loads(self.metadata[ITEMS])
        return items

    @property
    def provenances(self) -> dict[str, Provenance]:
        """Where the rows of every item in a compacted file came from."""
        items, shared = self.items, json.loads(self.metadata[PROVENANCE])
        return {
            item: Provenance(**shared[e["provenance"]], **{k: e[k] for k in OWN if k in e})
            for item, e in items.items()
        }


@contextmanager
def open_parquet(storage: LocalStorage | S3Storage, key: str) -> Iterator[ParquetFile]:
    """A Parquet file of the lake. Raises FileNotFoundError; LakeError for one that is damaged,
    also from the block that reads in it."""
    with storage.open(key) as file:
        try:
            yield ParquetFile(file, pq.ParquetFile(file))
        except (FileNotFoundError, LakeError):
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's are ValueErrors
            raise _damaged(storage.uri(key), error) from error


def token_of(items: Mapping[str, dict[str, Any]], item: str) -> int:
    """The token of an item's compacted rows; -1 if it has none."""
    return items[item].get("token", 0) if item in items else -1


def load(
    opened: ParquetFile,
    uri: str,
    table: str,
    columns: list[str] | None,
    chosen: pc.Expression | None = None,
) -> pa.Table:
    """Rows of a file, whatever release wrote it. Raises LakeError, pyarrow's errors."""
    model, stored = TABLES[table], opened.footer.schema_arrow
    names = model.stored_names(stored, columns)
    if chosen is None:
        batch = opened.footer.read(names)
    else:
        batch = pq.read_table(opened.file, columns=names, filters=chosen)
    try:
        version = (stored.metadata or {}).get(SCHEMA, SCHEMA_VERSION.encode()).decode()
        return model.upgrade(batch.replace_schema_metadata(None), columns, version)
    except SchemaError as error:
        raise LakeError(f"{uri}: {error}") from error


def _damaged(path: str, error: object) -> LakeError:
    return LakeError(
        f"{path} is not a readable Parquet file ({error}): `ego verify --repair` takes it away "
        "and has its clips made again"
    )
