"""SQL over the lake: every table as a view, to read and nothing else (DuckDB).

Here: a connection that reads the lake's tables and cannot write, attach, load, or look anywhere
else. Not here: the schema (`ego_assets.schemas`), fragments: a query sees compacted shards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import dataset

from ego_assets.schemas import TABLES
from resources.lake.lake import Lake
from resources.lake.s3 import S3Storage


class QueryError(ValueError):
    """The statement is refused, or wrong; the message says why."""


class Catalog:
    """The tables of a lake, by name. A context manager; safe for strangers' SQL."""

    def __init__(
        self, lake: Lake, *, memory_limit: str = "2GB", threads: int | None = None
    ) -> None:
        import duckdb

        self._connection = duckdb.connect(":memory:")
        remote = isinstance(lake.storage, S3Storage)
        root = lake.location
        for table, model in TABLES.items():
            files = [k for k in lake.storage.list(table) if k.endswith(".parquet")]
            if files and isinstance(lake.storage, S3Storage):
                # Arrow reads S3, with our credentials; DuckDB itself stays cut off.
                paths = [f"{lake.storage.bucket}/{lake.storage.prefix}/{k}" for k in files]
                files = [p.replace("//", "/") for p in paths]
                found = dataset.dataset(
                    files, model.arrow_schema(), "parquet", lake.storage.filesystem
                )
                self._connection.register(table, found)
            elif files:
                # A folder's name is ours, and quoted; a prepared statement cannot make a view.
                where = f"{root}/{table}/*.parquet".replace("'", "''")
                self._connection.execute(
                    f"CREATE VIEW {table} AS SELECT * FROM "
                    f"read_parquet('{where}', union_by_name = true)"
                )
            else:
                empty = model.arrow_schema().empty_table()
                self._connection.register(f"_{table}", empty)
                self._connection.execute(f"CREATE VIEW {table} AS SELECT * FROM _{table}")
        settings: dict[str, Any] = {
            "memory_limit": memory_limit,
            "allowed_directories": [] if remote else [root],
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        }
        if threads:
            settings["threads"] = threads
        for name, value in settings.items():
            self._connection.execute(f"SET {name} = {_literal(value)}")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def query(self, sql: str) -> pa.Table:
        """The rows of one SELECT (or DESCRIBE, EXPLAIN, SUMMARIZE). Raises QueryError."""
        import duckdb

        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1:
                raise QueryError(f"one statement at a time; these are {len(statements)}")
            kind = statements[0].type
            if kind not in {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}:
                raise QueryError(f"only SELECT is allowed here, not {kind.name}")
            return self._connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise QueryError(str(error)) from error

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(_literal(v) for v in value)}]"
    return "'" + str(value).replace("'", "''") + "'"


def open_catalog(lake_root: str | Path) -> Catalog:
    """`with open_catalog("lake") as catalog: catalog.query("select …")`."""
    return Catalog(Lake(lake_root))
