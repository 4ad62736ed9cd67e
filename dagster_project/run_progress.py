"""Tells how far runs are, from the ledger, and why nothing goes on.

Not here: the runs (`runs`), words on a terminal (`terminal`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from dagster_project.run_summary import CLIP_TABLES
from ego_assets.catalog import STAGES_OF_A_SHARD, TABLES
from resources.devices.gpu import find_gpus
from resources.devices.leases import LeaseBook, describe_holders
from resources.ledger import Ledger, State
from resources.ledger.sources import Sources

AWAY_NOTE = (
    "{place} is away: no video is there (is its disk mounted?). What is done of its videos stays, "
    "what is not waits for it, and other folders go on"
)


@dataclass(frozen=True)
class Progress:
    """Where a run stands: units ended and expected (None until it is known), stage by stage.

    note: a sentence for a person, in place of all that: why nothing goes on.
    """

    shard: str = ""
    stage: str = ""
    ended: int = 0
    total: int | None = None
    stages: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    note: str = ""


Tell = Callable[[Progress], None]


class Watch:
    """Tells how shards stand, from the ledger, and why nothing goes on."""

    def __init__(self, ledger: Ledger, tell: Tell | None) -> None:
        self.ledger = ledger
        self.tell = tell
        self.away: dict[str, set[str]] = {}
        self.waits: set[str] = set()
        self.has_gpus = bool(tell and find_gpus())

    def look(self, runs: Mapping[str, str]) -> None:
        """runs: {shard: run} of those that go on. What cannot be told must not end them."""
        if self.tell is None:
            return
        try:
            self._look(self.tell, runs)
        except (OSError, SQLAlchemyError) as error:
            self.tell(Progress(note=f"how far the runs are cannot be told: {error}"))

    def _look(self, tell: Tell, runs: Mapping[str, str]) -> None:
        for shard in runs:
            tell(progress_of(shard, self.ledger.counts([shard])))
            away = Sources(self.ledger).places_away(shard)
            for place in sorted(away - self.away.get(shard, set())):
                tell(Progress(shard, note=AWAY_NOTE.format(place=place)))
            self.away[shard] = away
        if self.has_gpus:
            self._look_at_devices(set(runs.values()))

    def over(self, shard: str) -> None:
        """The shard's run has ended."""
        if self.tell:
            self.tell(progress_of(shard, self.ledger.counts([shard])))

    def _look_at_devices(self, runs: set[str]) -> None:
        """Say once for a run that it waits for devices which others have."""
        assert self.tell is not None
        book = LeaseBook()
        holders = {claim.id: claim for claim in book.holders()}
        if not holders or any(claim.run_id in runs for claim in holders.values()):
            return
        for claim in book.claims():
            if claim.id not in holders and claim.run_id in runs - self.waits:
                self.waits.add(claim.run_id)
                words = describe_holders(book, find_gpus())
                self.tell(Progress(note=f"waits for a GPU: {words}"))


def progress_of(shard: str, counts: dict[str, dict[State, int]]) -> Progress:
    """Progress from the ledger's counts of a shard; a stage to come counts every clip."""
    stages: dict[str, tuple[int, int, int]] = {}
    for table in TABLES:
        mine = Counter(counts.get(table, {}))
        bad = mine[State.FAILED] + mine[State.QUARANTINED] + mine[State.DROPPED]
        stages[table] = (mine[State.DONE], bad, sum(mine.values()))
    ended = sum(done + bad for done, bad, _ in stages.values())
    clips = max(stages[t][2] for t in CLIP_TABLES)
    total = None
    if clips:
        of_clips = clips * len(CLIP_TABLES)
        total = of_clips + sum(stages[t][2] for t in TABLES if t not in CLIP_TABLES)
    of_shard = [t for stage in STAGES_OF_A_SHARD.values() for t in stage.tables]
    current = next((t for t in of_shard if stages[t][0] + stages[t][1] < max(stages[t][2], 1)), "")
    return Progress(shard, current, ended, total, stages)
