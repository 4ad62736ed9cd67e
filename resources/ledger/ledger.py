"""The durable state of every (stage, unit): what runs, what is done, what failed and why.

A unit is a clip; before there are clips, a video or a raw file. An attempt is recorded before
it starts, so a unit that kills its worker is known by its count. Every write is conditional on
the attempt number: a late worker cannot overwrite the state of a newer attempt.
SQLAlchemy on SQLite (WAL) by default. Not here: what the work is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import NullPool


class State(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    QUARANTINED = "quarantined"


_ENDED = (State.DONE, State.QUARANTINED)


class LateAttemptError(RuntimeError):
    """This attempt is no longer the current one: its result must not count."""


@dataclass(frozen=True)
class Entry:
    """One row of the ledger."""

    stage: str
    unit_id: str
    shard: str
    video_id: str | None
    fingerprint: str
    state: State
    attempts: int
    error_class: str | None
    error: str | None
    worker: str | None
    run_id: str | None
    started_at: float | None
    finished_at: float | None
    seconds: float | None


_metadata = sa.MetaData()
_work = sa.Table(
    "work",
    _metadata,
    sa.Column("stage", sa.String(64), primary_key=True),
    sa.Column("unit_id", sa.String(64), primary_key=True),
    sa.Column("shard", sa.String(32), nullable=False),
    sa.Column("video_id", sa.String(16)),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("error_class", sa.String(128)),
    sa.Column("error", sa.Text),
    sa.Column("worker", sa.String(128)),
    sa.Column("run_id", sa.String(64)),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("seconds", sa.Float),
    sa.CheckConstraint(
        "state IN ('pending','running','done','failed','quarantined')", name="state_known"
    ),
    sa.Index("work_by_shard", "shard", "stage", "state"),
)
_videos = sa.Table(
    "videos",
    _metadata,
    sa.Column("video_id", sa.String(16), primary_key=True),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("shard", sa.String(32), nullable=False),
)


class Ledger:
    """Opens lazily; an instance may be used by one process (each worker makes its own)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: sa.Engine | None = None

    @staticmethod
    def beside(lake_root: Path) -> Ledger:
        """The default: a SQLite file in the lake's folder."""
        return Ledger(f"sqlite:///{lake_root}/_ledger/ledger.sqlite")

    # -- planning ------------------------------------------------------------------------------

    def expect(self, stage: str, shard: str, units: Sequence[tuple[str, str | None]]) -> None:
        """Enter (unit_id, video_id) as pending where they are unknown, so that totals are seen."""
        if not units:
            return
        rows = [
            {
                "stage": stage,
                "unit_id": unit,
                "shard": shard,
                "video_id": video,
                "fingerprint": "",
                "state": State.PENDING,
                "attempts": 0,
            }
            for unit, video in units
        ]
        with self._begin() as connection:
            for start in range(0, len(rows), 500):
                connection.execute(self._insert_ignore(_work, rows[start : start + 500]))

    def forget(self, stage: str, shard: str, keep: Iterable[str]) -> int:
        """Drop units that no longer exist (their video was cut differently). Returns how many."""
        gone = [e.unit_id for e in self.entries(stage=stage, shard=shard)]
        gone = sorted(set(gone) - set(keep))
        with self._begin() as connection:
            for start in range(0, len(gone), 500):
                connection.execute(
                    _work.delete().where(
                        _work.c.stage == stage, _work.c.unit_id.in_(gone[start : start + 500])
                    )
                )
        return len(gone)

    # -- the life of an attempt ------------------------------------------------------------------

    def start(self, stage: str, unit_id: str, *, fingerprint: str, worker: str, run_id: str) -> int:
        """Record an attempt before it starts. Returns its number, counted per fingerprint."""
        with self._begin() as connection:
            same = sa.and_(_work.c.stage == stage, _work.c.unit_id == unit_id)
            row = connection.execute(
                sa.select(_work.c.fingerprint, _work.c.attempts, _work.c.state).where(same)
            ).one()
            # Work that ended and is asked for again (by force) begins to count anew.
            goes_on = row.fingerprint == fingerprint and row.state not in _ENDED
            attempt = row.attempts + 1 if goes_on else 1
            connection.execute(
                _work.update()
                .where(same)
                .values(
                    fingerprint=fingerprint,
                    state=State.RUNNING,
                    attempts=attempt,
                    worker=worker,
                    run_id=run_id,
                    started_at=time.time(),
                    finished_at=None,
                    seconds=None,
                    error_class=None,
                    error=None,
                )
            )
        return attempt

    def finish(self, stage: str, unit_id: str, attempt: int, *, worker: str) -> None:
        """running → done. Raises LateAttemptError if the attempt is not the current one."""
        self._close(stage, unit_id, attempt, worker, State.DONE, None, None)

    def fail(
        self,
        stage: str,
        unit_id: str,
        attempt: int,
        *,
        worker: str,
        error_class: str,
        error: str,
        quarantine: bool,
    ) -> None:
        """running → failed or quarantined. Raises LateAttemptError."""
        state = State.QUARANTINED if quarantine else State.FAILED
        self._close(stage, unit_id, attempt, worker, state, error_class, error[:8000])

    def interrupt(self, stage: str, unit_id: str, attempt: int, *, worker: str) -> None:
        """running → pending, the attempt not counted: the run was stopped, the unit is innocent."""
        with self._begin() as connection:
            connection.execute(
                _work.update()
                .where(
                    _work.c.stage == stage,
                    _work.c.unit_id == unit_id,
                    _work.c.attempts == attempt,
                    _work.c.worker == worker,
                    _work.c.state == State.RUNNING,
                )
                .values(state=State.PENDING, attempts=attempt - 1, finished_at=time.time())
            )

    def block(self, stage: str, unit_id: str, reason: str) -> None:
        """Say why a pending unit cannot start."""
        with self._begin() as connection:
            connection.execute(
                _work.update()
                .where(_work.c.stage == stage, _work.c.unit_id == unit_id)
                .values(
                    state=State.PENDING,
                    attempts=0,
                    fingerprint="",
                    error_class="Blocked",
                    error=reason,
                )
            )

    def release(
        self, *, stage: str | None = None, shard: str | None = None, unit_id: str | None = None
    ) -> int:
        """quarantined | failed → pending with no attempts counted. Returns how many."""
        condition = _where(stage, shard, unit_id)
        with self._begin() as connection:
            result = connection.execute(
                _work.update()
                .where(condition, _work.c.state.in_([State.QUARANTINED, State.FAILED]))
                .values(state=State.PENDING, attempts=0, fingerprint="")
            )
        return result.rowcount

    def claim_video(self, video_id: str, uri: str, shard: str) -> tuple[str, str]:
        """The (uri, shard) that owns this content: the first to ask."""
        with self._begin() as connection:
            row = {"video_id": video_id, "uri": uri, "shard": shard}
            connection.execute(self._insert_ignore(_videos, [row]))
            owner = connection.execute(
                sa.select(_videos.c.uri, _videos.c.shard).where(_videos.c.video_id == video_id)
            ).one()
        return owner.uri, owner.shard

    # -- looking -------------------------------------------------------------------------------

    def entries(
        self,
        *,
        stage: str | None = None,
        shard: str | None = None,
        unit_id: str | None = None,
        states: Iterable[State] | None = None,
    ) -> list[Entry]:
        query = sa.select(_work).where(_where(stage, shard, unit_id))
        if states is not None:
            query = query.where(_work.c.state.in_(list(states)))
        with self._engine().connect() as connection:
            rows = connection.execute(query.order_by(_work.c.stage, _work.c.unit_id)).mappings()
            return [Entry(**{**row, "state": State(row["state"])}) for row in rows]

    def counts(self, shards: Iterable[str] | None = None) -> dict[str, dict[State, int]]:
        """Units by stage and state."""
        query = sa.select(_work.c.stage, _work.c.state, sa.func.count()).group_by(
            _work.c.stage, _work.c.state
        )
        if shards is not None:
            query = query.where(_work.c.shard.in_(list(shards)))
        found: dict[str, dict[State, int]] = {}
        with self._engine().connect() as connection:
            for stage, state, count in connection.execute(query):
                found.setdefault(stage, {})[State(state)] = count
        return found

    # -- inside --------------------------------------------------------------------------------

    def _close(
        self,
        stage: str,
        unit_id: str,
        attempt: int,
        worker: str,
        state: State,
        error_class: str | None,
        error: str | None,
    ) -> None:
        now = time.time()
        with self._begin() as connection:
            result = connection.execute(
                _work.update()
                .where(
                    _work.c.stage == stage,
                    _work.c.unit_id == unit_id,
                    _work.c.attempts == attempt,
                    _work.c.worker == worker,
                    _work.c.state == State.RUNNING,
                )
                .values(
                    state=state,
                    finished_at=now,
                    seconds=now - _work.c.started_at,
                    error_class=error_class,
                    error=error,
                )
            )
        if result.rowcount != 1:
            raise LateAttemptError(
                f"{stage} {unit_id}: attempt {attempt} of {worker} is no longer the current one"
            )

    def _insert_ignore(self, table: sa.Table, rows: list[dict[str, Any]]) -> Any:
        dialect = postgresql if self.url.startswith("postgresql") else sqlite
        return dialect.insert(table).values(rows).on_conflict_do_nothing()

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        with self._engine().connect() as connection:
            if connection.dialect.name == "sqlite":
                # Taking the write lock at once avoids the deadlock of two readers that write.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def _engine(self) -> sa.Engine:
        if self._opened is None:
            self._opened = _open(self.url)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_opened": None}


def _where(stage: str | None, shard: str | None, unit_id: str | None) -> sa.ColumnElement[bool]:
    conditions: list[sa.ColumnElement[bool]] = [sa.true()]
    if stage is not None:
        conditions.append(_work.c.stage == stage)
    if shard is not None:
        conditions.append(_work.c.shard == shard)
    if unit_id is not None:
        conditions.append(_work.c.unit_id == unit_id)
    return sa.and_(*conditions)


def _open(url: str) -> sa.Engine:
    if not url.startswith("sqlite:///"):
        engine = sa.create_engine(url, pool_pre_ping=True)
        _metadata.create_all(engine)
        return engine
    Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    # A connection a transaction: SQLite connections must not cross forks or linger in workers.
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": 60})

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    _metadata.create_all(engine)
    return engine
