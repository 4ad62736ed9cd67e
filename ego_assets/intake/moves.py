"""Raw files that were moved: the same bytes at another place are the same video, and nothing is
computed again.

A file that no shard holds, or that is not what it was, may hold the bytes of one that is not where
it was. Sizes say which may, the state of the file or its SHA-256 says which does. Here: finding
that out, and putting it down in the lake, the ledger and the manifest's row. Not here: when it is
asked (`arrivals`, `sources`, `absence`, `ego run`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby

from ego_assets.engine.plan import ShardInputs
from ego_assets.upkeep.recovery.agreement import agree, remember_owners
from resources.lake import Lake, LakeError, file_unit_id, holdings
from resources.lake.holdings import highest_tokens
from resources.lake.s3.client import s3_errors
from resources.ledger import Ledger, State
from resources.ledger.adoption import Adoption, FileState
from resources.ledger.contents import Contents
from resources.ledger.raw_files import RawFiles, Seen
from resources.ledger.sources import STAGE, Source, Sources
from resources.raw.places import FileLocation, files_of, record
from resources.raw.presence import (
    RawAwayError,
    RawGoneError,
    RawRefusedError,
    RawState,
    neighbours,
)
from resources.raw.reader import (
    RawChangedError,
    RawReader,
    is_remote,
    look,
    path_of,
    uri_of,
)


@dataclass(frozen=True)
class Move:
    """A file that is elsewhere. source: what was known of it; state: of the file where it is."""

    source: Source
    uri: str
    state: RawState


@dataclass
class Moved:
    """What became of moves. again: {shard: units that wait for the file, or were dropped for it};
    removed: files whose place was taken, so that their rows go with the next run of their shard."""

    moves: list[Move] = field(default_factory=list)
    again: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    removed: list[Source] = field(default_factory=list)

    @property
    def shards(self) -> set[str]:
        return {m.source.shard for m in self.moves} | {s.shard for s in self.removed}


class Moves:
    """Finds moved files of a lake. hash_limit: in bytes; a larger file is not read for it."""

    def __init__(self, lake: Lake, ledger: Ledger, hash_limit: float = float("inf")) -> None:
        self.lake = lake
        self.ledger = ledger
        self.sources = Sources(ledger)
        self.contents = Contents(ledger)
        self.hash_limit = hash_limit
        self._reader = RawReader()
        self._hashes: dict[tuple[str, str], str] = {}
        self._lost: dict[str, bool] = {}
        self.left: set[str] = set()
        """Files that there was no time for."""

    # -- finding -------------------------------------------------------------------------------

    def find(
        self,
        files: Mapping[str, int],
        is_late: Callable[[], bool] = lambda: False,
        *,
        are_changed: bool = False,
    ) -> list[Move]:
        """Those of these files ({uri: size in bytes}) that hold the bytes of a known one which are
        no longer at its place.

        What `is_late` leaves no time for is not looked at. are_changed: it is known that they are
        not what they were.
        """
        by_size: dict[int, list[Source]] = defaultdict(list)
        for source in self.sources.of_sizes(files.values()):
            by_size[source.byte_size].append(source)
        found: list[Move] = []
        taken: set[str] = set()
        for uri, own in self._suspects(files, are_changed).items():
            others = [s for s in by_size[files[uri]] if s.unit_id not in taken and s.uri != uri]
            if not others:
                continue  # nothing has to be looked at
            if is_late():
                self.left.add(uri)
                continue
            state = self._look(uri)
            if state is None or any(s.state and s.state == state.text for s in own):
                continue
            if (moved := self._source_of(uri, state, own, others)) is not None:
                taken.add(moved.unit_id)
                found.append(Move(moved, uri, state))
        return found

    def _suspects(self, files: Mapping[str, int], are_changed: bool) -> dict[str, list[Source]]:
        """The files that may not be what is known of their places, and what that is."""
        known: dict[str, list[Source]] = defaultdict(list)
        for source in self.sources.at(files):
            known[source.uri].append(source)
        return {
            uri: known[uri]
            for uri, size in files.items()
            if are_changed or not any(_is_left_alone(s, size) for s in known[uri])
        }

    def _source_of(
        self, uri: str, state: RawState, own: Sequence[Source], others: Sequence[Source]
    ) -> Source | None:
        """Of the others, the known file whose bytes are at `uri` now; None if those of all are
        where they were. own: what is known to be at `uri`."""
        lost = [s for s in others if s.byte_size == state.byte_size and self._is_lost(s)]
        if not lost:
            return None
        # A folder that was renamed leaves its files as they are: nothing has to be read.
        same = [s for s in lost if s.state and s.state == state.text]
        if not same:
            sha256 = self._sha256(uri, state)
            if any(s.sha256 == sha256 for s in own):
                return None  # it was touched, and is what it was
            same = [s for s in lost if s.sha256 == sha256]
        return min(same, key=lambda s: (not self._is_owner(s), s.unit_id), default=None)

    def _is_owner(self, source: Source) -> bool:
        owner = self.contents.owner(source.video_id or "")
        return owner == (source.uri, source.shard)

    def _is_lost(self, source: Source) -> bool:
        """Whether the file at a source's place is not the one that was there."""
        if source.unit_id not in self._lost:
            self._lost[source.unit_id] = self._must_be_lost(source)
        return self._lost[source.unit_id]

    def _must_be_lost(self, source: Source) -> bool:
        try:
            state = look(source.uri)
        except (RawAwayError, RawGoneError, RawRefusedError):
            return True
        except s3_errors():
            return False
        if state.byte_size != source.byte_size:
            return True
        if source.state and source.state == state.text:
            return False
        sha256 = self._sha256(source.uri, state)
        return sha256 is not None and sha256 != source.sha256

    def _look(self, uri: str) -> RawState | None:
        with suppress(RawAwayError, RawGoneError, RawRefusedError, *s3_errors()):
            return look(uri)
        return None

    def _sha256(self, uri: str, state: RawState) -> str | None:
        key = (uri, state.identity)
        if key not in self._hashes and state.byte_size <= self.hash_limit:
            with suppress(OSError, RawChangedError, RawRefusedError, *s3_errors()):
                self._hashes[key] = self._reader.sha256(uri)
        return self._hashes.get(key)

    def is_same(self, source: Source) -> bool | None:
        """Whether a file has the content that it had; None if it is too large to be read for that,
        or cannot be read."""
        state = self._look(source.uri)
        if state is None:
            return None
        if source.state and source.state == state.text:
            return True
        if state.byte_size != source.byte_size:
            return False
        sha256 = self._sha256(source.uri, state)
        if sha256 is None:
            return None
        if sha256 == source.sha256 and state.text:
            self.sources.remember(source.uri, sha256, state.text)
        return sha256 == source.sha256

    def seek(self, source: Source) -> list[Move]:
        """Whether a file that is not found is where it was entered, or was renamed in its folder:
        the very same one, by its inode. A folder that is gone is not looked for: it may come
        back."""
        size = source.byte_size
        files = files_of(self.lake, source.shard)
        entered = [f.entered_uri for f in files if f.unit == source.unit_id]
        found = dict.fromkeys(entered, size)
        if source.state and not is_remote(source.uri):
            found |= self._renamed(source)
        found.pop(source.uri, None)
        return [m for m in self.find(found) if m.source.unit_id == source.unit_id]

    def _renamed(self, source: Source) -> dict[str, int]:
        inode, size = source.state.split(":")[0], source.byte_size
        found = {}
        with suppress(OSError):
            for path in neighbours(path_of(source.uri)):
                stat = path.stat()
                if (str(stat.st_ino), stat.st_size) == (inode, size):
                    found[uri_of(path)] = size
        return found

    # -- putting it down -----------------------------------------------------------------------

    def apply(self, moves: Sequence[Move]) -> Moved:
        """Put moves down: in the lake first, which is the truth of it. The caller has the lake's
        lock `shards`; what somebody else has put down meanwhile stays."""
        moved = Moved()
        for move in moves:
            known = self.sources.find(move.source.unit_id)
            if known is not None and known.uri == move.source.uri:
                moved.moves.append(move)
        self._make_room(moved)
        files = RawFiles(self.ledger)
        olds = [(m.source.uri, m.source.shard) for m in moved.moves]
        news = [(_seen(m), m.source.shard) for m in moved.moves]
        by_shard = sorted(moved.moves, key=lambda m: m.source.shard)
        for shard, group in groupby(by_shard, key=lambda m: m.source.shard):
            batch = list(group)
            there = {m.source.unit_id: FileLocation(m.uri, m.source.sha256 or "") for m in batch}
            record(self.lake, shard, there)
            for move in batch:
                moved.again[shard] += self.sources.move(move.source, move.uri, move.state.text)
            relabel(self.lake, self.ledger, shard)
        files.moved(olds, news)
        return moved

    def _make_room(self, moved: Moved) -> None:
        """Files whose place was taken by one that was moved there are no more."""
        going = {m.source.unit_id for m in moved.moves}
        for source in self.sources.at([m.uri for m in moved.moves]):
            if source.unit_id not in going:
                place = FileLocation(None, source.sha256 or "")
                record(self.lake, source.shard, {source.unit_id: place})
                self.sources.remove(source)
                moved.removed.append(source)


