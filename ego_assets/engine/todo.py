"""What the ledger says of an item before it is tried: to be done, done, or not to be tried; and of
the items of a take, one after the other.

Not here: which items there are (`plan`), trying them (`lane`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ego_assets.engine.plan import Group, StageSpec, WorkItem, chain
from resources.ledger import Entry, Ledger, State
from resources.ledger.contents import Contents


def is_given_up(entry: Entry | None, fingerprint: str | None, *, force: bool = False) -> bool:
    """Whether an item is not tried under a fingerprint: a person has dropped it, or it has failed
    under that very one, and nobody forces it."""
    if entry is None or entry.state is State.DROPPED:
        return entry is not None
    failed = entry.state is State.QUARANTINED and entry.fingerprint == fingerprint
    return failed and not force


@dataclass(frozen=True)
class Step:
    """An item of a take, as whoever goes through the take comes to it.

    fingerprint: that it would be done under; None: it is not known, but another one than before.
    known: what the ledger says, table by table. is_left_out: it stays as it is.
    """

    item: WorkItem
    fingerprint: str | None
    known: Sequence[Entry | None]
    is_left_out: bool = False

    @property
    def is_given_up(self) -> bool:
        return any(is_given_up(entry, self.fingerprint) for entry in self.known)

    @property
    def is_done(self) -> bool:
        """Whether all of it is done, under whatever fingerprint."""
        return all(entry is not None and entry.state is State.DONE for entry in self.known)

    @property
    def is_over(self) -> bool:
        """Whether it is not to be tried: what follows in the take starts afresh."""
        return self.is_left_out or self.item.blocked is not None


def walk(
    group: Group,
    tables: Sequence[str],
    entries: Mapping[str, Mapping[str, Entry]],
    *,
    changed: Container[str] = (),
    leaves_out: Callable[[Step], bool] = lambda step: step.is_given_up,
) -> Iterator[Step]:
    """Go through a take as a worker does (`Lane.run_take`), if all that it tries goes well.

    entries: {table: {item: entry}}. changed: items that are made from one that is stale: their
    inputs will be others, so that their fingerprints are not known, nor those that follow.
    """
    previous: str | None = None
    is_changed = False
    for item in group.items:
        is_changed = is_changed or item.item_id in changed
        fingerprint = None if is_changed else chain(item.base_fingerprint, previous)
        known = [entries.get(table, {}).get(item.item_id) for table in tables]
        step = Step(item, fingerprint, known)
        step = Step(item, fingerprint, known, leaves_out(step))
        yield step
        previous = None if step.is_over else fingerprint
        is_changed = is_changed and not step.is_over


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
        if item.video_id and Contents(self.ledger).is_forgotten(item.video_id):
            return True  # since it was planned
        return any(
            is_given_up(
                e,
                fingerprint if self.spec.redo_stale else e.fingerprint,
                force=self.spec.force and e.run_id != self.spec.run_id,
            )
            for e in self.ledger.entries(item_id=item.item_id)
            if e.stage in self.spec.tables
        )
