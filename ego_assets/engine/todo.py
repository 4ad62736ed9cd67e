"""What the ledger says of an item before it is tried: to be done, done, or not to be tried.

Not here: which items there are (`plan`), trying them (`lane`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ego_assets.engine.plan import StageSpec, WorkItem
from resources.ledger import Ledger, State


@dataclass(frozen=True)
class Todo:
    """What is left of a stage, as a worker asks it item by item."""

    spec: StageSpec
    ledger: Ledger

    def pending_tables(self, item: WorkItem, fingerprint: str) -> dict[str, int]:
        """Tables whose rows are missing or stale; by force, those that this run has not made.

        With the token of each: who claims it with that knows that it still is so.
        """
        entries = {e.stage: e for e in self.ledger.entries(item_id=item.item_id)}

        def is_done(table: str) -> bool:
            entry = entries.get(table)
            if entry is None:
                return False
            kept = entry.waits_for_gpu and not entry.fingerprint
            if self.spec.provisional and (kept or entry.state is State.DONE):
                return True  # better than what we could make
            if self.spec.force and entry.run_id != self.spec.run_id:
                return False
            if entry.waits_for_gpu:
                # Made in place of another backend; it may be the chosen one by now.
                return entry.fingerprint == fingerprint and (
                    bool(self.spec.provisional)
                    or self.ledger.accept(table, item.item_id, fingerprint)
                )
            if entry.state is not State.DONE:
                return False
            return entry.fingerprint == fingerprint or not self.spec.redo_stale

        left = [t for t in self.spec.tables if not is_done(t)]
        return {t: entries[t].token if t in entries else 0 for t in left}

    def done_under(self, item: WorkItem) -> str:
        """The fingerprint that an item is done under, stale or not: what its state was kept for."""
        (entry,) = self.ledger.entries(stage=self.spec.tables[0], item_id=item.item_id)
        return entry.fingerprint

    def is_quarantined(self, item: WorkItem, fingerprint: str) -> bool:
        """Whether it must not be tried; force tries what another run put there."""
        return any(
            e.state is State.DROPPED
            or (
                e.state is State.QUARANTINED
                and (e.fingerprint == fingerprint or not self.spec.redo_stale)
                and (not self.spec.force or e.run_id == self.spec.run_id)
            )
            for e in self.ledger.entries(item_id=item.item_id)
            if e.stage in self.spec.tables
        )
