"""What the ledger says of a work item: its state, the claims on it, and why one is refused.

Not here: how that changes (`ledger`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

BLOCKED = "Blocked"
"""Error class of an item that waits for another one."""
WAITS_FOR_GPU = "WaitsForGpu"
"""Error class of a pending item whose stage got no GPU. Its fingerprint is that of the result that
was made without one; empty if there is none, or an older one was kept."""

RAW_GONE = "RawGone"
"""Error class of a dropped item whose raw file is gone: it comes back with the file."""


class State(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    DROPPED = "dropped"


class LateAttemptError(RuntimeError):
    """This attempt is no longer the current one: its result must not count."""


class BusyError(RuntimeError):
    """Another live worker has this item."""


@dataclass(frozen=True)
class Attempt:
    """A claim on an item.

    number: counted per fingerprint, from 1. lost: attempts before it that ended without a word,
    together with their whole run (they are not in `number`). token: fencing token; grows with
    every attempt of the item, also when the ledger is lost (a stage that starts tells it the
    highest one in the lake).
    """

    number: int
    token: int
    lost: int = 0


@dataclass(frozen=True)
class Entry:
    """One row of the ledger."""

    state: State
    stage: str
    item_id: str
    shard: str
    video_id: str | None
    fingerprint: str
    attempts: int
    error_class: str | None
    error: str | None
    worker: str | None
    run_id: str | None
    started_at: float | None
    finished_at: float | None
    seconds: float | None
    lost: int
    token: int
    heartbeat_at: float | None
    digest: str | None

    def told(self) -> dict[str, Any]:
        """Return all that there is, under the names of the table's columns."""
        names = {"item_id": "unit_id"}
        return {names.get(name, name): value for name, value in asdict(self).items()}

    @property
    def waits_for_gpu(self) -> bool:
        return self.state is State.PENDING and self.error_class == WAITS_FOR_GPU

    @property
    def has_result(self) -> bool:
        """Whether the lake has rows under this fingerprint, for those who build on them."""
        return self.state is State.DONE or (self.waits_for_gpu and bool(self.fingerprint))