def _is_left_alone(source: Source, byte_size: int) -> bool:
    """Whether the file at a known place is not to be judged yet: nobody has looked into it, or the
    run of its shard looks closer (each object of S3 takes a request)."""
    return source.sha256 is None or (is_remote(source.uri) and source.byte_size == byte_size)


def recognize(lake: Lake, ledger: Ledger, files: Mapping[str, int]) -> Moved:
    """Find the moved ones among files ({uri: size in bytes}), and put that down."""
    enter_all(lake, ledger)
    moves = Moves(lake, ledger)
    found = moves.find(files)
    if not found:
        return Moved()
    with lake.storage.lock("shards"):
        return moves.apply(found)


def enter_all(lake: Lake, ledger: Ledger, is_late: Callable[[], bool] = lambda: False) -> bool:
    """Let the ledger know what the manifests of all shards say of their files: where they are, what
    is in them, and who owns that. Tells if that is all of them.

    A ledger that is a copy from before they were made learns it here, before a file is judged by
    it. Listings tell which shards there is nothing to learn of.
    """
    sources = Sources(ledger)
    known = sources.shards()
    states = _unlearned(lake, ledger)
    for shard in lake.shards():
        if shard in known and shard not in states:
            continue
        if is_late():
            return False
        if shard not in known:
            enter_shard(lake, sources, shard)
        if shard in states:
            _learn(lake, ledger, shard, states[shard])
    return True


