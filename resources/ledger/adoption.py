"""The ledger's side of its agreement with the lake: results that it takes over from there, and the
state in which each file of the lake was last found in agreement.

A ledger that was lost, or is older than the lake, takes over what it does not know; it never takes
a unit from a worker. Not here: what the lake holds (`ego_assets.upkeep.recovery.agreement`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from resources.ledger.database import Database, patient
from resources.ledger.states import WAITS_FOR_GPU, Entry, State
from resources.ledger.tables import PART
from resources.ledger.tables import facts as _facts
from resources.ledger.tables import lake_files as _files
from resources.ledger.tables import work as _work
from resources.ledger.takeover import HEARTBEAT_LIMIT_S
from resources.processes import is_gone

_PAGE = 500
_WHOLE = "whole"


@dataclass(frozen=True)
class Found:
    """A result that is in the lake: of a unit, under a fingerprint, by the attempt with a token.

    finished_at: seconds since 1970; provisional: why it stands in for that of another backend.
    """

    unit_id: str
    shard: str
    video_id: str | None
    fingerprint: str
    token: int
    attempts: int
    worker: str
    run_id: str
    finished_at: float | None
    provisional: str = ""

    def entry(self, stage: str) -> Entry:
        """As the ledger has it from then on."""
        return Entry(
            stage=stage,
            unit_id=self.unit_id,
            shard=self.shard,
            video_id=self.video_id,
            fingerprint=self.fingerprint,
            state=State.PENDING if self.provisional else State.DONE,
            attempts=self.attempts,
            error_class=WAITS_FOR_GPU if self.provisional else None,
            error=self.provisional or None,
            worker=self.worker[:128],
            run_id=self.run_id[:64],
            started_at=None,
            finished_at=self.finished_at,
            seconds=None,
            lost=0,
            token=self.token,
            heartbeat_at=None,
            digest=None,
        )


class FileState(NamedTuple):
    """A compacted file as it was when the ledger agreed with it, and how many units it holds."""

    state: str
    units: int


Counts = dict[tuple[str, str], dict[State, int]]


class Adoption:
    """What a ledger's database has taken over from a lake."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- results -----------------------------------------------------------------------------

    @patient
    def tokens(self, stage: str, unit_ids: Iterable[str]) -> dict[str, int]:
        """{unit: token} of those that the ledger knows, of whatever shard they are there."""
        known: dict[str, int] = {}
        with self._database.reading() as connection:
            for page in _pages(unit_ids):
                query = sa.select(_work.c.unit_id, _work.c.token)
                mine = sa.and_(_work.c.stage == stage, _work.c.unit_id.in_(page))
                known |= {row.unit_id: row.token for row in connection.execute(query.where(mine))}
        return known

    @patient
    def adopt(self, found: Mapping[str, Sequence[Found]]) -> dict[str, list[str]]:
        """Enter results {stage: of units} that the ledger lacks, or knows an older attempt of.

        One that a live worker is at stays as it is. Returns the units that were entered.
        """
        entered: dict[str, list[str]] = {}
        with self._database.transaction() as connection:
            for stage, results in found.items():
                mine = entered.setdefault(stage, [])
                # A unit may have rows in two shards, if its video went from one to the other.
                for page in _pages(sorted(results, key=lambda r: r.token)):
                    mine += self._adopt_page(connection, stage, {r.unit_id: r for r in page})
        return entered

    def _adopt_page(
        self, connection: sa.Connection, stage: str, page: dict[str, Found]
    ) -> list[str]:
        entered = []
        known = self._lock_rows(connection, stage, page)
        new = [r for unit, r in page.items() if unit not in known]
        if new:
            rows = [vars(r.entry(stage)) for r in new]
            # On Postgres somebody may have entered one at this very moment, from the lake as we do.
            connection.execute(self._database.insert_ignore(_work), rows)
            entered += [r.unit_id for r in new]
        for unit, row in known.items():
            result = page[unit]
            if result.token > row["token"] and not _is_at_work(row):
                same = sa.and_(_work.c.stage == stage, _work.c.unit_id == unit)
                connection.execute(_work.update().where(same).values(**vars(result.entry(stage))))
                entered.append(unit)
        return entered

    @patient
    def enter_waiting(self, stage: str, shard: str, units: Mapping[str, str | None]) -> None:
        """Enter units {unit: video_id} as pending, where no shard has them."""
        with self._database.transaction() as connection:
            for page in _pages(units):
                rows = [
                    {
                        "stage": stage,
                        "unit_id": unit,
                        "shard": shard,
                        "video_id": units[unit],
                        "fingerprint": "",
                        "state": State.PENDING,
                        "attempts": 0,
                    }
                    for unit in page
                ]
                connection.execute(self._database.insert_ignore(_work), rows)

    @patient
    def raise_tokens(self, stage: str, tokens: Mapping[str, int]) -> int:
        """Let the next attempt at each of these units have a higher token than {unit: token}.

        A claim that a live worker holds stays as it is. Returns how many were raised.
        """
        raised = 0
        with self._database.transaction() as connection:
            for page in _pages(tokens):
                for unit, row in self._lock_rows(connection, stage, page).items():
                    if tokens[unit] > row["token"] and not _is_at_work(row):
                        same = sa.and_(_work.c.stage == stage, _work.c.unit_id == unit)
                        update = _work.update().where(same).values(token=tokens[unit])
                        raised += connection.execute(update).rowcount
        return raised

    @patient
    def at_work(self, stage: str, shard: str) -> set[str]:
        """Units that a worker has which may live."""
        mine = sa.and_(_work.c.stage == stage, _work.c.shard == shard)
        query = sa.select(_work, self._database.now().label("now"))
        query = query.where(mine, _work.c.state == State.RUNNING)
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings()
            return {row["unit_id"] for row in rows if _is_at_work(row)}

    def _lock_rows(
        self, connection: sa.Connection, stage: str, unit_ids: Iterable[str]
    ) -> dict[str, Any]:
        """{unit: row} of those that are known; nobody claims one before the transaction ends."""
        mine = sa.and_(_work.c.stage == stage, _work.c.unit_id.in_(list(unit_ids)))
        query = sa.select(_work, self._database.now().label("now")).where(mine)
        rows = connection.execute(query.with_for_update()).mappings()
        return {row["unit_id"]: row for row in rows}

    # -- files -------------------------------------------------------------------------------

    @patient
    def file_states(self, stages: Sequence[str] = ()) -> dict[tuple[str, str], FileState]:
        """{(stage, shard): the state} in which each file was last found in agreement. stages: only
        of these."""
        query = sa.select(_files.c.stage, _files.c.shard, _files.c.state, _files.c.units)
        if stages:
            query = query.where(_files.c.stage.in_(stages))
        with self._database.reading() as connection:
            return {(t, s): FileState(name, n) for t, s, name, n in connection.execute(query).all()}

    @patient
    def note_files(self, states: Mapping[tuple[str, str], FileState | None]) -> None:
        """These are in agreement now; None: there is no file, and nothing that should be in it."""
        with self._database.transaction() as connection:
            for page in _pages(states):
                same = sa.tuple_(_files.c.stage, _files.c.shard).in_(page)
                connection.execute(_files.delete().where(same))
                rows = [
                    {"stage": stage, "shard": shard} | state._asdict()
                    for stage, shard in page
                    if (state := states[stage, shard]) is not None
                ]
                if rows:
                    connection.execute(self._database.insert_ignore(_files), rows)

    @patient
    def counts(self) -> Counts:
        """Units by (stage, shard), and by state."""
        keys = (_work.c.shard, _work.c.stage, _work.c.state)  # as they are in the index
        query = sa.select(*keys, sa.func.count()).group_by(*keys)
        found: Counts = {}
        with self._database.reading() as connection:
            for shard, stage, state, count in connection.execute(query).all():
                found.setdefault((stage, shard), {})[State(state)] = count
        return found

    # -- the whole ---------------------------------------------------------------------------

    @patient
    def is_whole(self) -> bool:
        """Whether the ledger has known all of the lake once."""
        return _WHOLE in self._facts()

    @patient
    def is_new(self) -> bool:
        """Whether it knows nothing, or only a part of what the lake held before it was made."""
        if PART in self._facts():
            return True
        with self._database.reading() as connection:
            return connection.execute(sa.select(_work.c.stage).limit(1)).first() is None

    def set_part(self) -> None:
        """Say that it knows only a part, until it is whole."""
        self._set(PART)

    def set_whole(self, how: str) -> None:
        self._set(_WHOLE, how)

    @patient
    def _set(self, name: str, value: str = "") -> None:
        with self._database.transaction() as connection:
            row = {"name": name, "value": value}
            connection.execute(self._database.insert_ignore(_facts), [row])

    def _facts(self) -> set[str]:
        with self._database.reading() as connection:
            return set(connection.execute(sa.select(_facts.c.name)).scalars())


def _is_at_work(row: Any) -> bool:
    """Whether a worker that may live has the unit."""
    if row["state"] != State.RUNNING or is_gone(row["worker"]):
        return False
    silence_s: float = abs(row["now"] - (row["heartbeat_at"] or 0.0))
    return silence_s < HEARTBEAT_LIMIT_S


def _pages(of: Iterable[Any]) -> list[list[Any]]:
    everything = list(of)
    return [everything[n : n + _PAGE] for n in range(0, len(everything), _PAGE)]
