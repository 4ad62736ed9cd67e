"""The ledger's tables, and how a database is opened and brought to the newest version of them.

Not here: what is done with rows (`ledger`), the steps between versions (`migrations`).
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

VERSION = "0009"
"""The newest migration."""
_MIGRATION_LOCK = 0x65676F  # Postgres advisory lock: one process migrates

metadata = sa.MetaData()
work = sa.Table(
    "work",
    metadata,
    sa.Column("stage", sa.String(64), primary_key=True),
    sa.Column("unit_id", sa.String(64), key="item_id", primary_key=True),
    sa.Column("shard", sa.String(32), nullable=False),
    sa.Column("video_id", sa.String(16)),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("error_class", sa.String(128)),
    sa.Column("error", sa.Text),
    sa.Column("worker", sa.String(128)),
    sa.Column("run_id", sa.String(64)),
    sa.Column("started_at", sa.Float(53)),
    sa.Column("finished_at", sa.Float(53)),
    sa.Column("seconds", sa.Float(53)),
    sa.Column("lost", sa.Integer, nullable=False, server_default="0"),
    sa.Column("token", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("heartbeat_at", sa.Float(53)),
    sa.Column("digest", sa.String(64)),
    sa.CheckConstraint(
        "state IN ('pending','running','done','failed','quarantined','dropped')",
        name="state_known",
    ),
    sa.Index("work_by_shard", "shard", "stage", "state"),
    sa.Index("work_by_state", "state", "stage"),
)
videos = sa.Table(
    "videos",
    metadata,
    sa.Column("video_id", sa.String(16), primary_key=True),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("shard", sa.String(32), nullable=False),
    sa.Index("videos_by_uri", "uri", postgresql_using="hash"),  # a path may be too long else
)
duplicates = sa.Table(
    "duplicates",
    metadata,
    sa.Column("file_id", sa.String(16), primary_key=True),
    sa.Column("shard", sa.String(32), primary_key=True),
    sa.Column("video_id", sa.String(16), nullable=False),
    sa.Column("noted_at", sa.Float(53), nullable=False),
    sa.Index("duplicates_by_video", "video_id"),
)
sources = sa.Table(
    "sources",
    metadata,
    sa.Column("unit_id", sa.String(64), key="item_id", primary_key=True),
    sa.Column("shard", sa.String(32), nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("byte_size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64)),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("sidecar", sa.Text),
    sa.Column("inputs", sa.String(64), nullable=False),
    sa.Column("seen_at", sa.Float(53)),
    sa.Column("away_until", sa.Float(53)),
    sa.Column("gone_why", sa.Text),
    sa.Column("is_told", sa.Boolean(create_constraint=False), nullable=False),
    sa.Index("sources_by_shard", "shard"),
    sa.Index("sources_by_uri", "uri", postgresql_using="hash"),
    sa.Index("sources_by_size", "byte_size"),
)
raw_files = sa.Table(
    "raw_files",
    metadata,
    sa.Column("file_id", sa.String(16), primary_key=True),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("byte_size", sa.BigInteger, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("mark", sa.BigInteger, nullable=False),
    sa.Column("duration_s", sa.Float(53)),
    sa.Column("first_seen", sa.Float(53), nullable=False),
    sa.Column("stable_since", sa.Float(53), nullable=False),
    sa.Column("shard", sa.String(32)),
    sa.Column("waiting", sa.Boolean(create_constraint=False), nullable=False),
    sa.Index("raw_files_by_waiting", "waiting", "mark"),
)
run_requests = sa.Table(
    "run_requests",
    metadata,
    sa.Column("run_key", sa.String(64), primary_key=True),
    sa.Column("shard", sa.String(32), nullable=False),
    sa.Column("wants_run", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("confirmed", sa.Boolean(create_constraint=False), nullable=False),
    sa.Index("run_requests_by_confirmed", "confirmed", "priority"),
)
raw_news = sa.Table(
    "raw_news",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("shard", sa.String(32)),
    sa.Column("detail", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
)
alert_outbox = sa.Table(
    "alert_outbox",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("channel", sa.String(32), nullable=False),
    sa.Column("notices", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due_at", sa.Float(53), nullable=False),
)
lake_files = sa.Table(
    "lake_files",
    metadata,
    sa.Column("stage", sa.String(64), primary_key=True),
    sa.Column("shard", sa.String(32), primary_key=True),
    sa.Column("state", sa.String(64), nullable=False),
    sa.Column("units", sa.Integer, key="item_count", nullable=False),
)
facts = sa.Table(
    "facts",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
forgotten = sa.Table(
    "forgotten",
    metadata,
    sa.Column("video_id", sa.String(16), primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("byte_size", sa.BigInteger, nullable=False),
    sa.Column("forgotten_at", sa.String(32), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Index("forgotten_by_size", "byte_size"),
)


PART = "part"
"""The fact that a ledger knows only a part of the lake, until it is made whole."""
SQLITE = "sqlite:///"
"""What begins the URL of a ledger in a file; all that follows is the path, in plain characters."""


class LedgerVersionError(RuntimeError):
    """The database was written by a newer release."""


class LedgerDamagedError(RuntimeError):
    """The file of a ledger is no database, or not a whole one; the message says what to do."""


_CORRUPT, _NOT_A_DATABASE = 11, 26  # SQLite's result codes


def open_engine(url: str) -> sa.Engine:
    """An engine on an up-to-date database. Raises LedgerVersionError, sqlalchemy's errors."""
    if url.startswith(SQLITE):
        path = Path(url.removeprefix(SQLITE))
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = _sqlite(path)
    elif url.startswith("postgresql"):
        # psycopg2 is what dagster-postgres brings; the bare scheme means another driver elsewhere.
        engine = sa.create_engine(
            sa.make_url(url).set(drivername="postgresql+psycopg2"),
            pool_pre_ping=True,
            pool_size=2,
        )
    else:
        scheme = url.split(":", 1)[0]
        raise ValueError(f"a ledger on {scheme}? sqlite:///FILE or postgresql://… are supported")
    _migrate(engine)
    return engine