_LEARNED = "sources"
"""Of which state of a manifest the ledger has learned, among the states that it agrees with. Not
the agreement of its table: this says nothing about rows that the ledger has and the lake lacks."""


def _unlearned(lake: Lake, ledger: Ledger) -> dict[str, str | None]:
    """{shard: state of its manifest} where that says what the ledger may not know; None: it is not
    compacted."""
    adoption = Adoption(ledger)
    # Fragments first: what is compacted in between is in the file.
    fragments = holdings.fragments(lake, STAGE)
    states = holdings.states(lake, STAGE)
    learned = adoption.file_states([STAGE, _LEARNED])
    found: dict[str, str | None] = {}
    for shard, state in states.items():
        noted = {learned[t, shard].state for t in (STAGE, _LEARNED) if (t, shard) in learned}
        if state not in noted:
            found[shard] = state
    unread = Sources(ledger).unread_shards() if fragments else set()
    known = adoption.tokens(STAGE, {unit for units in fragments.values() for unit in units})
    for shard, units in fragments.items():
        is_newer = any(token > known.get(unit, -1) for unit, token in units.items())
        if is_newer or shard in unread:
            found.setdefault(shard, states.get(shard))
    return found


def _learn(lake: Lake, ledger: Ledger, shard: str, state: str | None) -> None:
    """Take over what a shard's manifest says. state: of its file before that was read."""
    adoption, sources = Adoption(ledger), Sources(ledger)
    inputs = ShardInputs(lake, ledger, shard)
    try:
        made, rows = inputs.made(STAGE), lake.rows_of_files(shard)
    except LakeError:  # who needs the file says so
        return
    known = adoption.tokens(STAGE, made)
    newer = {unit for unit, p in made.items() if p.token > known.get(unit, -1)}
    mine = sources.of_shard(shard)
    agree(inputs, [STAGE])
    unread = {u for u, s in mine.items() if s.sha256 is None and rows.get(u, {}).get("sha256")}
    if unread - newer:  # its attempt had not ended when the ledger was copied
        remember_owners(lake, ledger, [(inputs, unread - newer)])
    for file in inputs.files:
        if (source := mine.get(file.unit)) is None:
            continue
        if source.uri != file.uri:
            sources.move(source, file.uri, "")
        row = rows.get(file.unit)
        if row is None or file.unit not in newer | unread or row["sha256"] == source.sha256:
            continue
        size, sha256 = row["byte_size"], row["sha256"]
        new = replace(source, uri=file.uri, byte_size=size, sha256=sha256, state="", inputs="")
        sources.update([new])
    if state is not None:
        adoption.note_files({(_LEARNED, shard): FileState(state, len(rows))})


