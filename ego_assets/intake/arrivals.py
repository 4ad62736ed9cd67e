"""Raw files as they arrive: complete ones join shards.

One look lists the places, compares with what is known, and ends in time: what is left is done by
the next one. The lake's shard files say what is in a shard; the table of raw files is an index of
them that any look mends, so a kill between any two lines neither loses nor doubles a file. A file
that was moved stays in its shard (`moves`), and one that was only touched is what it was. Not here:
when a shard closes (`batches`), Dagster (`sensors.raw_data`), what is in the files (`probe`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from ego_assets.intake.batches import Limits, close_batches
from ego_assets.intake.changes import Changes, is_gone, run_key, seen
from ego_assets.intake.chapters import waiting_shards
from ego_assets.intake.forgotten import pass_over
from ego_assets.intake.headers import HeaderReader
from ego_assets.intake.moves import enter_all
from ego_assets.intake.shards import VIDEO_SUFFIXES, RawFile, describe_file, named, write_shard
from resources.lake import Lake, file_item_id
from resources.lake.s3.client import s3_errors
from resources.ledger import Ledger
from resources.ledger.contents import Contents
from resources.ledger.raw_files import (
    SUPERSEDED,
    News,
    RawFiles,
    RunRequest,
    Seen,
    Waiting,
    mark_of,
)
from resources.raw.places import files_of
from resources.raw.presence import RawAwayError, RawGoneError, RawRefusedError
from resources.raw.reader import RawEntry, is_remote, look, path_of, raw_version, scan_raw, uri_of

PAGE = 1000
SHARDS_AT_ONCE = 50
FILES_AT_ONCE = 10_000
"""That one look puts into shards: a first import comes in pieces, each of which ends in time."""
MANIFEST = "video_manifest"


@dataclass(frozen=True)
class Superseded:
    """A file that was written over: its videos of before have no source any more."""

    uri: str
    shard: str
    videos: tuple[str, ...]


@dataclass
class ScanReport:
    """What one look came to.

    listed, new: files (new ones are also those with other content than before). resume: where the
    next look goes on listing; None if all places were listed. missing: places that are not there.
    moved: {old uri: new uri}; gone: {uri: why}, of files that are in shards. forgotten: new files
    that are passed over, since their content was forgotten.
    """

    listed: int = 0
    new: int = 0
    waiting: int = 0
    shards: list[str] = field(default_factory=list)
    superseded: list[Superseded] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    forgotten: int = 0
    missing: list[str] = field(default_factory=list)
    resume: dict[str, Any] | None = None


class Arrivals:
    """Looks at the raw places of a lake. clock: seconds since 1970."""

    def __init__(
        self,
        lake: Lake,
        ledger: Ledger,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.lake = lake
        self.ledger = ledger
        self.limits = limits
        self.files = RawFiles(ledger)
        self.contents = Contents(ledger)
        self.changes = Changes(lake, ledger, clock)
        self._clock = clock
        self._began = 0.0
        self._listed: set[int] = set()
        self._settled: set[int] = set()
        self._waiting: set[int] = set()
        self._unchanged: set[int] = set()
        self._away: list[str] = []
        self._undecided: set[str] = set()
        """Files that hold, or may hold, a content that was forgotten."""

    def look(
        self, places: Sequence[str], resume: dict[str, Any] | None = None, budget_s: float = 40.0
    ) -> ScanReport:
        """List, note what is new, and put what is complete into shards.

        resume: of the look before. Ends soon after `budget_s`, whatever is left to do.
        """
        self._began = time.monotonic()
        self._unchanged, self._listed, self._away = set(), set(), []
        self.changes = Changes(self.lake, self.ledger, self._clock)
        found = ScanReport()
        self.files.end_future(self._clock())
        # Listing may not use up what entering needs: else nothing would ever be entered.
        self._list(places, resume, budget_s * 0.6, found)
        self._measure(budget_s * 0.8)
        # Who registers by hand and another look take turns here.
        with self.lake.storage.lock("shards"):
            if self._adopt(budget_s):
                self._pass_over_forgotten(budget_s * 0.85, found)
                self._take_up(budget_s * 0.85, found)
                self._reenter(budget_s * 0.9, found)
                self._hand_on(budget_s * 0.95, found)
                self._close(budget_s, found)
                if not found.resume:
                    found.gone = self._miss(bool(resume))
        found.waiting = self.files.count_waiting()
        return found

    # -- looking -----------------------------------------------------------------------------

    def _list(
        self,
        places: Sequence[str],
        resume: dict[str, Any] | None,
        until_s: float,
        found: ScanReport,
    ) -> None:
        self._settled = self.files.marks(waiting=False)
        self._waiting = self.files.marks(waiting=True)
        # Places are named, not counted: a person may change them in between.
        start = places.index(resume["place"]) if resume and resume["place"] in places else 0
        for place in places[start:]:
            after = resume["after"] if resume and place == resume["place"] else ""
            try:
                if (end := self._list_place(place, after, until_s, found)) is not None:
                    found.resume = {"place": place, "after": end}
                    return
            except FileNotFoundError as error:  # an unmounted disk does not stop the others
                self._pass_over(place, str(error), found)
            except s3_errors() as error:  # nor does a bucket that is away, or closed to us
                self._pass_over(place, f"{place}: {error}", found)
            except (OSError, RuntimeError, ValueError) as error:  # nor a name that makes no sense
                self._pass_over(place, f"{place}: {error}", found)

    def _pass_over(self, place: str, why: str, found: ScanReport) -> None:
        """A place that cannot be listed now: its files are left as they are."""
        found.missing.append(why)
        self._away.append(_beginning_of(place))

    def _list_place(self, place: str, after: str, until_s: float, found: ScanReport) -> str | None:
        """Where it had to stop; None if it is through."""
        page: list[RawEntry] = []
        for entry in scan_raw(place, VIDEO_SUFFIXES, after):
            if entry.uri:
                page.append(entry)
            is_late = not entry.uri and self._elapsed() > until_s
            if len(page) == PAGE or is_late:
                self._note(page, found)
                page = []
                if is_late or self._elapsed() > until_s:
                    return entry.position
        self._note(page, found)
        return None

    def _note(self, page: list[RawEntry], found: ScanReport) -> None:
        found.listed += len(page)
        fresh = []
        for entry in page:
            version = entry.refused or entry.version
            mark = mark_of(entry.uri, entry.byte_size, version)
            self._listed.add(mark)
            if mark in self._settled:
                continue
            self._unchanged.add(mark)
            if mark not in self._waiting:
                # A refusal is noted beside the file, which may be in a shard and come back.
                file_id = file_item_id(f"{entry.uri}{' refused' if entry.refused else ''}")
                fresh.append(Seen(file_id, entry.uri, entry.byte_size, version, not entry.refused))
        found.refused |= {s.uri: s.version for s in fresh if not s.waits}
        found.new += self.files.note(fresh, self._clock())

    def _measure(self, until_s: float) -> None:
        """Durations of the files that are complete, which decide how full a shard is."""
        known = self._complete(entered=False, measured=True, limit=FILES_AT_ONCE)
        # Those that wait to be closed come first.
        room = FILES_AT_ONCE - len(known)
        todo = self._complete(measured=False, limit=room) if room else []
        with HeaderReader() as headers:
            for start in range(0, len(todo), 100):
                durations: dict[str, float] = {}
                for file in todo[start : start + 100]:
                    if self._elapsed() > until_s:
                        break
                    described = describe_file(file.uri, file.byte_size, headers.duration_s)
                    durations[file.file_id] = described.duration_s
                if not durations:
                    return
                self.files.measured(durations)

    # -- entering ----------------------------------------------------------------------------

    def _adopt(self, until_s: float) -> bool:
        """Take note of shards that are in the lake and not in the table: somebody else's, or those
        of a look that was killed. Tells if that is all of them."""
        known = self.files.known_shards()
        unknown = [shard for shard in self.lake.shards() if shard not in known]
        for start in range(0, len(unknown), SHARDS_AT_ONCE):
            if self._elapsed() > until_s:
                return False
            page = unknown[start : start + SHARDS_AT_ONCE]
            self.files.enter([self._read_shard(shard) for shard in page], self._clock())
        return enter_all(self.lake, self.ledger, lambda: self._elapsed() > until_s)

    def _read_shard(self, shard: str) -> tuple[list[Seen], RunRequest]:
        content = self.lake.read_shard(shard)
        here = files_of(self.lake, shard)
        files = [Seen(file_item_id(f.uri), f.uri, f.byte_size, "") for f in here]
        priority = round(sum(f["duration_s"] for f in content["files"]))
        name = content.get("wants_run")
        run_key = f"{shard}:{name}" if isinstance(name, str) else shard
        return files, RunRequest(run_key, shard, bool(name), priority)

    def _pass_over_forgotten(self, until_s: float, found: ScanReport) -> None:
        """Files whose content was forgotten enter no shard; a listing then passes them over."""
        ready = self._complete(entered=False, limit=FILES_AT_ONCE)
        sizes = {w.uri: w.byte_size for w in ready}
        passed = pass_over(self.lake, self.ledger, sizes, is_late=lambda: self._elapsed() > until_s)
        self._undecided = passed.undecided | passed.files.keys()
        found.forgotten = len(passed.new)

    def _take_up(self, until_s: float, found: ScanReport) -> None:
        """New files may be known ones that were moved: these stay in their shards."""
        ready = self._complete(entered=False, limit=FILES_AT_ONCE)
        ready = [w for w in ready if w.uri not in self._undecided]
        found.moved |= self.changes.take_up(ready, lambda: self._elapsed() > until_s)

    def _close(self, until_s: float, found: ScanReport) -> None:
        """Close the shards that are full or on time."""
        ready = self._complete(entered=False, measured=True, limit=FILES_AT_ONCE)
        ready = [w for w in ready if w.uri not in self.changes.undecided | self._undecided]
        last = max(self.lake.shards(), default="")
        batches = close_batches(ready, self.limits, self._clock())
        if len(ready) == FILES_AT_ONCE and len(batches) > 1:
            batches.pop()  # it may not be all that goes with it
        for batch in batches:
            if self._elapsed() > until_s:
                return
            if not self._is_unchanged(batch, found):
                continue
            files = [RawFile(w.uri, w.byte_size, w.duration_s or 0.0) for w in batch]
            files = named(sorted(files, key=lambda f: f.uri), self.changes.sources)
            last = write_shard(self.lake, files, wants_run=True, after=last)
            _, request = self._read_shard(last)
            uris = [w.uri for w in batch]
            again = [
                ((), RunRequest(run_key(shard, uris), shard, True, 0))
                for shard in waiting_shards(self.lake, self.ledger, uris)
            ]
            self.files.enter([([seen(w) for w in batch], request), *again], self._clock())
            found.shards.append(last)

    def _reenter(self, until_s: float, found: ScanReport) -> None:
        """Files written over under their name stay in their shard, which runs again: the new
        content is a video of its own, the one before is let go."""
        changed = self._complete(entered=True, limit=FILES_AT_ONCE)
        by_shard = sorted(changed, key=lambda w: (w.shard or "", w.uri))
        for number, (shard, group) in enumerate(groupby(by_shard, lambda w: w.shard)):
            if number and self._elapsed() > until_s:
                return
            batch = list(group)
            if shard is None or not self._is_unchanged(batch, found):
                continue
            changes = self.changes.of_shard(shard, batch, lambda: self._elapsed() > until_s)
            found.moved |= changes.moved
            found.superseded += [Superseded(*old) for old in changes.superseded]
            batch = changes.other
            if not batch:
                continue
            news = []
            for file in batch:
                videos = self.contents.disown(file.uri)
                found.superseded.append(Superseded(file.uri, shard, tuple(videos)))
                news.append(News(SUPERSEDED, file.uri, shard, ", ".join(videos)))
            # An old content may come back: when it was seen tells it from the first time.
            key = run_key(shard, [(w.mark, w.first_seen) for w in batch])
            priority = round(sum(w.duration_s or 0.0 for w in batch))
            request = RunRequest(key, shard, True, priority)
            self.files.enter([([seen(w) for w in batch], request)], self._clock(), news)

    def _hand_on(self, until_s: float, found: ScanReport) -> None:
        """A content whose file is gone, or holds another one by now, goes to its duplicates: their
        rows are made again, and whoever is first has it."""
        for lost in self.contents.duplicates_of_missing(MANIFEST, PAGE):
            if self._elapsed() > until_s:
                return
            uri, shard = lost.owner or ("", "")
            if self._is_away(uri):
                continue
            try:
                if raw_version(uri) is not None:
                    continue
            except s3_errors() as error:  # whether it is gone cannot be said
                found.missing.append(f"{uri}: {error}")
                continue
            if not is_gone(uri):
                continue
            request = RunRequest(run_key(shard, uri, lost.noted_at), shard, True, 0)
            self.files.enter([((), request)], self._clock())
            file_id = self.changes.sources.hand_on(uri, shard) or file_item_id(uri)
            self.ledger.requeue(MANIFEST, [file_id], f"{uri} is gone")
            self.ledger.release(stage=MANIFEST, shard=shard, item_id=file_id)
            self.contents.disown(uri)
        heirs = self.contents.duplicates_without_owner(MANIFEST, PAGE)
        for shard, group in groupby(heirs, lambda d: d.shard):
            batch = list(group)
            key = run_key(shard, [(d.file_id, d.noted_at) for d in batch])
            # The request goes first: an item that waits is asked for by nobody.
            self.files.enter([((), RunRequest(key, shard, True, 0))], self._clock())
            self.ledger.requeue(MANIFEST, [d.file_id for d in batch], "its first file is gone")

    def _complete(self, **which: Any) -> list[Waiting]:
        """Files that have stopped growing, of the places that could be listed."""
        until = self._clock() - self.limits.settle_s
        return self.files.waiting(stable_before=until, not_under=self._away, **which)

    def _miss(self, is_rest: bool) -> dict[str, str]:
        """Files that were not listed and are gone. is_rest: an earlier look has listed some; then
        objects of S3, each of which takes a request, are left to a look that lists all."""

        def is_left(uri: str) -> bool:
            return self._is_away(uri) or (is_rest and is_remote(uri))

        return self.changes.miss(self._settled - self._listed - {0}, is_left)

    def _is_away(self, uri: str) -> bool:
        """Whether it is of a place that could not be listed."""
        return uri.startswith(tuple(self._away))

    def _is_unchanged(self, batch: Sequence[Waiting], found: ScanReport) -> bool:
        """Whether files are as they were noted; those that are not go back to waiting."""
        changed, gone = [], []
        for file in batch:
            if file.mark in self._unchanged:
                continue
            try:
                state = look(file.uri)
            except (RawGoneError, RawRefusedError):  # a listing refuses it by name
                gone.append(file.file_id)
            except RawAwayError as error:
                if file.shard is not None:
                    found.missing.append(str(error))
                    return False
                gone.append(file.file_id)  # it is noted again when it is back
            except s3_errors() as error:  # it is tried again by the next look
                found.missing.append(f"{file.uri}: {error}")
                return False
            else:
                if (state.byte_size, state.version) != (file.byte_size, file.version):
                    changed.append(Seen(file.file_id, file.uri, state.byte_size, state.version))
        self.files.forget(gone)
        self.files.note(changed, self._clock())
        return not (gone or changed)

    def _elapsed(self) -> float:
        return time.monotonic() - self._began


def _beginning_of(place: str) -> str:
    """Of the uris of all that is in a place."""
    if is_remote(place):
        return f"{place.rstrip('/')}/"
    path = path_of(place)
    with suppress(RuntimeError):  # there is no such user
        path = path.expanduser()
    return f"{uri_of(Path(os.path.realpath(path))).rstrip('/')}/"