def file_identity(url: str) -> tuple[int, int] | None:
    """Tells one file of a SQLite ledger from another; None if there is none, or no file."""
    path = _file_of(url)
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


def find_damage(url: str) -> str | None:
    """What is wrong with the file of a SQLite ledger; None: nothing, or there is no file."""
    path = _file_of(url)
    if path is None or not path.exists():
        return None
    if not path.is_file():
        return f"{path} is not a file"
    try:
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            names = {n for (n,) in connection.execute("SELECT name FROM sqlite_master")}
            version = None
            if "alembic_version" in names:
                version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return str(error)
    if found != "ok":
        return str(found).splitlines()[-1]
    lost = sorted(set(metadata.tables) - names) if version == (VERSION,) else []
    return f"it has no table {', '.join(lost)}" if lost else None


def is_damage(error: BaseException | None) -> bool:
    """Whether an error of SQLite's says that the file is damaged."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF in {_CORRUPT, _NOT_A_DATABASE}


def damaged(url: str, why: object) -> LedgerDamagedError:
    return LedgerDamagedError(
        f"the ledger {_file_of(url)} is damaged ({why}): `ego rebuild-ledger` puts it aside and "
        "makes a new one from what is in the lake"
    )


def _file_of(url: str) -> Path | None:
    return Path(url.removeprefix(SQLITE)) if url.startswith(SQLITE) else None


@lru_cache(maxsize=16)
def _sqlite(path: Path) -> sa.Engine:
    """An engine on a file. Kept, since it holds no connection, but all statements as compiled."""
    # Not parsed as a URL: a path may hold `?`, which would begin its query.
    url = sa.URL.create("sqlite", database=str(path))
    # A connection a transaction: SQLite connections must not cross forks or linger in workers.
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": 60})

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "handle_error")
    def _name_damage(context: sa.engine.ExceptionContext) -> None:
        if is_damage(context.original_exception):
            raise damaged(
                f"{SQLITE}{path}", context.original_exception
            ) from context.original_exception

    return engine


_migrating = threading.Lock()
"""Alembic has one environment for a whole process, whichever databases its threads migrate."""


def _migrate(engine: sa.Engine) -> None:
    """Bring the database to VERSION; nothing is imported or locked if it is there already."""
    with engine.connect() as connection:
        found = _version(connection)
        if found == VERSION:
            return
        if found is not None and found > VERSION:
            raise LedgerVersionError(
                f"the ledger at {engine.url.render_as_string()} has version {found}, this release "
                f"knows {VERSION}: update ego-assets"
            )
    from alembic import command
    from alembic.config import Config

    with _migrating, engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        config = Config()
        scripts = str(Path(__file__).parent / "migrations")
        config.set_main_option("script_location", scripts.replace("%", "%%"))  # as of an ini file
        config.attributes["connection"] = connection
        is_unversioned = _version(connection) is None
        is_new = is_unversioned and not sa.inspect(connection).has_table("work")
        if is_unversioned and not is_new:
            command.stamp(config, "0001")  # made before there were migrations
        command.upgrade(config, VERSION)
        if is_new:
            # Whoever has made it, and however little of the lake he enters: it is not whole yet.
            connection.execute(facts.insert().values(name=PART, value=""))
        connection.commit()


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
