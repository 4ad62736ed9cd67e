"""Answers SQL over the tables of a lake (DuckDB), and does nothing else.

Statements are judged by their syntax tree first (`statements`), and DuckDB itself has no access to
files, the network or extensions: Arrow reads the Parquet files of the tables that a statement
names, with the credentials of this process. A query sees compacted shards, not fragments. Not here:
the schema (`resources.lake.table`), how an answer is shown.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import dataset

from resources.lake.lake import Lake
from resources.lake.s3.storage import S3Storage
from resources.lake.statements import QueryError, check
from resources.lake.table import TABLES, Table

BATCH_ROWS = 2048
"""Rows that are handed over at a time: as many as DuckDB computes at a time."""
_PATIENCE_S = 2.0
_TOO_LARGE = re.compile(r"\bout of memory\b|maximum total string size", re.IGNORECASE)
_STORED = "stored_"
"""Begins the name of rows whose values are renamed on the way to the table; no query may use it."""
_UNREADABLE = re.compile(
    rf"stream registered as '(?:{_STORED})?(?P<table>\w+)' failed: (?P<why>.*)", re.DOTALL
)

T = TypeVar("T")
Beside = Mapping[str, tuple[pa.Schema, Callable[[], pa.Table]]]


class Catalog:
    """Answers SQL over the tables of a lake. A context manager; one statement at a time.

    beside: further tables, which are no Parquet files of the lake: {name: (schema, read)}.
    memory_limit: DuckDB may use half of it, and an answer of `query` a quarter; a single value may
    exceed it (`bounded_growth` stops that, too). timeout_s: how long a statement may compute.
    """

    def __init__(
        self,
        lake: Lake,
        *,
        beside: Beside | None = None,
        memory_limit: str = "2GB",
        threads: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        import duckdb

        self._lake = lake
        self._beside = beside or {}
        self._memory_limit = memory_limit
        self._timeout_s = timeout_s
        self._left_s = timeout_s
        self._thread: threading.Thread | None = None
        self._threads: list[threading.Thread] = []
        """That of the statement, and those of earlier ones that could not be interrupted."""
        self._database = duckdb.connect(":memory:")
        self._connection: duckdb.DuckDBPyConnection | None = None
        parsed = self._database.execute("SELECT parse_formatted_bytes(?)", [memory_limit])
        self._memory_bytes = int(parsed.fetchall()[0][0])
        settings: dict[str, Any] = {
            "memory_limit": f"{self._memory_bytes // 2}B",
            "temp_directory": "",
            "enable_progress_bar": False,
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
            "enable_external_access": False,
        }
        if threads:
            settings["threads"] = threads
        for name, value in (settings | {"lock_configuration": True}).items():
            self._database.execute(f"SET {name} = {_literal(value)}")

    def stream(self, sql: str) -> pa.RecordBatchReader:
        """Answer one SELECT (or DESCRIBE, SUMMARIZE, EXPLAIN, SHOW TABLES), batch by batch.

        The answer is computed while it is read, in bounded memory; the next statement ends it.
        Raises QueryError, also while it is read.
        """
        self._end()
        self._left_s = self._timeout_s
        connection = self._connection = self._database.cursor()
        select = check(connection, sql, [*TABLES, *self._beside])
        for name, (schema, read) in self._beside.items():
            connection.register(name, read() if name in select.tables else schema.empty_table())
        for table, model in TABLES.items():
            is_read = table in select.tables
            found = self._files(table) if is_read else model.arrow_schema().empty_table()
            names = model.formerly() if is_read else {}
            connection.register(f"{_STORED}{table}" if names else table, found)
            if names:
                connection.execute(_renaming_view(table, names))
        reader = self._call(lambda: connection.sql(select.sql).to_arrow_reader(BATCH_ROWS))
        return pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader))

    def query(self, sql: str) -> pa.Table:
        """Answer one SELECT as a whole. Raises QueryError, also if the answer is too large."""
        batches, size = [], 0
        reader = self.stream(sql)
        for batch in reader:
            size += batch.nbytes
            if size > self._memory_bytes // 4:
                raise QueryError(
                    f"the answer has more than {self._memory_bytes // 4 / 1e9:g} GB: select fewer "
                    "rows or columns, or read it batch by batch (Catalog.stream)"
                )
            batches.append(batch)
        return pa.Table.from_batches(batches, reader.schema)

    @property
    def is_busy(self) -> bool:
        """Whether DuckDB still works on a statement that was given up."""
        return any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """End the statement that runs, if any, and forget everything.

        The database stays open while a statement cannot be ended.
        """
        self._end()
        if not self.is_busy:
            self._database.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside ------------------------------------------------------------------------------

    def _interrupt(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()

    def _end(self) -> None:
        """End what was asked before."""
        if self._thread is not None:
            _join(self._thread, self._interrupt)
        is_over = self._thread is None or not self._thread.is_alive()
        if self._connection is not None and is_over:
            self._connection.close()
        self._thread = self._connection = None

    def _files(self, table: str) -> dataset.Dataset:
        """Return a dataset over the files that a table has now, and no others."""
        storage = self._lake.storage
        schema = _read_as(TABLES[table])
        texts = [f.name for f in schema if pa.types.is_dictionary(f.type)]
        options = dataset.ParquetFragmentScanOptions(pre_buffer=isinstance(storage, S3Storage))
        format_ = dataset.ParquetFileFormat(
            dataset.ParquetReadOptions(dictionary_columns=texts), options
        )
        fragments = [
            format_.make_fragment(storage.arrow_path(key), storage.filesystem)
            for key in self._lake.compacted_files(table)
        ]
        return _Files(fragments, schema, format_, storage.filesystem)

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        mine = self._connection
        while (batch := self._call(lambda: next(reader, None))) is not None:
            yield batch
            if self._connection is not mine:
                raise QueryError("another statement was asked in the middle of this answer")

    def _call(self, work: Callable[[], T]) -> T:
        """Let DuckDB work in a thread of its own, so that this one can end it when the time is up
        or on Ctrl-C. Raises QueryError."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        began = time.monotonic()
        self._thread = threading.Thread(target=run, name="duckdb", daemon=True)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(self._thread)
        self._thread.start()
        try:
            return done.result(self._left_s)
        except TimeoutError as error:
            if done.done():
                raise self._explained(error) from error
            self._interrupt()
            raise QueryError(
                f"it computed for {self._timeout_s:g} s and was ended: select less, or allow it "
                "more time (`--timeout`)"
            ) from error
        except Exception as error:
            raise self._explained(error) from error
        except BaseException:  # Ctrl-C
            self._interrupt()
            raise
        finally:
            if self._left_s is not None:
                self._left_s = max(0.0, self._left_s - (time.monotonic() - began))

    def _explained(self, error: Exception) -> Exception:
        """Turn an error of the statement or of the lake's files into a QueryError."""
        import duckdb

        if not isinstance(error, duckdb.Error | pa.ArrowException | OSError | MemoryError):
            return error
        words = str(error)
        # In the middle of an answer DuckDB's errors come through Arrow, as their words alone.
        is_memory = isinstance(error, duckdb.OutOfMemoryException | MemoryError)
        if is_memory or _TOO_LARGE.search(words):
            return QueryError(
                f"it needs more than the {self._memory_limit} of memory that it may use: select "
                "fewer rows or columns, aggregate instead of sorting, or allow it more "
                "(`--memory-gb`)"
            )
        if found := _UNREADABLE.search(words):
            return QueryError(
                f"{found['table']} cannot be read ({found['why']}): `ego verify` names the files "
                "that are damaged"
            )
        return QueryError(words)


