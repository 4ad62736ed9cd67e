"""The life of an attempt at a work item: claimed, kept by heartbeats, ended.

An attempt is recorded before it starts, so an item that kills its worker is known by its count. An
attempt is a claim: nobody else gets the item while its heart beats (`takeover`). Every write is
conditional on the attempt: a late worker cannot overwrite the state of a newer one, and its fencing
token keeps its rows out of the lake (Kleppmann 2016, "How to do distributed locking"). Not here:
what is to be done, and what people decide (`ledger`).
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from resources.ledger.database import Database, patient
from resources.ledger.states import WAITS_FOR_GPU, Attempt, BusyError, LateAttemptError, State
from resources.ledger.tables import forgotten as _forgotten
from resources.ledger.tables import work as _work
from resources.ledger.takeover import Takeover, Verdict
from resources.processes.silence import Silence

LOOK_S = 0.5
"""How often a claim is looked at that has to be watched."""
ERROR_CHARACTERS = 8000
_ENDED = (State.DONE, State.QUARANTINED)


class Attempts(Database):
    """What workers write into a ledger."""

    def start(
        self,
        stage: str,
        item_id: str,
        *,
        fingerprint: str,
        worker: str,
        run_id: str,
        seen: int | None = None,
        redo: bool = True,
    ) -> Attempt:
        """Claim an item and record the attempt before it starts.

        A claim of another worker that looks stale is watched for some seconds before it is taken
        over. seen: the token of the entry that the caller has looked at. redo: whether to claim
        what has ended under this very fingerprint. Raises BusyError while a live worker has it, or
        if another has claimed it since, and may be done; KeyError if the item was never expected.
        """
        while True:
            try:
                return self._start(
                    stage,
                    item_id,
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
        item_id: str,
        *,
        fingerprint: str,
        worker: str,
        run_id: str,
        seen: int | None,
        redo: bool,
    ) -> Attempt:
        """As `start`. Raises _UnwatchedError if the claim has to be watched."""
        with self.transaction() as connection:
            same = _is_item(stage, item_id)
            query = sa.select(_work, self.now().label("now")).where(same)
            # On Postgres: whoever claims the row at this very moment is ahead of us.
            row = connection.execute(query.with_for_update(skip_locked=True)).mappings().first()
            if row is None:
                if connection.execute(sa.select(_work.c.stage).where(same)).first() is None:
                    raise KeyError(f"{stage} {item_id} is not in the ledger")
                raise BusyError(f"{stage} {item_id} is being claimed by another worker")
            if seen is not None and row["token"] != seen:
                raise BusyError(f"{stage} {item_id} was claimed by {row['worker']} meanwhile")
            # It was at work when the caller looked, and its token is still the same.
            if not redo and row["state"] in _ENDED and row["fingerprint"] == fingerprint:
                raise BusyError(f"{stage} {item_id} is {row['state']} by now")
            if row["video_id"] and self._is_forgotten(connection, row["video_id"]):
                raise BusyError(f"{stage} {item_id} is of a video that was forgotten")
            if row["state"] == State.DROPPED:
                raise BusyError(f"{stage} {item_id} was dropped: `ego quarantine release` it first")
            # One process may have several runs.
            is_own = (row["worker"], row["run_id"]) == (worker, run_id)
            if row["state"] == State.RUNNING and not is_own:
                self._refuse_if_alive(connection, row)
            # Work that ended and is asked for again (by force) counts from one.
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
    def beat(self, stage: str, item_id: str, token: int) -> bool:
        """Say that the attempt goes on. False: it is no longer the current one."""
        mine = self._current(stage, item_id, token)
        with self.transaction(durable=False) as connection:
            beat = _work.update().where(mine).values(heartbeat_at=self.now())
            return connection.execute(beat).rowcount == 1

    @patient
    def was_alive(self, stage: str, item_id: str, token: int) -> None:
        """Say that the attempt was taken over while its worker lived (it slept, or was cut off):
        it is not one of those that were lost with their run."""
        later = sa.and_(_is_item(stage, item_id), _work.c.token > token, _work.c.lost > 0)
        self._update(later, lost=_work.c.lost - 1)

    @patient
    def finish(
        self,
        stage: str,
        item_id: str,
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
        why = as_text(waits_because) if waits_because else None
        self._close(stage, item_id, attempt, state, error_class, why, digest, idle_s)

    @patient
    def fail(
        self,
        stage: str,
        item_id: str,
        attempt: Attempt,
        *,
        error_class: str,
        error: str,
        quarantine: bool,
    ) -> None:
        """running → failed or quarantined. Raises LateAttemptError."""
        state = State.QUARANTINED if quarantine else State.FAILED
        self._close(stage, item_id, attempt, state, error_class, as_text(error), None)

    @patient
    def interrupt(self, stage: str, item_id: str, attempt: Attempt) -> None:
        """running → pending, the attempt not counted: the run was stopped, the item is innocent."""
        mine = self._current(stage, item_id, attempt.token)
        counted = attempt.number - 1
        self._update(mine, state=State.PENDING, attempts=counted, finished_at=self.now())

    @cached_property
    def _takeover(self) -> Takeover:
        return Takeover(Silence())

    @staticmethod
    def _is_forgotten(connection: sa.Connection, video_id: str) -> bool:
        query = sa.select(_forgotten.c.video_id).where(_forgotten.c.video_id == video_id)
        return connection.execute(query).first() is not None

    def _refuse_if_alive(self, connection: sa.Connection, row: Mapping[Any, Any]) -> None:
        """Raises BusyError, or _UnwatchedError, unless the claim may be taken over."""
        its_claims = sa.and_(_work.c.state == State.RUNNING, _work.c.worker == row["worker"])
        query = sa.select(_work.c.stage, _work.c.item_id, _work.c.token, _work.c.heartbeat_at)
        beats: dict[Hashable, float] = {
            (stage, item, token): beat or 0.0
            for stage, item, token, beat in connection.execute(query.where(its_claims))
        }
        claim = (row["stage"], row["item_id"], row["token"])
        verdict = self._takeover.judge(row["worker"] or "", claim, beats, row["now"])
        if verdict is Verdict.WATCH:
            raise _UnwatchedError
        if verdict is Verdict.ALIVE:
            raise BusyError(f"{row['stage']} {row['item_id']} is at {row['worker']}")

    def _close(
        self,
        stage: str,
        item_id: str,
        attempt: Attempt,
        state: State,
        error_class: str | None,
        error: str | None,
        digest: str | None,
        idle_s: float = 0.0,
    ) -> None:
        closed = self._update(
            self._current(stage, item_id, attempt.token),
            state=state,
            finished_at=self.now(),
            seconds=self.now() - _work.c.started_at - idle_s,
            error_class=error_class,
            error=error,
            digest=digest,
        )
        if not closed:
            raise LateAttemptError(
                f"{stage} {item_id}: attempt {attempt.number} (token {attempt.token}) is no "
                "longer the current one"
            )

    def _update(self, chosen: sa.ColumnElement[bool], **values: Any) -> int:
        """In a transaction of its own. Returns how many entries were changed."""
        with self.transaction() as connection:
            return connection.execute(_work.update().where(chosen).values(**values)).rowcount

    def _current(self, stage: str, item_id: str, token: int) -> sa.ColumnElement[bool]:
        return sa.and_(
            _work.c.stage == stage,
            _work.c.item_id == item_id,
            _work.c.token == token,
            _work.c.state == State.RUNNING,
        )

    def _wall_ms(self) -> int:
        """This machine's clock, which may jump: tokens grow all the same."""
        return int(time.time() * 1000)


class _UnwatchedError(Exception):
    """A claim looks stale, and has not been watched for long enough."""


def as_text(words: str) -> str:
    """As any database holds it: a worker's last words, or the name of a file, may be any bytes."""
    clean = words.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return clean[:ERROR_CHARACTERS]


def _is_item(stage: str, item_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(_work.c.stage == stage, _work.c.item_id == item_id)
