"""Problems of a lake, as the audit tells them, and where bad files go. Not here: finding them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from resources.lake import Lake

DAMAGED = "_damaged"
"""Where what is taken away goes; a person may delete it."""
FORGOTTEN = "forgotten"
"""Kind of what is there of a video that was forgotten."""


@dataclass(frozen=True)
class Problem:
    """One finding.

    kind: missing (the ledger says done, the lake has no rows), stale (rows of another
    fingerprint), newer (rows of an attempt that the ledger does not know), damaged (bytes are not
    those that were written), unverified (readable, but its checksum is not there),
    breaks_contract, extra (belongs to nothing that is known), forgotten (of a video that was
    forgotten). key: the file, relative to the lake;
    "" if there is none. units: whose rows are concerned.
    """

    kind: str
    table: str
    shard: str
    key: str
    units: tuple[str, ...]
    detail: str

    def __str__(self) -> str:
        where = self.key or (f"{self.table} of shard {self.shard}" if self.shard else "lake")
        units = f" ({', '.join(self.units[:5])}{', …' if len(self.units) > 5 else ''})"
        return f"{self.kind}: {where}{units if self.units else ''}: {self.detail}"


@dataclass(frozen=True)
class Suspicion:
    """What a look came to. check: what is wrong now, None if nothing is; mend: does something about
    it, and counts what. Both are for who has the lock; the first raises ChangedError if it is
    another file by now, which has to be looked at itself."""

    check: Callable[[], Problem | None]
    mend: Callable[[Problem], Counter[str]]


def put_aside(lake: Lake, key: str) -> str:
    """Move a file into the folder of damaged ones, beside what is there already: its key there."""
    target, number = f"{DAMAGED}/{key}", 1
    while lake.storage.exists(target):
        target, number = f"{DAMAGED}/{key}.{number}", number + 1
    lake.storage.move(key, target)
    return target
