"""What was done and what failed in a span of time, counted by the database.

Here: sums over the ledger's rows; no answer grows with the number of clips. Not here: states of
single items (`ledger`).
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from resources.ledger.database import Database, patient
from resources.ledger.states import State
from resources.ledger.tables import work as _work

EXAMPLE_CHARACTERS = 300


@dataclass(frozen=True)
class StageActivity:
    """Items of a stage that ended in the span; seconds are of the done ones."""

    stage: str
    done: int
    failed: int
    quarantined: int
    seconds: float
    slowest_s: float


@dataclass(frozen=True)
class Reason:
    """Items that failed for one class of errors, and one of the messages."""

    stage: str
    error_class: str
    items: int
    example: str


@dataclass(frozen=True)
class SlowItem:
    stage: str
    item_id: str
    shard: str
    seconds: float


class Activity:
    """The ledger from `since` until `until`, seconds since 1970."""

    def __init__(self, database: Database, since: float, until: float) -> None:
        self._database = database
        self._span = sa.and_(_work.c.finished_at >= since, _work.c.finished_at < until)

    @patient
    def stages(self) -> list[StageActivity]:
        def count(state: State) -> sa.ColumnElement[int]:
            return sa.func.sum(sa.case((_work.c.state == state, 1), else_=0))

        is_done = _work.c.state == State.DONE
        query = (
            sa.select(
                _work.c.stage,
                count(State.DONE),
                count(State.FAILED),
                count(State.QUARANTINED),
                sa.func.coalesce(sa.func.sum(sa.case((is_done, _work.c.seconds))), 0.0),
                sa.func.coalesce(sa.func.max(sa.case((is_done, _work.c.seconds))), 0.0),
            )
            .where(self._span)
            .group_by(_work.c.stage)
            .order_by(_work.c.stage)
        )
        with self._database.reading() as connection:
            return [StageActivity(*row) for row in connection.execute(query)]

    @patient
    def done_by_hour(self) -> dict[str, dict[int, int]]:
        """{stage: {hours since 1970: items done}}."""
        hours = _work.c.finished_at / 3600.0
        # Postgres rounds in a cast, SQLite cuts off and may have no floor.
        floor = sa.func.floor(hours) if self._database.is_postgres else hours
        hour = sa.cast(floor, sa.Integer).label("hour")
        query = (
            sa.select(_work.c.stage, hour, sa.func.count())
            .where(self._span, _work.c.state == State.DONE)
            .group_by(_work.c.stage, hour)
        )
        found: dict[str, dict[int, int]] = {}
        with self._database.reading() as connection:
            for stage, when, items in connection.execute(query):
                found.setdefault(stage, {})[when] = items
        return found

    @patient
    def reasons(self, limit: int) -> list[Reason]:
        """Why items failed, the most frequent first."""
        items = sa.func.count()
        query = (
            sa.select(
                _work.c.stage,
                sa.func.coalesce(_work.c.error_class, ""),
                items,
                sa.func.min(sa.func.substr(_work.c.error, 1, EXAMPLE_CHARACTERS)),
            )
            .where(self._span, _work.c.state.in_([State.FAILED, State.QUARANTINED]))
            .group_by(_work.c.stage, _work.c.error_class)
            .order_by(items.desc(), _work.c.stage)
            .limit(limit)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [Reason(s, c, n, (e or "").split("\n", 1)[0]) for s, c, n, e in rows]

    @patient
    def slowest(self, limit: int) -> list[SlowItem]:
        query = (
            sa.select(_work.c.stage, _work.c.item_id, _work.c.shard, _work.c.seconds)
            .where(self._span, _work.c.state == State.DONE, _work.c.seconds.is_not(None))
            .order_by(_work.c.seconds.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [SlowItem(*row) for row in connection.execute(query)]

    @patient
    def shards(self, stage: str) -> list[str]:
        """The shards of which an item of `stage` was done."""
        query = sa.select(_work.c.shard).where(self._done_of(stage)).distinct()
        with self._database.reading() as connection:
            return list(connection.execute(query.order_by(_work.c.shard)).scalars())

    @patient
    def items(self, stage: str, shard: str) -> set[str]:
        """Those of a shard that were done."""
        query = sa.select(_work.c.item_id).where(self._done_of(stage), _work.c.shard == shard)
        with self._database.reading() as connection:
            return set(connection.execute(query).scalars())

    def _done_of(self, stage: str) -> sa.ColumnElement[bool]:
        return sa.and_(self._span, _work.c.stage == stage, _work.c.state == State.DONE)
