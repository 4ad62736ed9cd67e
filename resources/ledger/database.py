"""A ledger's database: how it is reached, on SQLite or on Postgres, and waited for when it is away.

Not here: its tables and their versions (`tables`), what is done with them (`ledger`, `contents`,
`raw_files`, `alerts`).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, OperationalError

from resources.ledger.tables import damaged, file_identity, open_engine
from resources.words import ErasedWords

PATIENCE_S = 60.0
"""How long a call waits for a database that is away."""


class _Joint(threading.local):
    """The transaction that this thread's calls are part of, the connection that they read from,
    and whose these are; and whether they wait for no database."""

    transaction: tuple[Database, sa.Connection] | None = None
    reading: tuple[Database, sa.Connection] | None = None
    is_hasty: bool = False


_joint = _Joint()
P = ParamSpec("P")
T = TypeVar("T")


def patient(method: Callable[P, T]) -> Callable[P, T]:
    """Try again while the database is away (it restarts, the network flaps).

    A transaction whose commit was lost on the way may so run twice: `start` then counts one more
    attempt, and `finish` says late; a worker looks what is done before it does anything again.
    """

    @wraps(method)
    def trying(*args: P.args, **kwargs: P.kwargs) -> T:
        if _joint.transaction is not None:  # what broke is all of it: not ours to try again
            return method(*args, **kwargs)
        deadline = time.monotonic() + (0.0 if _joint.is_hasty else PATIENCE_S)
        wait_s, is_reopened = 0.1, False
        while True:
            try:
                return method(*args, **kwargs)
            except (OperationalError, InterfaceError) as error:
                if "no such table" in str(error.orig):
                    # Somebody has begun a new file in place of the one that was opened.
                    database: Any = getattr(args[0], "_database", args[0])
                    if is_reopened:
                        raise damaged(database.url, error.orig) from error
                    database.close()
                    is_reopened = True
                    continue
                # SQLite has no server to come back: all but a lock stays as it is.
                sqlite = "sqlite" in type(error.orig).__module__
                if (sqlite and "locked" not in str(error)) or time.monotonic() + wait_s > deadline:
                    raise
            time.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(2 * wait_s, 5.0)

    return trying


@contextmanager
def without_patience() -> Iterator[None]:
    """Have the calls of this thread in the block raise at once where the database is away."""
    _joint.is_hasty = True
    try:
        yield
    finally:
        _joint.is_hasty = False


def erase_words(
    engine: sa.Engine,
    words: ErasedWords,
    but: Collection[str] = (),
    only: Callable[[sa.Table], sa.ColumnElement[bool]] = lambda table: sa.true(),
) -> int:
    """Erase words from all texts of a database, whoever's it is, but for some of its tables and
    columns; and what is left of them in a file of SQLite's. only: in which rows of a table. Returns
    how many values it changed."""
    found, count = sa.MetaData(), 0
    found.reflect(engine)
    with engine.connect() as connection:
        is_file = engine.dialect.name == "sqlite"
        if is_file:
            connection.exec_driver_sql("PRAGMA secure_delete = ON")
        for table in (t for name, t in found.tables.items() if name not in but):
            for column in table.columns:
                is_text = isinstance(column.type, sa.String) and not column.primary_key
                if not is_text or column.name in but:
                    continue
                for word in words.words:
                    has_it = sa.and_(column.contains(word, autoescape=True), only(table))
                    texts = sa.select(column).distinct().where(has_it)
                    for text in connection.execute(texts).scalars().all():
                        if (value := words.replaced(text)) != text:
                            mine = sa.and_(column == text, only(table))
                            change = table.update().where(mine).values({column.name: value})
                            count += connection.execute(change).rowcount
        connection.commit()
        if is_file:  # pages that are free hold what they held
            vacuum = connection.execution_options(isolation_level="AUTOCOMMIT")
            vacuum.exec_driver_sql("VACUUM")
            vacuum.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
    return count


class Database:
    """Opens lazily; an instance may be used by one process (each worker makes its own)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: sa.Engine | None = None
        self._file: tuple[int, int] | None = None

    @patient
    def open(self) -> None:
        """Make the database, or bring it up to date, now.

        Alembic keeps one environment for a whole process, and Dagster migrates with it, too: so
        this goes before anything of Dagster runs in another thread.
        """
        self._engine()

    def close(self) -> None:
        """The next call opens the database again."""
        self._opened = None
        _joint.reading = None

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection that reads."""
        if _joint.reading is not None and _joint.reading[0] is self:
            return nullcontext(_joint.reading[1])
        return self._engine().connect()

    @contextmanager
    def joint_reading(self) -> Iterator[None]:
        """Have all calls of this thread in the block read from one connection: to a file, opening
        one costs more than most queries. What is in the block must not fork."""
        if self.is_postgres:  # it has a pool, and a connection there may break
            yield
            return
        with self.reading() as connection:
            _joint.reading = (self, connection)
            try:
                yield
            finally:
                _joint.reading = None

    @property
    def is_postgres(self) -> bool:
        return self.url.startswith("postgresql")

    def insert_ignore(self, table: sa.Table) -> Any:
        """An INSERT of many rows that leaves those that are there already as they are."""
        dialect = postgresql if self.is_postgres else sqlite
        return dialect.insert(table).on_conflict_do_nothing()

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        """A connection that writes: all of it, or nothing.

        durable=False: a power cut may take it back, and it need not wait for the disk.
        """
        if _joint.transaction is not None and _joint.transaction[0] is self:
            yield _joint.transaction[1]
            return
        with self._engine().connect() as connection:
            if connection.dialect.name == "sqlite":
                if not durable:
                    connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
                # Taking the write lock at once avoids the deadlock of two readers that write.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            elif not durable:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield connection
            connection.commit()

    @contextmanager
    def joint_transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Have all calls of this thread in the block be one transaction."""
        with self.transaction(durable=durable) as connection:
            _joint.transaction = (self, connection)
            try:
                yield
            finally:
                _joint.transaction = None

    def _engine(self) -> sa.Engine:
        # Another file may have taken the place of the one that was opened, or none.
        if self._opened is None or self._file != file_identity(self.url):
            self._opened = open_engine(self.url)
            self._file = file_identity(self.url)
        return self._opened

    @patient
    def erase_words(self, words: Iterable[str]) -> int:
        """As the function of that name; tombstones stay, and so do the places of files, of which
        one may begin another."""
        return erase_words(self._engine(), ErasedWords(words), but=["forgotten", "uri"])

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_opened": None, "_file": None}

    def now(self) -> sa.ColumnElement[float]:
        """Seconds since 1970 by one clock: the server's, or this machine's for SQLite."""
        if self.is_postgres:
            clock = sa.extract("epoch", sa.func.clock_timestamp())
            return sa.cast(clock, sa.Float(53))
        return sa.literal(time.time(), sa.Float)
