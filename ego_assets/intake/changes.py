"""What became of raw files that are in shards, as the raw-data sensor finds out: touched, moved,
gone, or another content under the old name.

What it tells of that goes into the news, and a shard gets a run where something waits for a file.
Not here: listing, new files and their shards (`arrivals`), the same questions at the beginning of a
run (`sources`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ego_assets.engine.plan import digest
from ego_assets.intake.moves import Moved, Moves
from ego_assets.intake.sources import GONE_WORDS, gone_detail
from resources.lake import Lake
from resources.lake.s3.client import s3_errors
from resources.ledger import Ledger
from resources.ledger.contents import Contents
from resources.ledger.raw_files import (
    MOVED,
    SUPERSEDED,
    News,
    RawFiles,
    RunRequest,
    Seen,
    Waiting,
)
from resources.ledger.sources import DELETED, Source, Sources
from resources.raw.presence import RawAwayError, RawGoneError, RawRefusedError
from resources.raw.reader import look

HASHED_BYTES = 8 * 10**9
"""A larger file is not read while a look goes on: the run of its shard does that."""
MISSED_AT_ONCE = 1000
Late = Callable[[], bool]


@dataclass
class OfShard:
    """What became of files of a shard. other: those that hold another content now; moved: {old uri:
    new uri}; superseded: (uri, shard, videos) of those whose row a run has made again already."""

    other: list[Waiting] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    superseded: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)


class Changes:
    """Of one look. undecided: files that there was no time for; they wait for the next one."""

    def __init__(self, lake: Lake, ledger: Ledger, clock: Callable[[], float]) -> None:
        self.files = RawFiles(ledger)
        self.sources = Sources(ledger)
        self.contents = Contents(ledger)
        self.moves = Moves(lake, ledger, HASHED_BYTES)
        self._clock = clock

    @property
    def undecided(self) -> set[str]:
        return self.moves.left

    def take_up(self, fresh: Sequence[Waiting], is_late: Late) -> dict[str, str]:
        """Find, among new files, known ones that were moved: {old uri: new uri}. The caller has the
        lake's lock `shards`, as with all of these."""
        ready = {w.uri: w for w in fresh}
        known = {s.uri: s for s in self.sources.at(ready)}
        if known:  # of a look or a run that was killed before it had put that down here
            self.files.moved([], [(seen(ready[uri]), s.shard) for uri, s in known.items()])
        sizes = {uri: w.byte_size for uri, w in ready.items() if uri not in known}
        return self._put_down(self.moves.apply(self.moves.find(sizes, is_late)))

    def of_shard(self, shard: str, batch: Sequence[Waiting], is_late: Late) -> OfShard:
        """What became of files that look otherwise than before."""
        sizes = {w.uri: w.byte_size for w in batch}
        moved = self.moves.apply(self.moves.find(sizes, is_late))
        known = {s.uri: s for s in self.sources.at(sizes)}
        there = {m.uri for m in moved.moves}
        found = OfShard(moved=self._put_down(moved))
        for file in batch:
            source = known.get(file.uri)
            if file.uri in there or file.uri in self.undecided:
                continue
            if source is None or source.sha256 is None or source.shard != shard:
                found.other.append(file)
                continue
            is_same = self.moves.is_same(source)
            if is_same is False:
                found.other.append(file)
            else:
                found.superseded += self._keep(source, file, is_same)
        return found

    def _keep(
        self, source: Source, file: Waiting, is_same: bool | None
    ) -> list[tuple[str, str, tuple[str, ...]]]:
        """A file is what it was when a run last read it; None: a run is to find that out. What it
        was before that is let go."""
        shard = source.shard
        units = self.sources.back(source) if source.is_gone else 0
        self.files.moved([], [(seen(file), shard)])
        videos = self.contents.disown(file.uri, keep=source.video_id) if is_same else []
        news = [News(SUPERSEDED, file.uri, shard, ", ".join(videos))] if videos else []
        is_wanted = units > 0 or is_same is None
        self._tell(news, {shard: (file.mark, file.first_seen)} if is_wanted else {})
        return [(file.uri, shard, tuple(videos))] if videos else []

    def _put_down(self, moved: Moved) -> dict[str, str]:
        """Tell of moves, and ask for the runs of what waits for the files."""
        news = [News(MOVED, m.source.uri, m.source.shard, m.uri) for m in moved.moves]
        again = {shard for shard, units in moved.again.items() if units}
        again |= {s.shard for s in moved.removed}
        why = [(m.source.uri, m.uri, m.state.identity) for m in moved.moves]
        self._tell(news, dict.fromkeys(sorted(again), why))
        return {m.source.uri: m.uri for m in moved.moves}

    def _tell(self, news: Sequence[News], wanted: dict[str, Any]) -> None:
        """wanted: {shard that gets a run: why}."""
        if news or wanted:
            runs = [RunRequest(run_key(s, why), s, True, 0) for s, why in wanted.items()]
            self.files.enter([((), run) for run in runs], self._clock(), news)

    def miss(
        self, marks: Collection[int], is_left: Callable[[str], bool] = lambda _: False
    ) -> dict[str, str]:
        """Look at some of the files in shards that were not listed: {uri: why it is gone}, of those
        that nobody was told of. is_left: whether a file is not to be looked at."""
        found = {}
        chosen = random.sample([*marks], min(MISSED_AT_ONCE, len(marks)))
        for uri, shard in self.files.with_marks(chosen):
            if not is_left(uri) and is_gone(uri):
                for source in self.sources.at([uri]):
                    detail = gone_detail(uri, GONE_WORDS[DELETED])
                    if source.shard == shard and self.sources.mark_gone(source, DELETED, detail):
                        found[uri] = detail
        return found


def is_gone(uri: str) -> bool:
    """Whether a file is not there, and its place is."""
    try:
        with suppress(RawAwayError, RawRefusedError, *s3_errors()):
            look(uri)
    except RawGoneError:
        return True
    return False


def run_key(shard: str, *why: Any) -> str:
    """Of a further run of a shard."""
    return f"{shard}:{digest(*why)[:16]}"


def seen(file: Waiting) -> Seen:
    return Seen(file.file_id, file.uri, file.byte_size, file.version)
