"""The audit of a lake: every byte as it was written, every item once, nothing that belongs nowhere.

Here: what is told (`verify`), and what is done about it (`repair`). Both go by what is true under
the lock of a table and shard, never by an earlier look, so that they can run beside anything. Not
here: what is looked for (`findings`), making rows again, which the next run does for what was
requeued.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath

from ego_assets.catalog import TABLES, stage_of
from ego_assets.engine.errors import ErrorKind, classify
from ego_assets.feature import LAKE
from ego_assets.upkeep.erasure.violations import find_violations
from ego_assets.upkeep.findings import TableAudit
from ego_assets.upkeep.problems import DAMAGED, FORGOTTEN, Problem, Suspicion, put_aside
from resources.lake import Lake, LakeError
from resources.lake.storage import ChangedError
from resources.ledger import Ledger

__all__ = ["DAMAGED", "Problem", "repair", "verify"]
LOOKS = 4
"""At a table of a shard that is written all the while; then one more that keeps others out."""
ROUNDS = 4
"""Of repairs: what a bad file has hidden is found when it is gone."""


def verify(lake: Lake, ledger: Ledger, shards: Iterable[str] | None = None) -> list[Problem]:
    """Read everything and compare. Takes as long as reading the whole lake does."""
    shards = None if shards is None else list(shards)
    chosen = sorted(lake.shards() if shards is None else shards)
    found = list(find_violations(lake, ledger, shards))
    for table in TABLES:
        of_lake = [LAKE] if shards is None else []
        for shard in of_lake if stage_of(table).item == "lake" else chosen:
            found.extend(_examine(lake, ledger, table, shard))
        if shards is None:
            found.extend(_stray_files(lake, table))
    return found


def repair(lake: Lake, ledger: Ledger, problems: Iterable[Problem]) -> dict[str, int]:
    """Look again where there were problems, and mend what is wrong now.

    Bad files are put aside, items whose rows they held are requeued, rows that the ledger does not
    know are entered into it. Nothing is deleted, and what was forgotten is left to
    `ego_assets.upkeep.erasure`. Returns how many {"files", "units", "checksums", "taken_over"} it
    took away, requeued, wrote, entered.
    """
    done = Counter(files=0, units=0, checksums=0, taken_over=0)
    problems = [p for p in problems if p.kind != FORGOTTEN]
    known = {*lake.shards(), LAKE}
    for table, shard in dict.fromkeys((p.table, p.shard) for p in problems if p.shard in known):
        for _ in range(ROUNDS):
            before = done.copy()
            _examine(lake, ledger, table, shard, done)
            if done == before:
                break
    for table in {p.table: None for p in problems}:
        _stray_files(lake, table, done)
    return dict(done)


def _examine(
    lake: Lake, ledger: Ledger, table: str, shard: str, done: Counter[str] | None = None
) -> list[Problem]:
    """What is wrong with a table of a shard; with `done` it is mended, and that is counted."""
    name, audit = f"{table}.{shard}", TableAudit(lake, ledger, table, shard)
    for _ in range(LOOKS):
        try:
            suspicions = list(audit.suspicions())
            if not suspicions:
                return []
            with _locked(lake, name, required=done is not None):
                return list(_told(suspicions, done))
        except (ChangedError, FileNotFoundError, LakeError):
            continue  # it was written over while we looked
    with _locked(lake, name, required=done is not None):
        return list(_told(list(audit.suspicions()), done))


def _told(suspicions: Iterable[Suspicion], done: Counter[str] | None) -> Iterator[Problem]:
    """Those that hold; for who has the lock. Raises ChangedError."""
    for suspicion in suspicions:
        problem = suspicion.check()
        if problem is not None:
            if done is not None:
                done.update(suspicion.mend(problem))
            yield problem


@contextmanager
def _locked(lake: Lake, name: str, *, required: bool) -> Iterator[None]:
    """Nobody compacts or rolls back meanwhile. Not required: a lake that may not be written has no
    locks, and what is wrong with it is told all the same."""
    with ExitStack() as stack:
        try:
            stack.enter_context(lake.storage.lock(name))
        except Exception as error:
            if required or classify(error) not in {ErrorKind.PERMANENT, ErrorKind.NO_ROOM}:
                raise
        yield


def _stray_files(lake: Lake, table: str, done: Counter[str] | None = None) -> list[Problem]:
    """Files of shards that nobody registered; with `done` they are put aside, and counted."""
    keys = lake.storage.list(table)
    known = set(lake.shards())  # after the files: a shard is registered before it has any
    if stage_of(table).item == "lake":
        known = {LAKE}
    found = []
    for key in keys:
        shard = PurePosixPath(key).stem
        if shard in known and key.endswith(".parquet"):
            continue
        detail = "no shard of that name is registered"
        found.append(Problem("extra", table, shard, key, (), detail))
        if done is not None and lake.storage.exists(key):
            put_aside(lake, key)
            done["files"] += 1
    return found
