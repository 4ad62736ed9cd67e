"""The durable state of every (stage, unit): what runs, what is done, what failed and why.

A unit is a clip; before there are clips, a video or a raw file. An attempt is recorded before
it starts, so a unit that kills its worker is known by its count. An attempt is a claim: nobody
else gets the unit while its heart beats (`takeover`). Every write is
conditional on the attempt: a late worker cannot overwrite the state of a newer one, and its
fencing token keeps its rows out of the lake (Kleppmann 2016, "How to do distributed locking").
Not here: what the work is, what a state is (`states`), how the database is reached (`database`).
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resources.environment import ledger_url
from resources.ledger.database import Database, patient
from resources.ledger.states import (
    BLOCKED,
    RAW_GONE,
    WAITS_FOR_GPU,
    Attempt,
    BusyError,
    Entry,
    LateAttemptError,
    State,
)
from resources.ledger.tables import SQLITE
from resources.ledger.tables import work as _work
from resources.ledger.takeover import HEARTBEAT_LIMIT_S as HEARTBEAT_LIMIT_S
from resources.ledger.takeover import Takeover, Verdict
from resources.processes.silence import Silence

LOOK_S = 0.5
"""How often a claim is looked at that has to be watched."""
ERROR_CHARACTERS = 8000
_ENDED = (State.DONE, State.QUARANTINED)
_COLUMNS = [_work.c[field.name] for field in fields(Entry)]


class Ledger(Database):
    """The states of all units; its database holds what else there is to remember."""

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
        units: Sequence[tuple[str, str | None]],
        tokens: Mapping[str, int] | None = None,
    ) -> None:
        """Enter (unit_id, video_id) as pending where they are unknown, so that totals are seen.

        A unit of another shard becomes one of this shard, and pending, unless it was dropped: its
        video has another file now. tokens: {unit: token} that earlier attempts have left in the
        lake; the next attempt at a unit that was unknown gets a higher one.
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
                "token": (tokens or {}).get(unit, 0),
            }
            for unit, video in units
        ]
        with self.transaction() as connection:
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
        with self.transaction() as connection:
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

    def start(
        self,
        stage: str,
        unit_id: str,
        *,
        fingerprint: str,
        worker: str,
        run_id: str,
        seen: int | None = None,
        redo: bool = True,
    ) -> Attempt:
        """Claim a unit and record the attempt before it starts.

        A claim of another worker that looks stale is watched for some seconds before it is taken
        over. seen: the token of the entry that the caller has looked at. redo: whether to claim
        what has ended under this very fingerprint. Raises BusyError while a live worker has it, or
        if another has claimed it since, and may be done; KeyError if the unit was never expected.
        """
        while True:
            try:
                return self._start(
                    stage,
                    unit_id,
                    fingerprint=fingerprint,
                    worker=worker,
                    run_id=run_id,
                    seen=seen,
                    redo=redo,
                )
            except _UnwatchedError:
                time.sleep(LOOK_S)

    @patient
    def _start(
        self,
        stage: str,
        unit_id: str,
        *,
        fingerprint: str,
        worker: str,
        run_id: str,
        seen: int | None,
        redo: bool,
    ) -> Attempt:
        """As `start`. Raises _UnwatchedError if the claim has to be watched."""
        with self.transaction() as connection:
            same = _is_unit(stage, unit_id)
            query = sa.select(_work, self.now().label("now")).where(same)
            # On Postgres: whoever claims the row at this very moment is ahead of us.
            row = connection.execute(query.with_for_update(skip_locked=True)).mappings().first()
            if row is None:
                if connection.execute(sa.select(_work.c.stage).where(same)).first() is None:
                    raise KeyError(f"{stage} {unit_id} is not in the ledger")
                raise BusyError(f"{stage} {unit_id} is being claimed by another worker")
            if seen is not None and row["token"] != seen:
                raise BusyError(f"{stage} {unit_id} was claimed by {row['worker']} meanwhile")
            # It was at work when the caller looked, and its token is still the same.
            if not redo and row["state"] in _ENDED and row["fingerprint"] == fingerprint:
                raise BusyError(f"{stage} {unit_id} is {row['state']} by now")
            if row["state"] == State.DROPPED:
                raise BusyError(f"{stage} {unit_id} was dropped: `ego quarantine release` it first")
            # One process may have several runs.
            is_own = (row["worker"], row["run_id"]) == (worker, run_id)
            if row["state"] == State.RUNNING and not is_own:
                self._refuse_if_alive(connection, row)
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
        mine = self._current(stage, unit_id, token)
        with self.transaction(durable=False) as connection:
            beat = _work.update().where(mine).values(heartbeat_at=self.now())
            return connection.execute(beat).rowcount == 1

    @patient
    def was_alive(self, stage: str, unit_id: str, token: int) -> None:
        """Say that the attempt was taken over while its worker lived (it slept, or was cut off):
        it is not one of those that were lost with their run."""
        later = sa.and_(_is_unit(stage, unit_id), _work.c.token > token, _work.c.lost > 0)
        self._update(later, lost=_work.c.lost - 1)

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
        why = _text(waits_because) if waits_because else None
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
            error=_text(reason),
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
        self._close(stage, unit_id, attempt, state, error_class, _text(error), None)

    @patient
    def interrupt(self, stage: str, unit_id: str, attempt: Attempt) -> None:
        """running → pending, the attempt not counted: the run was stopped, the unit is innocent."""
        mine = self._current(stage, unit_id, attempt.token)
        counted = attempt.number - 1
        self._update(mine, state=State.PENDING, attempts=counted, finished_at=self.now())

    @patient
    def block(self, stage: str, unit_id: str, reason: str) -> None:
        """Say why a unit cannot start. One that another worker is at stays as it is."""
        self._update(
            sa.and_(_where(stage, None, unit_id), _work.c.state != State.RUNNING),
            state=State.PENDING,
            attempts=0,
            fingerprint="",
            error_class=BLOCKED,
            error=_text(reason),
        )

    @patient
    def requeue(
        self,
        stage: str,
        unit_ids: Iterable[str],
        reason: str,
        tokens: Mapping[str, int] | None = None,
    ) -> int:
        """done → pending: what it published is lost or damaged. Returns how many.

        So is a result that was made without a GPU. tokens: {unit: token} of the attempts that are
        meant; a unit that another attempt has done since stays as it is.
        """
        has_result = sa.or_(_work.c.state == State.DONE, _is_waiting_for_gpu())
        named = list(unit_ids)
        count = 0
        for start in range(0, len(named), 500):
            page = named[start : start + 500]
            mine = _work.c.unit_id.in_(page)
            if tokens is not None:
                pairs = [(unit, tokens[unit]) for unit in page]
                mine = sa.tuple_(_work.c.unit_id, _work.c.token).in_(pairs)
            count += self._update(
                sa.and_(_work.c.stage == stage, mine, has_result),
                state=State.PENDING,
                attempts=0,
                fingerprint="",
                error_class="Requeued",
                error=_text(reason),
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
        with self.transaction() as connection:
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
                    values |= {"error_class": "Requeued", "error": _text(reason)}
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
    def drop_after(self, stage: str, unit_id: str, upstream: str, gone: str = "") -> None:
        """pending → dropped: what it is made from was dropped.

        gone: that was because its raw file is gone; this comes back with the file, too.
        """
        waits = _work.c.state.in_([State.PENDING, State.FAILED])
        self._update(
            sa.and_(_where(stage, None, unit_id), waits),
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
        unit_id: str | None = None,
        states: Iterable[State] | None = None,
        limit: int | None = None,
    ) -> list[Entry]:
        query = sa.select(*_COLUMNS).where(_where(stage, shard, unit_id)).limit(limit)
        if states is not None:
            query = query.where(_work.c.state.in_(list(states)))
        with self.reading() as connection:
            rows = connection.execute(query.order_by(_work.c.stage, _work.c.unit_id))
            return [Entry(State(state), *others) for state, *others in rows]

    @patient
    def unfinished_shards(self) -> list[str]:
        """Shards with units that another run may finish: not done, not in quarantine, and not
        waiting for one that is."""
        open_states = [State.PENDING, State.RUNNING, State.FAILED]
        is_blocked = sa.func.coalesce(_work.c.error_class, "") == BLOCKED
        query = sa.select(_work.c.shard).where(_work.c.state.in_(open_states), ~is_blocked)
        with self.reading() as connection:
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
        with self.reading() as connection:
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
        with self.reading() as connection:
            for stage, state, count in connection.execute(query):
                found.setdefault(stage, {})[State(state)] = count
        return found

    @patient
    def beats_of_runs(self) -> dict[str, tuple[float, float]]:
        """{run id: (when a unit of it last had a heartbeat, how many seconds ago)} of all runs with
        units at work; both by the clock of the database."""
        last = sa.func.max(sa.func.coalesce(_work.c.heartbeat_at, _work.c.started_at))
        query = (
            sa.select(_work.c.run_id, last, self.now() - last)
            .where(_work.c.state == State.RUNNING, _work.c.run_id.is_not(None))
            .group_by(_work.c.run_id)
            .having(last.is_not(None))
        )
        with self.reading() as connection:
            return {run: (beat, age_s) for run, beat, age_s in connection.execute(query)}

    # -- inside --------------------------------------------------------------------------------

    @cached_property
    def _takeover(self) -> Takeover:
        return Takeover(Silence())

    def _refuse_if_alive(self, connection: sa.Connection, row: Mapping[Any, Any]) -> None:
        """Raises BusyError, or _UnwatchedError, unless the claim may be taken over."""
        its_claims = sa.and_(_work.c.state == State.RUNNING, _work.c.worker == row["worker"])
        query = sa.select(_work.c.stage, _work.c.unit_id, _work.c.token, _work.c.heartbeat_at)
        beats: dict[Hashable, float] = {
            (stage, unit, token): beat or 0.0
            for stage, unit, token, beat in connection.execute(query.where(its_claims))
        }
        claim = (row["stage"], row["unit_id"], row["token"])
        verdict = self._takeover.judge(row["worker"] or "", claim, beats, row["now"])
        if verdict is Verdict.WATCH:
            raise _UnwatchedError
        if verdict is Verdict.ALIVE:
            raise BusyError(f"{row['stage']} {row['unit_id']} is at {row['worker']}")

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
            finished_at=self.now(),
            seconds=self.now() - _work.c.started_at - idle_s,
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
        with self.transaction() as connection:
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


class _UnwatchedError(Exception):
    """A claim looks stale, and has not been watched for long enough."""


def _text(words: str) -> str:
    """As any database holds it: a worker's last words, or the name of a file, may be any bytes."""
    clean = words.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return clean[:ERROR_CHARACTERS]


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
