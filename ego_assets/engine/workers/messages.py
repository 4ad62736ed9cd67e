"""What a worker tells its supervisor over the pipe: plain records. Not here: who does what then."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ego_assets.engine.plan import WorkItem
from resources.ledger import Attempt


@dataclass(frozen=True)
class Started:
    """An item's attempt begins: {table: claim}."""

    item: WorkItem
    attempts: dict[str, Attempt]


@dataclass(frozen=True)
class Progress:
    """An item came further. Of the bytes that it reads: how many there were, and how long storage
    took for them."""

    item_id: str
    byte_count: int = 0
    reading_s: float = 0.0


@dataclass(frozen=True)
class Computed:
    """An item, or what it came to (rows, or an error), waits for those before it: until it is its
    turn, no time counts."""

    item_id: str


@dataclass(frozen=True)
class Publishing:
    """It is its turn."""

    item_id: str


@dataclass(frozen=True)
class TakenOver:
    """Another run has the item by now; this one waits for how that ends, however long.

    why: of one whose rows count for nothing, and nobody had said so.
    """

    item_id: str
    why: str = ""


@dataclass(frozen=True)
class Dropped:
    """What an item came to counts for nothing: the clip before it could not be published."""

    item_id: str


@dataclass(frozen=True)
class Postponed:
    """The group (named by its first item) is to be tried again after a while, behind all others:
    its raw file is not there."""

    group: str


@dataclass(frozen=True)
class Ended:
    """An item ended as done, skipped, failed, quarantined or gone."""

    item_id: str
    state: str
    rows: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    peak_rss_bytes: int = 0


@dataclass(frozen=True)
class Broken:
    """Nothing can be done here at all: the disk is full, or may not be written."""

    reason: str


@dataclass(frozen=True)
class GroupComputed:
    """The lane that had the group (named by its first item) may have another; results of it still
    wait to be published."""

    group: str


@dataclass(frozen=True)
class GroupEnded:
    """All of the group is published, or given up."""

    group: str