class _Files(dataset.FileSystemDataset):
    """A dataset that reads little ahead. DuckDB calls its `scanner` with columns and filters."""

    def scanner(self, columns: Sequence[str] | None = None, **options: Any) -> dataset.Scanner:
        names = self.schema.names if columns is None else columns
        kinds = [self.schema.field(name).type for name in names]
        if any(pa.types.is_nested(kind) or pa.types.is_binary(kind) for kind in kinds):
            ahead = {"batch_size": 8192, "batch_readahead": 1, "fragment_readahead": 1}
        else:  # narrow rows
            ahead = {"batch_size": 65_536, "batch_readahead": 2, "fragment_readahead": 4}
        return super().scanner(columns=columns, cache_metadata=False, **(ahead | options))


def _read_as(model: type[Table]) -> pa.Schema:
    """Return a table's schema with text in dictionaries, where a label is compared only once.

    Arrow fills in null for what a file of an older release lacks, and widens narrower types.
    """
    text = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [f.with_type(text) if f.type == pa.string() else f for f in model.arrow_schema()]
    )


def _renaming_view(table: str, names: Mapping[str, Mapping[str, str]]) -> str:
    """Return SQL that makes a table of what is stored, older values under their names of now.

    DuckDB then compares the new names itself; Arrow would filter by what is stored.
    """
    columns = []
    for name, of in names.items():
        cases = [f"WHEN {_literal(old)} THEN {_literal(new)}" for old, new in of.items()]
        columns.append(f"CASE {name} {' '.join(cases)} ELSE {name} END AS {name}")
    select = f"SELECT * REPLACE ({', '.join(columns)}) FROM {_STORED}{table}"
    return f"CREATE TEMP VIEW {table} AS {select}"


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def open_catalog(lake_root: str | Path) -> Catalog:
    """`with open_catalog("lake") as catalog: catalog.query("select …")`."""
    return Catalog(Lake(lake_root))


def _join(thread: threading.Thread, interrupt: Callable[[], None]) -> None:
    """Wait a moment for a thread to end, also for one whose start Ctrl-C broke off: that begins
    all the same, a little later. DuckDB forgets an interrupt that comes before a statement begins,
    which then would compute for ever: so it is told again and again."""
    deadline = time.monotonic() + _PATIENCE_S
    while (left := deadline - time.monotonic()) > 0:
        interrupt()
        try:
            thread.join(min(left, 0.05))
        except RuntimeError:  # it has not begun
            time.sleep(0.01)
        else:
            if not thread.is_alive():
                return
