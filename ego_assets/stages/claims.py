"""A unit in the ledger while a worker is at it: claimed, kept by heartbeats, given back.

Here: all tables of a unit at once. Not here: how an attempt ends (`lane`), the claims themselves
(`resources.ledger`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from ego_assets.stages.plan import StageSpec
from resources.ledger import Attempt, BusyError, Ledger

BEAT_S = 15.0


class Claim:
    """The attempts {table: attempt} at one unit, whose heartbeats go on until `rest`."""

    def __init__(self, ledger: Ledger, unit_id: str, attempts: Mapping[str, Attempt]) -> None:
        self.ledger = ledger
        self.unit_id = unit_id
        self.attempts = dict(attempts)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

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

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            for table, attempt in self.attempts.items():
                with suppress(SQLAlchemyError):  # a ledger that is away for a while
                    self.ledger.beat(table, self.unit_id, attempt.token)

    def rest(self) -> None:
        """No more heartbeats."""
        self._over.set()
        self._thread.join()

    def finish(self, digests: Mapping[str, str], waits_because: str, idle_s: float) -> None:
        """digests: SHA-256 of each table's file. Raises LateAttemptError."""
        for table, attempt in self.attempts.items():
            self.ledger.finish(
                table,
                self.unit_id,
                attempt,
                digests[table],
                waits_because=waits_because,
                idle_s=idle_s,
            )

    def fail(self, error_class: str, error: str, *, quarantine: bool) -> None:
        """Raises LateAttemptError."""
        for table, attempt in self.attempts.items():
            self.ledger.fail(
                table,
                self.unit_id,
                attempt,
                error_class=error_class,
                error=error,
                quarantine=quarantine,
            )

    def give_back(self) -> None:
        """It ended by no fault of the unit: not counted."""
        self.rest()
        with suppress(SQLAlchemyError):
            for table, attempt in self.attempts.items():
                self.ledger.interrupt(table, self.unit_id, attempt)


def claim(
    ledger: Ledger,
    spec: StageSpec,
    worker: str,
    unit_id: str,
    fingerprint: str,
    tables: Mapping[str, int],
) -> Claim | None:
    """All tables of a unit; none if another worker has one, or had since they were looked at.

    tables: {table: its token as it was then}.
    """
    claimed: dict[str, Attempt] = {}
    for table, token in sorted(tables.items()):
        try:
            claimed[table] = ledger.start(
                table,
                unit_id,
                fingerprint=fingerprint,
                worker=worker,
                run_id=spec.run_id,
                seen=token,
            )
        except BusyError:
            for name, attempt in claimed.items():
                ledger.interrupt(name, unit_id, attempt)
            return None
    return Claim(ledger, unit_id, claimed)
