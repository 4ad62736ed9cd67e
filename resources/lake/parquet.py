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
UNITS = b"ego.units"
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
    def units(self) -> dict[str, dict[str, Any]]:
        """What a compacted file says of its units. Raises ValueError for a file that does not."""
        if UNITS not in self.metadata:
            raise ValueError("it does not say what units it holds")
        units: dict[str, dict[str, Any]] = json.loads(self.metadata[UNITS])
        return units

    @property
    def provenances(self) -> dict[str, Provenance]:
        """Where the rows of every unit in a compacted file came from."""
        units, shared = self.units, json.loads(self.metadata[PROVENANCE])
        return {
            unit: Provenance(**shared[e["provenance"]], **{k: e[k] for k in OWN if k in e})
            for unit, e in units.items()
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


def token_of(units: Mapping[str, dict[str, Any]], unit: str) -> int:
    """The token of a unit's compacted rows; -1 if it has none."""
    return units[unit].get("token", 0) if unit in units else -1


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
