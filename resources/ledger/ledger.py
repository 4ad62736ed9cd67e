"""The durable state of every (stage, unit): what runs, what is done, what failed and why.

A unit is a clip; before there are clips, a video or a raw file. An attempt is recorded before
it starts, so a unit that kills its worker is known by its count. An attempt is a claim: nobody
else gets the unit while its heartbeat is fresh and its process is there. Every write is
conditional on the attempt: a late worker cannot overwrite the state of a newer one, and its
fencing token keeps its rows out of the lake (Kleppmann 2016, "How to do distributed locking").
SQLAlchemy on SQLite (WAL) or Postgres. Not here: what the work is, tables (`tables`).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, OperationalError

from resources.ledger.tables import duplicates as _duplicates
from resources.ledger.tables import open_engine
from resources.ledger.tables import videos as _videos
from resources.ledger.tables import work as _work
from resources.processes import is_gone

HEARTBEAT_LIMIT_S = 120.0
"""A claim whose heartbeat is older may be taken over."""
PATIENCE_S = 60.0
"""How long a call waits for a database that is away."""
BLOCKED = "Blocked"
"""Error class of a unit that waits for another one."""
WAITS_FOR_GPU = "WaitsForGpu"
"""Error class of a pending unit whose stage got no GPU. Its fingerprint is that of the result that
was made without one; empty if there is none, or an older one was kept."""

P = ParamSpec("P")
T = TypeVar("T")


class State(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    DROPPED = "dropped"


_ENDED = (State.DONE, State.QUARANTINED)


class LateAttemptError(RuntimeError):
    """This attempt is no longer the current one: its result must not count."""


class BusyError(RuntimeError):
    """Another live worker has this unit."""


@dataclass(frozen=True)
class Attempt:
    """A claim on a unit.

    number: counted per fingerprint, from 1. lost: attempts before it that ended without a word,
    together with their whole run (they are not in `number`). token: fencing token; grows with
    every attempt of the unit, also when the ledger is lost (it is never below the time in ms).
    """

    number: int
    token: int
    lost: int = 0


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
    lost: int
    token: int
    heartbeat_at: float | None
    digest: str | None

    @property
    def waits_for_gpu(self) -> bool:
        return self.state is State.PENDING and self.error_class == WAITS_FOR_GPU

    @property
    def has_result(self) -> bool:
        """Whether the lake has rows under this fingerprint, for those who build on them."""
        return self.state is State.DONE or (self.waits_for_gpu and bool(self.fingerprint))


@dataclass(frozen=True)
class Duplicate:
    """A file that was rejected since `owner` (uri, shard) has its content; None: nobody has now."""

    file_id: str
    shard: str
    noted_at: float
    owner: tuple[str, str] | None


def patient(method: Callable[P, T]) -> Callable[P, T]:
    """Try again while the database is away (it restarts, the network flaps).

    A transaction whose commit was lost on the way may so run twice: `start` then counts one more
    attempt, and `finish` says late; a worker looks what is done before it does anything again.
    """

    @wraps(method)
    def trying(*args: P.args, **kwargs: P.kwargs) -> T:
        deadline = time.monotonic() + PATIENCE_S
        wait_s = 0.1
        while True:
            try:
                return method(*args, **kwargs)
            except (OperationalError, InterfaceError) as error:
                # SQLite has no server to come back: all but a lock stays as it is.
                sqlite = "sqlite" in type(error.orig).__module__
                if (sqlite and "locked" not in str(error)) or time.monotonic() + wait_s > deadline:
                    raise
            time.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(2 * wait_s, 5.0)

    return trying


class Ledger:
    """Opens lazily; an instance may be used by one process (each worker makes its own)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: sa.Engine | None = None

    @staticmethod
    def beside(lake_root: Path) -> Ledger:
        """The default: a SQLite file in the lake's folder."""
        return Ledger(f"sqlite:///{lake_root}/_ledger/ledger.sqlite")

    @staticmethod
    def of(lake: str | Path, url: str = "") -> Ledger:
        """The one at `url`, else at EGO_LEDGER_URL, else the file in the lake's folder.

        Raises ValueError for a lake on S3 without either.
        """
        given = url or os.environ.get("EGO_LEDGER_URL", "")
        if not given and str(lake).startswith("s3://"):
            raise ValueError(
                f"the lake {lake} has no folder for its ledger: set EGO_LEDGER_URL to "
                "postgresql://… (or, for one machine, sqlite:////absolute/file)"
            )
        return Ledger(given) if given else Ledger.beside(Path(lake))

    @patient
    def open(self) -> None:
        """Make the database, or bring it up to date, now.

        Alembic keeps one environment for a whole process, and Dagster migrates with it, too: so
        this goes before anything of Dagster runs in another thread.
        """
        self._engine()

    # -- planning ------------------------------------------------------------------------------

    @patient
    def expect(self, stage: str, shard: str, units: Sequence[tuple[str, str | None]]) -> None:
        """Enter (unit_id, video_id) as pending where they are unknown, so that totals are seen.

        A unit of another shard becomes one of this shard, and pending, unless it was dropped: its
        video has another file now.
        """
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
                page = rows[start : start + 500]
                connection.execute(self.insert_ignore(_work), page)
                named = _work.c.unit_id.in_([row["unit_id"] for row in page])
                moved = sa.and_(_work.c.stage == stage, named, _work.c.shard != shard)
                anew = {"shard": shard, "state": State.PENDING, "attempts": 0, "lost": 0}
                anew |= {"fingerprint": "", "error_class": None, "error": None, "digest": None}
                connection.execute(
                    _work.update().where(moved, _work.c.state != State.DROPPED).values(**anew)
                )

    @patient
    def forget(self, stage: str, shard: str, keep: Iterable[str]) -> int:
        """Drop units that no longer exist (their video was cut differently). Returns how many."""
        gone = [e.unit_id for e in self.entries(stage=stage, shard=shard)]
        gone = sorted(set(gone) - set(keep))
        with self._begin() as connection:
            for start in range(0, len(gone), 500):
                connection.execute(
                    _work.delete().where(
                        _work.c.stage == stage,
                        _work.c.shard == shard,
                        _work.c.unit_id.in_(gone[start : start + 500]),
                    )
                )
        return len(gone)

    # -- the life of an attempt ------------------------------------------------------------------

    @patient
    def start(
        self,
        stage: str,
        unit_id: str,
        *,
        fingerprint: str,
        worker: str,
        run_id: str,
        seen: int | None = None,
    ) -> Attempt:
        """Claim a unit and record the attempt before it starts.

        seen: token of the unit when the caller saw that there is something to do; if it is another
        by now, somebody was at it since, and may have done it. Raises BusyError for that, and while
        a live worker has it, KeyError if the unit was never expected.
        """
        with self._begin() as connection:
            same = _is_unit(stage, unit_id)
            query = sa.select(_work, self._now().label("now")).where(same)
            # On Postgres: whoever claims the row at this very moment is ahead of us.
            row = connection.execute(query.with_for_update(skip_locked=True)).mappings().first()
            if row is None:
                if connection.execute(sa.select(_work.c.stage).where(same)).first() is None:
                    raise KeyError(f"{stage} {unit_id} is not in the ledger")
                raise BusyError(f"{stage} {unit_id} is being claimed by another worker")
            if row["state"] == State.DROPPED:
                raise BusyError(f"{stage} {unit_id} was dropped: `ego quarantine release` it first")
            if seen is not None and row["token"] != seen:
                raise BusyError(f"{stage} {unit_id} was claimed by {row['worker']} meanwhile")
            if row["state"] == State.RUNNING and row["worker"] != worker:
                beat = row["heartbeat_at"] or 0.0
                # A beat from the future is of a clock that was put back since.
                fresh = abs(row["now"] - beat) < HEARTBEAT_LIMIT_S
                if fresh and not is_gone(row["worker"]):
                    raise BusyError(f"{stage} {unit_id} is at {row['worker']}")
            # Work that ended and is asked for again (by force) begins to count anew.
            is_over = row["state"] in _ENDED or row["error_class"] == WAITS_FOR_GPU
            goes_on = row["fingerprint"] == fingerprint and not is_over
            is_lost = row["state"] == State.RUNNING
            number = row["attempts"] + (not is_lost) if goes_on else 1
            lost = row["lost"] + is_lost if goes_on else 0
            token = max(row["token"] + 1, self._wall_ms())
            connection.execute(
                _work.update()
                .where(same)
                .values(
                    fingerprint=fingerprint,
                    state=State.RUNNING,
                    attempts=number,
                    lost=lost,
                    token=token,
                    worker=worker,
                    run_id=run_id,
                    started_at=row["now"],
                    heartbeat_at=row["now"],
                    finished_at=None,
                    seconds=None,
                    error_class=None,
                    error=None,
                    digest=None,
                )
            )
        return Attempt(number, token, lost)

    @patient
    def beat(self, stage: str, unit_id: str, token: int) -> bool:
        """Say that the attempt goes on. False: it is no longer the current one."""
        return self._update(self._current(stage, unit_id, token), heartbeat_at=self._now()) == 1

    @patient
    def finish(
        self,
        stage: str,
        unit_id: str,
        attempt: Attempt,
        digest: str | None = None,
        *,
        waits_because: str = "",
        idle_s: float = 0.0,
    ) -> None:
        """running → done. Raises LateAttemptError if the attempt is not the current one.

        digest: SHA-256 of the file that was published, hex. waits_because: why it is → pending
        instead, with a result that was made without a GPU. idle_s: how long its result lay there
        and waited to be published, which is none of its seconds.
        """
        state, error_class = State.DONE, None
        if waits_because:
            state, error_class = State.PENDING, WAITS_FOR_GPU
        why = waits_because or None
        self._close(stage, unit_id, attempt, state, error_class, why, digest, idle_s)

    @patient
    def wait_for_gpu(self, stage: str, unit_id: str, reason: str, fingerprint: str = "") -> None:
        """→ pending, but for what runs or was dropped: its stage wants a GPU, and got none.

        fingerprint: of the result that it has, if that was made without a GPU.
        """
        may = _work.c.state.not_in([State.RUNNING, State.DROPPED])
        self._update(
            sa.and_(_where(stage, None, unit_id), may),
            state=State.PENDING,
            attempts=0,
            lost=0,
            fingerprint=fingerprint,
            error_class=WAITS_FOR_GPU,
            error=reason[:8000],
        )

    @patient
    def accept(self, stage: str, unit_id: str, fingerprint: str) -> bool:
        """pending → done: the result that was made without a GPU is what is asked for now."""
        mine = sa.and_(_where(stage, None, unit_id), _work.c.fingerprint == fingerprint)
        chosen = sa.and_(mine, _is_waiting_for_gpu())
        return self._update(chosen, state=State.DONE, error_class=None, error=None) == 1

    @patient
    def fail(
        self,
        stage: str,
        unit_id: str,
        attempt: Attempt,
        *,
        error_class: str,
        error: str,
        quarantine: bool,
    ) -> None:
        """running → failed or quarantined. Raises LateAttemptError."""
        state = State.QUARANTINED if quarantine else State.FAILED
        self._close(stage, unit_id, attempt, state, error_class, error[:8000], None)

    @patient
    def interrupt(self, stage: str, unit_id: str, attempt: Attempt) -> None:
        """running → pending, the attempt not counted: the run was stopped, the unit is innocent."""
        mine = self._current(stage, unit_id, attempt.token)
        counted = attempt.number - 1
        self._update(mine, state=State.PENDING, attempts=counted, finished_at=self._now())

    @patient
    def block(self, stage: str, unit_id: str, reason: str) -> None:
        """Say why a unit cannot start. One that another worker is at stays as it is."""
        self._update(
            sa.and_(_where(stage, None, unit_id), _work.c.state != State.RUNNING),
            state=State.PENDING,
            attempts=0,
            fingerprint="",
            error_class=BLOCKED,
            error=reason,
        )

    @patient
    def requeue(self, stage: str, unit_ids: Iterable[str], reason: str) -> int:
        """done → pending: what it published is lost or damaged. Returns how many.

        So is a result that was made without a GPU.
        """
        has_result = sa.or_(_work.c.state == State.DONE, _is_waiting_for_gpu())
        named = list(unit_ids)
        count = 0
        for start in range(0, len(named), 500):
            mine = _work.c.unit_id.in_(named[start : start + 500])
            count += self._update(
                sa.and_(_work.c.stage == stage, mine, has_result),
                state=State.PENDING,
                attempts=0,
                fingerprint="",
                error_class="Requeued",
                error=reason,
                digest=None,
            )
        return count

    @patient
    def restore(
        self, stage: str, shard: str, done: Mapping[str, tuple[str, str]], reason: str
    ) -> int:
        """Units of `done` ({unit: (fingerprint, run id)}) → done, all others of the shard's stage
        that were done → pending: the lake holds an earlier version. One that runs stays as it is.
        Returns how many wait to be done again.
        """
        requeued = 0
        with self._begin() as connection:
            mine = sa.and_(
                _work.c.stage == stage, _work.c.shard == shard, _work.c.state != State.RUNNING
            )
            for unit_id, state, error_class in connection.execute(
                sa.select(_work.c.unit_id, _work.c.state, _work.c.error_class).where(mine)
            ).all():
                values: dict[str, Any] = {"attempts": 0, "lost": 0, "digest": None}
                if unit_id in done:
                    fingerprint, run_id = done[unit_id]
                    values |= {"state": State.DONE, "fingerprint": fingerprint, "run_id": run_id}
                    values |= {"error_class": None, "error": None}
                elif state == State.DONE or error_class == WAITS_FOR_GPU:
                    values |= {"state": State.PENDING, "fingerprint": ""}
                    values |= {"error_class": "Requeued", "error": reason}
                    requeued += 1
                else:
                    continue
                connection.execute(
                    _work.update().where(mine, _work.c.unit_id == unit_id).values(**values)
                )
        return requeued

    @patient
    def release(
        self, *, stage: str | None = None, shard: str | None = None, unit_id: str | None = None
    ) -> int:
        """quarantined | failed → pending with no attempts counted. Returns how many.

        A unit that is named is also taken back if it was dropped.
        """
        states = [State.QUARANTINED, State.FAILED] + ([State.DROPPED] if unit_id else [])
        chosen = sa.and_(_where(stage, shard, unit_id), _work.c.state.in_(states))
        return self._update(chosen, state=State.PENDING, attempts=0, lost=0, fingerprint="")

    @patient
    def drop(
        self, *, stage: str | None = None, shard: str | None = None, unit_id: str | None = None
    ) -> int:
        """quarantined → dropped: a person has given it up, nothing waits for it. How many."""
        chosen = sa.and_(_where(stage, shard, unit_id), _work.c.state == State.QUARANTINED)
        return self._update(chosen, state=State.DROPPED)

    @patient
    def drop_after(self, stage: str, unit_id: str, upstream: str) -> None:
        """pending → dropped: what it is made from was dropped."""
        waits = _work.c.state.in_([State.PENDING, State.FAILED])
        self._update(
            sa.and_(_where(stage, None, unit_id), waits),
            state=State.DROPPED,
            error_class="Dropped",
            error=f"its {upstream} was dropped",
        )

    @patient
    def claim_video(self, video_id: str, uri: str, shard: str, file_id: str) -> tuple[str, str]:
        """The (uri, shard) that owns this content: the first to ask.

        Who does not get it is remembered under its file_id, for when the owner has it no more.
        """
        mine = sa.and_(_duplicates.c.file_id == file_id, _duplicates.c.shard == shard)
        with self._begin() as connection:
            row = {"video_id": video_id, "uri": uri, "shard": shard}
            connection.execute(self.insert_ignore(_videos), [row])
            owner = connection.execute(
                sa.select(_videos.c.uri, _videos.c.shard).where(_videos.c.video_id == video_id)
            ).one()
            connection.execute(_duplicates.delete().where(mine))
            if tuple(owner) != (uri, shard):
                lost = {"file_id": file_id, "shard": shard, "video_id": video_id}
                connection.execute(_duplicates.insert().values(noted_at=self._now(), **lost))
        return owner.uri, owner.shard

    @patient
    def owner(self, video_id: str) -> tuple[str, str] | None:
        """The (uri, shard) that owns this content, if any does."""
        query = sa.select(_videos.c.uri, _videos.c.shard).where(_videos.c.video_id == video_id)
        with self._engine().connect() as connection:
            row = connection.execute(query).first()
        return (row.uri, row.shard) if row else None

    @patient
    def duplicates_without_owner(self, stage: str, limit: int) -> list[Duplicate]:
        """Duplicates whose content nobody has any more, and whose unit of `stage` is done."""
        is_owned = sa.exists().where(_videos.c.video_id == _duplicates.c.video_id)
        is_done = sa.exists().where(
            _work.c.stage == stage,
            _work.c.unit_id == _duplicates.c.file_id,
            _work.c.state == State.DONE,
        )
        query = sa.select(_duplicates).where(~is_owned, is_done).limit(limit)
        query = query.order_by(_duplicates.c.shard, _duplicates.c.file_id)
        with self._engine().connect() as connection:
            return [
                Duplicate(r.file_id, r.shard, r.noted_at, None) for r in connection.execute(query)
            ]

    @patient
    def duplicates_of_missing(self, limit: int) -> list[Duplicate]:
        """Duplicates whose owner is of a shard in which a file was not found."""
        troubled = sa.select(_work.c.shard).where(
            _work.c.state.in_([State.QUARANTINED, State.FAILED]),
            _work.c.error_class == FileNotFoundError.__name__,
        )
        query = (
            sa.select(_duplicates, _videos.c.uri, _videos.c.shard.label("of_shard"))
            .join(_videos, _videos.c.video_id == _duplicates.c.video_id)
            .where(_videos.c.shard.in_(troubled))
            .order_by(_duplicates.c.shard, _duplicates.c.file_id)
        )
        with self._engine().connect() as connection:
            return [
                Duplicate(r.file_id, r.shard, r.noted_at, (r.uri, r.of_shard))
                for r in connection.execute(query.limit(limit))
            ]

    # -- looking -------------------------------------------------------------------------------

    @patient
    def entries(
        self,
        *,
        stage: str | None = None,
        shard: str | None = None,
        unit_id: str | None = None,
        states: Iterable[State] | None = None,
        limit: int | None = None,
    ) -> list[Entry]:
        query = sa.select(_work).where(_where(stage, shard, unit_id)).limit(limit)
        if states is not None:
            query = query.where(_work.c.state.in_(list(states)))
        with self._engine().connect() as connection:
            rows = connection.execute(query.order_by(_work.c.stage, _work.c.unit_id)).mappings()
            return [Entry(**{**row, "state": State(row["state"])}) for row in rows]

    @patient
    def unfinished_shards(self) -> list[str]:
        """Shards with units that another run may finish: not done, not in quarantine, and not
        waiting for one that is."""
        open_states = [State.PENDING, State.RUNNING, State.FAILED]
        is_blocked = sa.func.coalesce(_work.c.error_class, "") == BLOCKED
        query = sa.select(_work.c.shard).where(_work.c.state.in_(open_states), ~is_blocked)
        with self._engine().connect() as connection:
            return list(connection.execute(query.distinct().order_by(_work.c.shard)).scalars())

    @patient
    def waiting_for_gpu(self) -> list[tuple[str, str, int, str]]:
        """(stage, shard, units, one of their reasons) of what wants a GPU and got none."""
        query = (
            sa.select(_work.c.stage, _work.c.shard, sa.func.count(), sa.func.max(_work.c.error))
            .where(_is_waiting_for_gpu())
            .group_by(_work.c.stage, _work.c.shard)
            .order_by(_work.c.shard, _work.c.stage)
        )
        with self._engine().connect() as connection:
            return [(t, s, n, why or "") for t, s, n, why in connection.execute(query)]

    @patient
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

    @patient
    def disown(self, uri: str, keep: str | None = None) -> list[str]:
        """Let go of the contents that the file at `uri` had before: their video ids.

        Whoever brings one of them again, under any name, then owns it. keep: what it has now.
        """
        mine = sa.and_(_videos.c.uri == uri, _videos.c.video_id != (keep or ""))
        with self._begin() as connection:
            found = connection.execute(sa.select(_videos.c.video_id).where(mine)).scalars().all()
            connection.execute(_videos.delete().where(mine))
        return sorted(found)

    def transaction(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that writes, for the other tables of this database."""
        return self._begin()

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection that reads, for the other tables of this database."""
        return self._engine().connect()

    # -- inside --------------------------------------------------------------------------------

    def _close(
        self,
        stage: str,
        unit_id: str,
        attempt: Attempt,
        state: State,
        error_class: str | None,
        error: str | None,
        digest: str | None,
        idle_s: float = 0.0,
    ) -> None:
        closed = self._update(
            self._current(stage, unit_id, attempt.token),
            state=state,
            finished_at=self._now(),
            seconds=self._now() - _work.c.started_at - idle_s,
            error_class=error_class,
            error=error,
            digest=digest,
        )
        if not closed:
            raise LateAttemptError(
                f"{stage} {unit_id}: attempt {attempt.number} (token {attempt.token}) is no "
                "longer the current one"
            )

    def _update(self, chosen: sa.ColumnElement[bool], **values: Any) -> int:
        """In a transaction of its own. Returns how many entries were changed."""
        with self._begin() as connection:
            return connection.execute(_work.update().where(chosen).values(**values)).rowcount

    def _current(self, stage: str, unit_id: str, token: int) -> sa.ColumnElement[bool]:
        return sa.and_(
            _work.c.stage == stage,
            _work.c.unit_id == unit_id,
            _work.c.token == token,
            _work.c.state == State.RUNNING,
        )

    def _wall_ms(self) -> int:
        """This machine's clock, which may jump: tokens grow all the same."""
        return int(time.time() * 1000)

    def _now(self) -> sa.ColumnElement[float]:
        """Seconds since 1970 by one clock: the server's, or this machine's for SQLite."""
        if self.is_postgres:
            clock = sa.extract("epoch", sa.func.clock_timestamp())
            return sa.cast(clock, sa.Float(53))
        return sa.literal(time.time(), sa.Float)

    @property
    def is_postgres(self) -> bool:
        return self.url.startswith("postgresql")

    def insert_ignore(self, table: sa.Table) -> Any:
        """An INSERT of many rows that leaves those that are there already as they are."""
        dialect = postgresql if self.is_postgres else sqlite
        return dialect.insert(table).on_conflict_do_nothing()

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
            self._opened = open_engine(self.url)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_opened": None}


def _is_unit(stage: str, unit_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(_work.c.stage == stage, _work.c.unit_id == unit_id)


def _is_waiting_for_gpu() -> sa.ColumnElement[bool]:
    return sa.and_(_work.c.state == State.PENDING, _work.c.error_class == WAITS_FOR_GPU)


def _where(stage: str | None, shard: str | None, unit_id: str | None) -> sa.ColumnElement[bool]:
    conditions: list[sa.ColumnElement[bool]] = [sa.true()]
    if stage is not None:
        conditions.append(_work.c.stage == stage)
    if shard is not None:
        conditions.append(_work.c.shard == shard)
    if unit_id is not None:
        conditions.append(_work.c.unit_id == unit_id)
    return sa.and_(*conditions)