def enter_shard(lake: Lake, sources: Sources, shard: str) -> None:
    """Bring the files of a shard into the table of sources, with what its manifest says of them."""
    rows = lake.rows_of_files(shard)
    found = []
    for file in files_of(lake, shard):
        row = rows.get(file.unit, {})
        size = row.get("byte_size", file.byte_size)
        found.append(Source(file.unit, shard, file.uri, size, row.get("sha256")))
    sources.enter(found)


def relabel(lake: Lake, ledger: Ledger, shard: str) -> int:
    """Let the rows of `video_manifest` say where their files are now, and change nothing else.
    Returns how many said something else. While one of them is being made, all are left to the next
    time: if two files swapped places, a shard must not have two rows of one place."""
    places = {f.unit: f.uri for f in files_of(lake, shard)}
    said = {unit: row["uri"] for unit, row in lake.rows_of_files(shard).items()}
    changed = {u: places[u] for u, uri in said.items() if places.get(u, uri) != uri}
    running = {e.unit_id for e in ledger.entries(stage=STAGE, shard=shard, states=[State.RUNNING])}
    if not changed or running & changed.keys():
        return 0
    sources = Sources(ledger)
    made = lake.provenances(STAGE, shard)
    highest = highest_tokens(lake, STAGE, shard, {unit: p.token for unit, p in made.items()})
    rows = {unit: lake.read(STAGE, shard, units=[unit]) for unit in changed}
    for unit, uri in changed.items():
        token = sources.new_token(unit, made[unit].token, highest[unit])
        if token is None:
            continue
        column = rows[unit].schema.get_field_index("uri")
        batch = rows[unit].set_column(column, "uri", [[uri]])
        batch = batch.cast(rows[unit].schema)
        published = lake.publish(STAGE, shard, unit, batch, replace(made[unit], token=token))
        sources.published(unit, token, published.sha256)
    lake.compact(STAGE, shard, places)
    return len(changed)


def _seen(move: Move) -> Seen:
    return Seen(file_unit_id(move.uri), move.uri, move.state.byte_size, move.state.version)
