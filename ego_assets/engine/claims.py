"""A work item in the ledger while a worker is at it: claimed, kept by heartbeats, given back.

Here: all tables of an item at once; one heart for all claims of a process. Not here: how an attempt
ends (`lane`), the claims themselves (`resources.ledger`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError

from ego_assets.engine.plan import StageSpec
from resources.ledger import Attempt, BusyError, LateAttemptError, Ledger
from resources.processes import silence

BEAT_S = silence.BEAT_S


class _Heart:
    """Renews the heartbeats of all claims of this process, in a thread that is there while there
    are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._claims: dict[int, Claim] = {}
        self._thread: threading.Thread | None = None

    def add(self, claim: Claim) -> None:
        with self._changed:
            self._claims[id(claim)] = claim
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
                self._thread.start()

    def remove(self, claim: Claim) -> None:
        """The claim is not said to be late after this, and the last one ends the thread."""
        with self._changed:
            thread = self._thread
            if self._claims.pop(id(claim), None) is None or self._claims:
                return
            self._thread = None
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _beat(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._thread is not me, BEAT_S)
                if self._thread is not me:
                    return
                claims = list(self._claims.values())
            ledgers = {c.ledger.url: c.ledger for c in claims}
            for ledger in ledgers.values():
                with suppress(SQLAlchemyError):  # a ledger that is away for a while
                    self._renew(ledger, [c for c in claims if c.ledger.url == ledger.url])

    def _renew(self, ledger: Ledger, claims: Sequence[Claim]) -> None:
        late = []
        with ledger.joint_transaction(durable=False):
            for claim in claims:
                for table, attempt in claim.attempts.items():
                    if not ledger.beat(table, claim.item_id, attempt.token):
                        late.append((claim, table))
        for claim, table in late:
            with self._changed:
                is_held = id(claim) in self._claims
            if is_held:
                claim.note_late(table)


_HEART = _Heart()
os.register_at_fork(after_in_child=_HEART.__init__)  # type: ignore[misc]  # claims stay behind


class Claim:
    """The attempts {table: attempt} at one item, whose heartbeats go on until `rest`."""

    def __init__(self, ledger: Ledger, item_id: str, attempts: Mapping[str, Attempt]) -> None:
        self.ledger = ledger
        self.item_id = item_id
        self.attempts = dict(attempts)
        self._late: set[str] = set()
        _HEART.add(self)

    @property
    def number(self) -> int:
        return max(a.number for a in self.attempts.values())

    @property
    def lost(self) -> int:
        return max(a.lost for a in self.attempts.values())

    @property
    def token(self) -> int:
        """The newest."""
        return max(a.token for a in self.attempts.values())

    def rest(self) -> None:
        """No more heartbeats."""
        _HEART.remove(self)

    def note_late(self, table: str) -> None:
        """Another worker took the attempt over, and we live: it was not lost with its run."""
        if table not in self._late:
            self._late.add(table)
            self.ledger.was_alive(table, self.item_id, self.attempts[table].token)

    @contextmanager
    def _noting(self, table: str) -> Iterator[None]:
        try:
            yield
        except LateAttemptError:
            with suppress(SQLAlchemyError):
                self.note_late(table)
            raise

    def finish(self, digests: Mapping[str, str], waits_because: str, idle_s: float) -> None:
        """digests: SHA-256 of each table's file. Raises LateAttemptError."""
        for table, attempt in self.attempts.items():
            with self._noting(table):
                self.ledger.finish(
                    table,
                    self.item_id,
                    attempt,
                    digests[table],
                    waits_because=waits_because,
                    idle_s=idle_s,
                )

    def fail(self, error_class: str, error: str, *, quarantine: bool) -> None:
        """Raises LateAttemptError."""
        for table, attempt in self.attempts.items():
            with self._noting(table):
                self.ledger.fail(
                    table,
                    self.item_id,
                    attempt,
                    error_class=error_class,
                    error=error,
                    quarantine=quarantine,
                )

    def give_way(self) -> None:
        """Another attempt is ahead of it, and it was not lost: nothing of it counts."""
        with suppress(SQLAlchemyError):
            for table in self.attempts:
                self.note_late(table)
        self.give_back()

    def give_back(self) -> None:
        """It ended by no fault of the item: not counted."""
        self.rest()
        with suppress(SQLAlchemyError):
            for table, attempt in self.attempts.items():
                self.ledger.interrupt(table, self.item_id, attempt)


def claim(
    ledger: Ledger,
    spec: StageSpec,
    worker: str,
    item_id: str,
    fingerprint: str,
    tables: Mapping[str, int],
) -> Claim | None:
    """All tables {name: token seen} of an item; none if another worker has one, or had it since."""
    claimed: dict[str, Attempt] = {}
    for table, seen in sorted(tables.items()):
        try:
            claimed[table] = ledger.start(
                table,
                item_id,
                fingerprint=fingerprint,
                worker=worker,
                run_id=spec.run_id,
                seen=seen,
                redo=spec.force,
            )
        except BusyError:
            for name, attempt in claimed.items():
                ledger.interrupt(name, item_id, attempt)
            return None
    return Claim(ledger, item_id, claimed)
