"""Where the ledger and the lake differ, told for the whole lake from listings.

The ledger remembers in which state it has agreed with each compacted file. Only what is in another
state by now is opened; if it agrees all the same, that is remembered. Not here: what is done about
it (`audit`, `rebuild`), bytes that are damaged (`audit`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from ego_assets.catalog import TABLES
from ego_assets.upkeep.recovery.agreement import compare
from resources.lake import Lake, LakeError, holdings
from resources.ledger import Ledger, State
from resources.ledger.adoption import Adoption, Counts, FileState

BUDGET_S = 10.0
READERS = 8
MENDS = "`ego verify --repair`"


@dataclass(frozen=True)
class Difference:
    """A table of a shard about which they differ. why: a sentence for a person."""

    table: str
    shard: str
    why: str


@dataclass(frozen=True)
class Differences:
    """All of them. not_compared: tables of shards for which there was no time."""

    found: tuple[Difference, ...] = ()
    not_compared: int = 0

    def __str__(self) -> str:
        """What a person has to know; empty if there is nothing."""
        words = []
        if self.found:
            count = _tables(len(self.found))
            words.append(f"the ledger and the lake differ in {count}: {MENDS}")
        if self.not_compared:
            words.append(
                f"the ledger has not been compared with {_tables(self.not_compared)}: "
                "`ego rebuild-ledger` does that"
            )
        return "\n".join(words)

    @property
    def shards(self) -> set[str]:
        return {d.shard for d in self.found}


def _tables(count: int) -> str:
    return "1 table of a shard" if count == 1 else f"{count} tables of shards"


def find_differences(
    lake: Lake, ledger: Ledger, budget_s: float = BUDGET_S, counts: Counts | None = None
) -> Differences:
    """Compare the ledger with the lake. Ends soon after `budget_s`, whatever is left to compare.

    counts: of the ledger (`Adoption.counts`), if they were just asked for.
    """
    until = time.monotonic() + budget_s
    adoption = Adoption(ledger)
    # The ledger first: what is done by now is in the lake by then.
    counts = adoption.counts() if counts is None else counts
    known = adoption.file_states()
    with ThreadPoolExecutor(READERS) as readers:
        held = dict(zip(TABLES, readers.map(partial(_held, lake), TABLES), strict=True))
        suspects = _suspects(held, known, counts, set(lake.shards()))

        def look(suspect: tuple[str, str]) -> _Answer:
            if time.monotonic() > until:
                return _Answer(is_late=True)
            table, shard = suspect
            done = counts.get(suspect, {}).get(State.DONE, 0)
            return _look(lake, ledger, table, shard, held[table], done)

        answers = dict(zip(suspects, readers.map(look, suspects), strict=True))
    agreed = {s: a.state for s, a in answers.items() if not (a.difference or a.is_late)}
    changed = {s: state for s, state in agreed.items() if state != known.get(s)}
    if changed:
        adoption.note_files(changed)
    found = [a.difference for a in answers.values() if a.difference]
    return Differences(tuple(found), sum(a.is_late for a in answers.values()))


@dataclass(frozen=True)
class _Held:
    """What the lake has of a table: {shard: state} of files, {shard: items} of what is not
    compacted."""

    states: Mapping[str, str]
    fragments: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class _Answer:
    """What is found in a table of a shard: a difference, or the state that is agreed on."""

    difference: Difference | None = None
    state: FileState | None = None
    is_late: bool = False


def _held(lake: Lake, table: str) -> _Held:
    # Fragments first: what is compacted in between is in the file.
    fragments = holdings.fragments(lake, table)
    return _Held(holdings.states(lake, table), fragments)


def _suspects(
    held: Mapping[str, _Held],
    known: Mapping[tuple[str, str], FileState],
    counts: Counts,
    shards: set[str],
) -> list[tuple[str, str]]:
    """(table, shard) of what is not as it was when the ledger agreed with it, by shard."""
    found = set()
    for table, mine in held.items():
        for shard in shards & ({*mine.states, *mine.fragments}):
            before, state = known.get((table, shard)), mine.states.get(shard)
            as_before = before is not None and before.state == state
            if (
                shard in mine.fragments
                or not as_before
                or (before is not None and _items(counts, table, shard) < before.item_count)
            ):
                found.add((table, shard))
    for table, shard in {*known, *(k for k, states in counts.items() if State.DONE in states)}:
        if table in held and shard not in held[table].states:
            found.add((table, shard))
    order = {table: number for number, table in enumerate(held)}
    return sorted(found, key=lambda s: (s[1], order[s[0]]))


def _items(counts: Counts, table: str, shard: str) -> int:
    return sum(counts.get((table, shard), {}).values())


def _look(lake: Lake, ledger: Ledger, table: str, shard: str, held: _Held, done: int) -> _Answer:
    if shard not in held.states and shard not in held.fragments:
        if not done:
            return _Answer()
        why = f"{done} work items are done in the ledger, and there are no rows of them"
        return _Answer(Difference(table, shard, why))
    try:
        found = compare(lake, ledger, table, shard)
        items = len(set(lake.compacted_items(table, shard)) - set(found.extra))
    except LakeError as error:
        return _Answer(Difference(table, shard, str(error)))
    words = {
        "of which the lake has a later attempt": len(found.newer),
        "whose rows are gone": len(found.missing),
        "whose rows are of another fingerprint": len(found.stale),
    }
    if found.items:
        why = ", ".join(f"{n} work items {what}" for what, n in words.items() if n)
        return _Answer(Difference(table, shard, why))
    state = held.states.get(shard)
    return _Answer(state=None if state is None else FileState(state, items))
