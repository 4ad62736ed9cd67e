"""Makes a ledger that was lost again from the lake, so that nothing that is done is computed again.

By itself where the ledger is opened (`ready`), or when a person asks (`rebuild`). It may be killed
at any point and run beside anything: each table of a shard is entered in one transaction, and what
workers hold stays theirs. What no file holds is lost with the ledger: reasons of failures,
quarantine, what a person dropped. Not here: one table of one shard (`agreement`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from ego_assets.catalog import TABLES
from ego_assets.engine.plan import ShardInputs
from ego_assets.upkeep.recovery.agreement import MANIFEST, enter_waiting, remember_owners, results
from resources.lake import Lake, LakeError, holdings
from resources.ledger import Ledger
from resources.ledger.adoption import Adoption, FileState, Found
from resources.ledger.tables import SQLITE, find_damage

LOCK = "ledger"
SHARDS_AT_ONCE = 16
READERS = 8
MANY = 200
"""Shards of which it is worth saying that they are read."""


@dataclass
class Rebuilt:
    """What came of a rebuild: {table: items in the lake}, {table: items that the ledger lacked},
    and sentences on what could not be read. put_aside: files of a damaged ledger, as they are
    called now."""

    found: Counter[str] = field(default_factory=Counter)
    entered: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    put_aside: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{sum(self.found.values()):,} results in the lake, {sum(self.entered.values()):,} of "
            f"them entered into the ledger, in {self.seconds:.1f} s"
        )


def ready(lake: Lake, ledger: Ledger, tell: Callable[[str], None] | None = None) -> Ledger:
    """The ledger, made again from the lake first if it is new and the lake is not.

    tell: takes a sentence for a person. A ledger that is whole costs one query.
    """
    adoption = Adoption(ledger)
    if adoption.is_whole():
        return ledger
    if not adoption.is_new() or not lake.shards():
        adoption.set_whole(f"in use, {_now()}")
        return ledger
    with lake.storage.lock(LOCK):  # who comes second waits until it is whole
        if adoption.is_whole():
            return ledger
        made = _rebuild(lake, ledger, tell)
        adoption.set_whole(f"made from the lake, {_now()}")
    if tell and (made.entered or made.problems):
        tell(f"the ledger of {lake.location} was lost, and is made again: {made}")
        for problem in made.problems:
            tell(problem)
    return ledger


def rebuild(lake: Lake, ledger: Ledger) -> Rebuilt:
    """Look at everything in the lake, and enter what the ledger lacks, or has an older attempt of.

    A SQLite file that is damaged is put aside first.
    """
    with lake.storage.lock(LOCK):
        put_aside = _put_aside(ledger)
        made = _rebuild(lake, ledger, everything=True)
        Adoption(ledger).set_whole(f"made from the lake, {_now()}")
    made.put_aside = put_aside
    return made


def _rebuild(
    lake: Lake,
    ledger: Ledger,
    tell: Callable[[str], None] | None = None,
    *,
    everything: bool = False,
) -> Rebuilt:
    """everything: also what was found in agreement before, and its file has not changed since."""
    began = time.monotonic()
    made = Rebuilt()
    adoption = Adoption(ledger)
    is_new = not adoption.is_whole() and adoption.is_new()
    if is_new:
        adoption.set_part()
    known = {} if everything else adoption.file_states()
    present = _present(lake)
    there = {shard for states, fragments in present.values() for shard in (*states, *fragments)}
    shards = [shard for shard in lake.shards() if shard in there]
    if tell and len(shards) > MANY:
        tell(
            f"the ledger of {lake.location} is new: what is done is read from {len(shards)} shards"
        )
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(shards), SHARDS_AT_ONCE):
            page = shards[start : start + SHARDS_AT_ONCE]
            looks = [_Look(lake, ledger, shard, present, known) for shard in page]
            list(readers.map(_Look.read, looks))
            _enter(lake, ledger, looks, made, is_new)
    made.seconds = time.monotonic() - began
    return made


def _enter(lake: Lake, ledger: Ledger, looks: list[_Look], made: Rebuilt, is_new: bool) -> None:
    """Enter what was found in some shards; their files are noted last, so that whoever is killed
    before finds them still to be done."""
    adoption, found = Adoption(ledger), dict[str, list[Found]]()
    for look in looks:
        made.problems += look.problems
        for table, items in look.found.items():
            found.setdefault(table, []).extend(items)
            made.found[table] += len(items)
    if is_new:
        files = [(k.inputs, {r.item_id for r in k.found.get(MANIFEST, ())}) for k in looks]
        remember_owners(lake, ledger, [(inputs, items) for inputs, items in files if items])
        for look in looks:
            enter_waiting(look.inputs, [table for table, items in look.found.items() if items])
    made.entered.update({t: len(items) for t, items in adoption.adopt(found).items() if items})
    adoption.note_files({k: s for look in looks for k, s in look.states.items()})


class _Slim(ShardInputs):
    """Reads only what says which items there are, and who owns them."""

    COLUMNS: ClassVar[dict[str, list[str]]] = {
        "video_manifest": ["uri", "video_id", "accepted", "reject_reason", "reject_detail"],
        "clips": ["video_id", "clip_id"],
    }

    def rows(self, table: str) -> list[dict[str, Any]]:
        if table not in self._rows:
            found = self.lake.read(table, self.shard, columns=self.COLUMNS[table])
            self._rows[table] = found.to_pylist()
        return self._rows[table]


class _Look:
    """What the lake holds of one shard."""

    def __init__(
        self,
        lake: Lake,
        ledger: Ledger,
        shard: str,
        present: dict[str, tuple[dict[str, str], set[str]]],
        known: dict[tuple[str, str], FileState],
    ) -> None:
        self.inputs = _Slim(lake, ledger, shard)
        self.present = present
        self.known = known
        self.found: dict[str, list[Found]] = {}
        self.states: dict[tuple[str, str], FileState | None] = {}
        self.problems: list[str] = []

    def read(self) -> None:
        for table, state in self._tables():
            try:
                self.found[table] = results(self.inputs, table)
            except LakeError as error:
                self.problems.append(str(error))
                continue
            if state is not None:
                self.states[table, self.inputs.shard] = FileState(state, len(self.found[table]))

    def _tables(self) -> Iterator[tuple[str, str | None]]:
        """Those to be read, each with the state of its compacted file; None: it has none."""
        shard = self.inputs.shard
        for table, (states, fragments) in self.present.items():
            known = self.known.get((table, shard))
            is_known = known is not None and known.state == states.get(shard)
            if shard in fragments or (shard in states and not is_known):
                yield table, states.get(shard)


def _present(lake: Lake) -> dict[str, tuple[dict[str, str], set[str]]]:
    """{table: ({shard: state of its compacted file}, shards that have fragments)}."""

    def of(table: str) -> tuple[dict[str, str], set[str]]:
        return holdings.states(lake, table), set(holdings.fragments(lake, table))

    with ThreadPoolExecutor(len(TABLES)) as readers:
        return dict(zip(TABLES, readers.map(of, TABLES), strict=True))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _put_aside(ledger: Ledger) -> list[str]:
    """Rename the files of a damaged SQLite ledger: their new names."""
    if find_damage(ledger.url) is None:
        return []
    path = Path(ledger.url.removeprefix(SQLITE))
    when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    done = []
    # What belongs to the file goes with it; the file itself last, since it is what is looked for.
    for suffix in ("-wal", "-shm", ""):
        old = path.with_name(path.name + suffix)
        if old.exists():
            new = path.with_name(f"{path.name}.damaged-{when}{suffix}")
            old.rename(new)
            done.append(str(new))
    return done
