"""Says what is wrong with a shard, as the ledger and the checks have it.

Not here: the failures that a clip is named in, and the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath

from ego_assets import catalog
from ego_assets.galleries.page import Trouble
from ego_assets.quality.failed import failed_checks
from ego_assets.reviews.fingerprints import JUDGED
from resources.lake import Lake
from resources.ledger import Entry, Ledger, State
from resources.ledger.database import without_patience

TABLES = ("video_manifest", *JUDGED["clip"])
"""Tables that galleries show: one is made when these are."""
_FAILED = {State.FAILED: "failed", State.QUARANTINED: "in quarantine", State.DROPPED: "dropped"}


def given_up(ledger: Ledger, shard: str) -> Iterator[tuple[Entry, Trouble]]:
    """Work items of a shard that are not done and are not tried again by themselves."""
    for entry in ledger.entries(states=_FAILED, shard=shard):
        why = (entry.error or "no reason given").split("\n", 1)[0]
        yield entry, Trouble("error", f"{entry.stage} {_FAILED[entry.state]}: {why}")


def of_item(item: str, shard: str, trouble: Trouble) -> Trouble:
    """A trouble that says what it is of, if that is not all of the shard."""
    name = "" if item == shard else f"{PurePath(item).name}: "
    return Trouble(trouble.severity, name + trouble.words)


def of_check(check: Mapping[str, str]) -> Trouble:
    words = f"check {check['check']} of {check['asset']}: {check['reason']}"
    return Trouble(check["severity"], words)


def later_troubles(lake: Lake, ledger: Ledger, shard: str) -> Iterator[Trouble]:
    """What is wrong by now with tables that galleries do not wait for; the ledger is not waited for
    either."""
    later = [table for table in catalog.TABLES if table not in TABLES]
    with without_patience():
        found = list(given_up(ledger, shard))
    yield from (of_item(e.item_id, shard, t) for e, t in found if e.stage in later)
    yield from (of_check(c) for c in failed_checks(lake, later) if c["shard"] == shard)
