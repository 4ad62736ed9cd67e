"""The durable state of every work item of a stage: what runs, what is done, what failed and why.

An item is a clip; before there are clips, a video or a raw file. Not here: how an attempt at one
begins and ends (`attempts`), what the work is, what a state is (`states`), how the database is
reached (`database`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resources.environment import ledger_url
from resources.ledger.attempts import Attempts, as_text
from resources.ledger.database import patient
from resources.ledger.states import BLOCKED, RAW_GONE, WAITS_FOR_GPU, Entry, State
from resources.ledger.tables import SQLITE
from resources.ledger.tables import work as _work

_COLUMNS = [_work.c[field.name] for field in fields(Entry)]


class Ledger(Attempts):
    """The states of all items; its database holds what else there is to remember."""

    @staticmethod
    def beside(lake_root: Path) -> Ledger:
        """The default: a SQLite file in the lake's folder."""
        return Ledger(f"{SQLITE}{lake_root}/_ledger/ledger.sqlite")

    @staticmethod
    def of(lake: str | Path, url: str = "") -> Ledger:
        """The one at `url`, else at EGO_LEDGER_URL, else the file in the lake's folder.

        Raises ValueError for a lake on S3 without either.
        """
        given = url or ledger_url()
        if not given and str(lake).startswith("s3://"):
            raise ValueError(
                f"the lake {lake} has no folder for its ledger: set EGO_LEDGER_URL to "
                "postgresql://… (or, for one machine, sqlite:////absolute/file)"
            )
        return Ledger(given) if given else Ledger.beside(Path(lake))

    # -- planning ------------------------------------------------------------------------------

    @patient
    def expect(
        self,
        stage: str,
        shard: str,
        items: Sequence[tuple[str, str | None]],
        tokens: Mapping[str, int] | None = None,
    ) -> None:
        """Enter (item_id, video_id) as pending where they are unknown, so that totals are seen.

        An item of another shard becomes one of this shard, and pending, unless it was dropped: its
        video has another file now. tokens: {item: token} that earlier attempts have left in the
        lake; the next attempt at an item that was unknown gets a higher one.
        """
        if not items:
            return
        rows = [
            {
                "stage": stage,
                "item_id": item,
                "shard": shard,
                "video_id": video,
                "fingerprint": "",
                "state": State.PENDING,
                "attempts": 0,
                "token": (tokens or {}).get(item, 0),
            }
            for item, video in items
        ]
        with self.transaction() as connection:
            for start in range(0, len(rows), 500):
                page = rows[start : start + 500]
                connection.execute(self.insert_ignore(_work), page)
                named = _work.c.item_id.in_([row["item_id"] for row in page])
                moved = sa.and_(_work.c.stage == stage, named, _work.c.shard != shard)
                anew = {"shard": shard, "state": State.PENDING, "attempts": 0, "lost": 0}
                anew |= {"fingerprint": "", "error_class": None, "error": None, "digest": None}
                connection.execute(
                    _work.update().where(moved, _work.c.state != State.DROPPED).values(**anew)
                )

    @patient
    def forget(self, stage: str, shard: str, keep: Iterable[str]) -> int:
        """Drop items that no longer exist (their video was cut differently). Returns how many."""
        gone = [e.item_id for e in self.entries(stage=stage, shard=shard)]
        gone = sorted(set(gone) - set(keep))
        with self.transaction() as connection:
            for start in range(0, len(gone), 500):
                connection.execute(
                    _work.delete().where(
                        _work.c.stage == stage,
                        _work.c.shard == shard,
                        _work.c.item_id.in_(gone[start : start + 500]),
                    )
                )
        return len(gone)

    # -- deciding ------------------------------------------------------------------------------

    @patient
    def wait_for_gpu(self, stage: str, item_id: str, reason: str, fingerprint: str = "") -> None:
        """→ pending, but for what runs or was dropped: its stage wants a GPU, and got none.

        fingerprint: of the result that it has, if that was made without a GPU.
        """
        may = _work.c.state.not_in([State.RUNNING, State.DROPPED])
        self._update(
            sa.and_(_where(stage, None, item_id), may),
            state=State.PENDING,
            attempts=0,
            lost=0,
            fingerprint=fingerprint,
            error_class=WAITS_FOR_GPU,
            error=as_text(reason),
        )

    @patient
    def accept(self, stage: str, item_id: str, fingerprint: str) -> bool:
        """pending → done: the result that was made without a GPU is what is asked for now."""
        mine = sa.and_(_where(stage, None, item_id), _work.c.fingerprint == fingerprint)
        chosen = sa.and_(mine, _is_waiting_for_gpu())
        return self._update(chosen, state=State.DONE, error_class=None, error=None) == 1

    @patient
    def block(self, stage: str, item_id: str, reason: str) -> None:
        """Say why an item cannot start. One that another worker is at stays as it is."""
        self._update(
            sa.and_(_where(stage, None, item_id), _work.c.state != State.RUNNING),
            state=State.PENDING,
            attempts=0,
            fingerprint="",
            error_class=BLOCKED,
            error=as_text(reason),
        )

    @patient
    def requeue(
        self,
        stage: str,
        item_ids: Iterable[str],
        reason: str,
        tokens: Mapping[str, int] | None = None,
    ) -> int:
        """done → pending: what it published is lost or damaged. Returns how many.

        So is a result that was made without a GPU. tokens: {item: token} of the attempts that are
        meant; an item that another attempt has done since stays as it is.
        """
        has_result = sa.or_(_work.c.state == State.DONE, _is_waiting_for_gpu())
        named = list(item_ids)
        count = 0
        for start in range(0, len(named), 500):
            page = named[start : start + 500]
            mine = _work.c.item_id.in_(page)
            if tokens is not None:
                pairs = [(item, tokens[item]) for item in page]
                mine = sa.tuple_(_work.c.item_id, _work.c.token).in_(pairs)
            count += self._update(
                sa.and_(_work.c.stage == stage, mine, has_result),
                state=State.PENDING,
                attempts=0,
                fingerprint="",
                error_class="Requeued",
                error=as_text(reason),
                digest=None,
            )
        return count

    @patient
    def restore(
        self, stage: str, shard: str, done: Mapping[str, tuple[str, str]], reason: str
    ) -> int:
        """Items of `done` ({item: (fingerprint, run id)}) → done, all others of the shard's stage
        that were done → pending: the lake holds an earlier version. One that runs stays as it is.
        Returns how many wait to be done again.
        """
        requeued = 0
        with self.transaction() as connection:
            mine = sa.and_(
                _work.c.stage == stage, _work.c.shard == shard, _work.c.state != State.RUNNING
            )
            for item_id, state, error_class in connection.execute(
                sa.select(_work.c.item_id, _work.c.state, _work.c.error_class).where(mine)
            ).all():
                values: dict[str, Any] = {"attempts": 0, "lost": 0, "digest": None}
                if item_id in done:
                    fingerprint, run_id = done[item_id]
                    values |= {"state": State.DONE, "fingerprint": fingerprint, "run_id": run_id}
                    values |= {"error_class": None, "error": None}
                elif state == State.DONE or error_class == WAITS_FOR_GPU:
                    values |= {"state": State.PENDING, "fingerprint": ""}
                    values |= {"error_class": "Requeued", "error": as_text(reason)}
                    requeued += 1
                else:
                    continue
                connection.execute(
                    _work.update().where(mine, _work.c.item_id == item_id).values(**values)
                )
        return requeued

    @patient
    def release(
        self, *, stage: str | None = None, shard: str | None = None, item_id: str | None = None
    ) -> int:
        """quarantined | failed → pending with no attempts counted. Returns how many.

        An item that is named is also taken back if it was dropped.
        """
        states = [State.QUARANTINED, State.FAILED] + ([State.DROPPED] if item_id else [])
        chosen = sa.and_(_where(stage, shard, item_id), _work.c.state.in_(states))
        return self._update(chosen, state=State.PENDING, attempts=0, lost=0, fingerprint="")

    @patient
    def drop(
        self, *, stage: str | None = None, shard: str | None = None, item_id: str | None = None
    ) -> int:
        """quarantined → dropped: a person has given it up, nothing waits for it. How many."""
        chosen = sa.and_(_where(stage, shard, item_id), _work.c.state == State.QUARANTINED)
        return self._update(chosen, state=State.DROPPED)

    @patient
    def drop_after(self, stage: str, item_id: str, upstream: str, gone: str = "") -> None:
        """pending → dropped: what it is made from was dropped.

        gone: that was because its raw file is gone; this comes back with the file, too.
        """
        waits = _work.c.state.in_([State.PENDING, State.FAILED])
        self._update(
            sa.and_(_where(stage, None, item_id), waits),
            state=State.DROPPED,
            error_class=RAW_GONE if gone else "Dropped",
            error=gone or f"its {upstream} was dropped",
        )

    # -- looking -------------------------------------------------------------------------------

    @patient
    def entries(
        self,
        *,
        stage: str | None = None,
        shard: str | None = None,
        item_id: str | None = None,
        states: Iterable[State] | None = None,
        limit: int | None = None,
    ) -> list[Entry]:
        query = sa.select(*_COLUMNS).where(_where(stage, shard, item_id)).limit(limit)
        if states is not None:
            query = query.where(_work.c.state.in_(list(states)))
        with self.reading() as connection:
            rows = connection.execute(query.order_by(_work.c.stage, _work.c.item_id))
            return [Entry(State(state), *others) for state, *others in rows]

    @patient
    def unfinished_shards(self) -> list[str]:
        """Shards with items that another run may finish: not done, not in quarantine, and not
        waiting for one that is."""
        open_states = [State.PENDING, State.RUNNING, State.FAILED]
        is_blocked = sa.func.coalesce(_work.c.error_class, "") == BLOCKED
        query = sa.select(_work.c.shard).where(_work.c.state.in_(open_states), ~is_blocked)
        with self.reading() as connection:
            return list(connection.execute(query.distinct().order_by(_work.c.shard)).scalars())

    @patient
    def waiting_for_gpu(self) -> list[tuple[str, str, int, str]]:
        """(stage, shard, items, one of their reasons) of what wants a GPU and got none."""
        query = (
            sa.select(_work.c.stage, _work.c.shard, sa.func.count(), sa.func.max(_work.c.error))
            .where(_is_waiting_for_gpu())
            .group_by(_work.c.stage, _work.c.shard)
            .order_by(_work.c.shard, _work.c.stage)
        )
        with self.reading() as connection:
            return [(t, s, n, why or "") for t, s, n, why in connection.execute(query)]

    @patient
    def counts(self, shards: Iterable[str] | None = None) -> dict[str, dict[State, int]]:
        """Items by stage and state."""
        query = sa.select(_work.c.stage, _work.c.state, sa.func.count()).group_by(
            _work.c.stage, _work.c.state
        )
        if shards is not None:
            query = query.where(_work.c.shard.in_(list(shards)))
        found: dict[str, dict[State, int]] = {}
        with self.reading() as connection:
            for stage, state, count in connection.execute(query):
                found.setdefault(stage, {})[State(state)] = count
        return found

    @patient
    def beats_of_runs(self) -> dict[str, tuple[float, float]]:
        """{run id: (when an item of it last had a heartbeat, how many seconds ago)} of all runs
        with items at work; both by the clock of the database."""
        last = sa.func.max(sa.func.coalesce(_work.c.heartbeat_at, _work.c.started_at))
        query = (
            sa.select(_work.c.run_id, last, self.now() - last)
            .where(_work.c.state == State.RUNNING, _work.c.run_id.is_not(None))
            .group_by(_work.c.run_id)
            .having(last.is_not(None))
        )
        with self.reading() as connection:
            return {run: (beat, age_s) for run, beat, age_s in connection.execute(query)}


def _is_waiting_for_gpu() -> sa.ColumnElement[bool]:
    return sa.and_(_work.c.state == State.PENDING, _work.c.error_class == WAITS_FOR_GPU)


def _where(stage: str | None, shard: str | None, item_id: str | None) -> sa.ColumnElement[bool]:
    conditions: list[sa.ColumnElement[bool]] = [sa.true()]
    if stage is not None:
        conditions.append(_work.c.stage == stage)
    if shard is not None:
        conditions.append(_work.c.shard == shard)
    if item_id is not None:
        conditions.append(_work.c.item_id == item_id)
    return sa.and_(*conditions)
