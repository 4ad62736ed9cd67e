"""Raw files while a stage runs: where they are by now, and what becomes of work whose file is not
there.

A place that is away is waited for, and nobody is charged: the takes of other videos go on
meanwhile. A file that is gone for good, or whose place was away for too long, is put down as gone,
and the work on it is dropped until it is back. Not here: the look at a shard before its videos are
worked on (`sources`), the errors of other outages (`outage`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ego_assets.engine.outage import AWAY_S, UNSEEN_S
from ego_assets.engine.plan import StageSpec, WorkItem
from ego_assets.intake.moves import Moves
from ego_assets.intake.sources import GONE_WORDS, gone_detail
from resources.lake import Lake
from resources.lake.s3.client import s3_errors
from resources.ledger import Ledger
from resources.ledger.contents import Contents
from resources.ledger.sources import AWAY, DELETED, HANDED_ON, Source, Sources
from resources.raw.presence import (
    RawAwayError,
    RawGoneError,
    RawMovedError,
    RawRefusedError,
    RawUnreadError,
)
from resources.raw.reader import RawReader, look

AbsentError = RawAwayError | RawGoneError
_ABSENT = (RawAwayError, RawGoneError)


class SourceReader:
    """Reads raw files where they are by now, and makes sure that they are what was hashed."""

    def __init__(self, ledger: Ledger) -> None:
        self.sources = Sources(ledger)
        self.raw = RawReader(memory=self.sources)

    @contextmanager
    def hold(self, unit_id: str, uri: str, sha256: str | None = None) -> Iterator[Path]:
        """As `RawReader.hold` of the file of a unit of `video_manifest`; uri: where it was when
        that was looked up."""
        with self.raw.hold(self.uri_of(unit_id, uri), sha256) as path:
            yield path

    def uri_of(self, unit_id: str, uri: str) -> str:
        known = self.sources.find(unit_id)
        return known.uri if known is not None else uri


def absence_in(error: BaseException) -> AbsentError | None:
    """What an error, or one that led to it, says of a raw file that is not there."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, _ABSENT):
            return seen
        seen = seen.__cause__
    return None


class Absence:
    """The raw files of a stage's units, as far as they are not there."""

    def __init__(self, spec: StageSpec, lake: Lake, ledger: Ledger) -> None:
        self.spec = spec
        self.lake = lake
        self.ledger = ledger
        self.sources = Sources(ledger)
        self.contents = Contents(ledger)
        self._unread: dict[str, float] = {}

    def in_error(self, unit: WorkItem, error: Exception) -> AbsentError | None:
        """As `absence_in`, but for a file that is there and could not be read for too long: then it
        is not its place that is at fault."""
        absent = absence_in(error) if unit.reads_a_file else None
        if isinstance(absent, RawUnreadError):
            since = self._unread.setdefault(unit.file_id, time.monotonic())
            if time.monotonic() - since > AWAY_S:
                return None
        return absent

    def look(self, unit: WorkItem) -> AbsentError | None:
        """Why the file of a unit is not there; None if it is, or if that cannot be said."""
        if not unit.reads_a_file:
            return None
        source = self._source_of(unit)
        try:
            look(source.uri)
        except _ABSENT as error:
            return None if self._is_handed_on(source) else error
        except RawRefusedError:
            return None  # who reads it says so
        except s3_errors():
            return None
        if source.away_until is not None:
            self.sources.seen([source.unit_id])
        return None

    def judge(self, unit: WorkItem, error: AbsentError) -> str:
        """Why the file of a unit is given up; empty: it is to be tried again, for it is to be
        waited for, or it is somewhere else."""
        source = self._source_of(unit)
        if self.sources.find(source.unit_id) is None:
            self.sources.enter([source])
        moves = Moves(self.lake, self.ledger)
        if found := moves.seek(source):
            with self.lake.storage.lock("shards"):
                moves.apply(found)
            return ""
        if isinstance(error, RawUnreadError) or (
            isinstance(error, RawAwayError) and self._is_waited_for(source)
        ):
            return ""
        why = AWAY if isinstance(error, RawAwayError) else DELETED
        detail = gone_detail(source.uri, GONE_WORDS[why])
        if isinstance(error, RawMovedError):
            detail = str(error)
        self.sources.mark_gone(source, why, detail)
        for table in self.spec.tables:
            self.sources.drop(table, unit.unit_id, detail)
        return detail

    def _is_handed_on(self, source: Source) -> bool:
        """Whether its row can be made without it, for another file has its content."""
        if self.spec.item != "file" or source.video_id is None:
            return False
        owner = self.contents.owner(source.video_id)
        mine = (source.uri, source.shard)
        return source.gone_why == HANDED_ON or (owner is not None and owner != mine)

    def _is_waited_for(self, source: Source) -> bool:
        return self.sources.missed(source.unit_id, patience_s=AWAY_S, brief_s=UNSEEN_S) > 0

    def _source_of(self, unit: WorkItem) -> Source:
        known = self.sources.find(unit.file_id)
        if known is not None:
            return known
        video = unit.payload.get("video") or unit.payload
        size, sha256 = video.get("byte_size", 0), video.get("sha256")
        return Source(unit.file_id, self.spec.shard, video["uri"], size, sha256)
