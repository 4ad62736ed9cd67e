"""The raw files of a shard before its videos are worked on: each is there as it was hashed, or
changed, moved, away or gone.

What is there as it was costs one look. What only looks different (touched, copied to another disk,
brought back) is hashed once, and keeps all that was made of it; so is each file of which the ledger
does not know in which state it had its content, since it was lost or comes from an older release.
What is not there keeps what was made of it, too; what was not made is dropped until the file is
back. Here: this judgement, which the stage `probe` begins with. Not here: files that go away while
a stage runs (`absence`), the search for moved files (`moves`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from ego_assets.engine.errors import ErrorKind, classify
from ego_assets.engine.outage import AWAY_S, UNSEEN_S
from ego_assets.engine.plan import digest, probe_inputs
from ego_assets.intake.moves import Moves, enter_shard, relabel
from resources.lake import Lake, Provenance
from resources.lake.s3.client import s3_errors
from resources.ledger import Ledger
from resources.ledger.contents import Contents
from resources.ledger.sources import AWAY, DELETED, HANDED_ON, STAGE, Source, Sources
from resources.raw.places import RawFileOfShard, files_of
from resources.raw.presence import (
    RawAwayError,
    RawGoneError,
    RawMovedError,
    RawRefusedError,
    RawState,
    RawUnreadError,
)
from resources.raw.reader import (
    RawChangedError,
    RawReader,
    is_remote,
    look,
    path_of,
)
from resources.raw.sidecars import calibration_state, read_footage_sidecars, sidecar_state

LOOKS_AT_ONCE = 4
GONE_WORDS = {
    DELETED: "not there, though its place is",
    AWAY: "not there, nor is any other video of its folder",
    HANDED_ON: "not there, and another file has its content",
}
BEGINS_NOW = "the chapters of its recording before it are there now"


class SourceStatus(Enum):
    """What was found of a raw file. RESAID: it is as it was, and the file that says whose footage
    it is has changed; UNSURE: it is there, and cannot be compared now."""

    NEW = "new"
    SAME = "same"
    RESAID = "resaid"
    CHANGED = "changed"
    AWAY = "away"
    GONE = "gone"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Judged:
    """A raw file, what was found, and of one that is there its state and what its row is made
    from."""

    file: RawFileOfShard
    status: SourceStatus
    why: str = ""
    state: RawState | None = None
    sidecar: str | None = None
    inputs: str = ""


@dataclass
class Settled:
    """What is new to be told of a shard's raw files: {uri: why it is gone}, {old uri: new uri}."""

    gone: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)


def settle(lake: Lake, ledger: Ledger, shard: str) -> Settled:
    """Look at the raw files of a shard, and put down what is found: for the plan of the stage
    `probe`, and for those who read the files after it."""
    return _Shard(lake, ledger, shard).settle()


def are_as_read(lake: Lake, ledger: Ledger, shard: str) -> bool:
    """Tell whether each raw file of a shard is as it was hashed, or as gone as it was. It is put
    down in which state it was found, so that the next look need not read it."""
    return _Shard(lake, ledger, shard).is_as_read()


def revive(lake: Lake, ledger: Ledger, shard: str | None = None, limit: int = 1000) -> int:
    """Look whether files that were gone are there again, of a shard or of all, and have the work
    done that was dropped for them. Returns how many items."""
    sources = Sources(ledger)
    count = 0
    for source in sources.gone(shard, limit):
        with suppress(RawAwayError, RawGoneError, RawRefusedError, *s3_errors()):
            look(source.uri)
            count += sources.back(source)
    return count


class _Shard:
    def __init__(self, lake: Lake, ledger: Ledger, shard: str) -> None:
        self.lake = lake
        self.ledger = ledger
        self.shard = shard
        self.sources = Sources(ledger)
        self.contents = Contents(ledger)
        self.settled = Settled()
        self.rows: dict[str, dict[str, Any]] = {}
        self.made: dict[str, Provenance] = {}

    def settle(self) -> Settled:
        files = self._enter()
        judged = self._judge(files)
        displaced = {
            j.file.uri: j.state.byte_size
            for j in judged
            if j.status is SourceStatus.CHANGED and not j.why and j.state is not None
        }
        if displaced and self._move(displaced):
            judged = self._judge(self._enter())
        owners = self.contents.owners(row["video_id"] for row in self.rows.values())
        for each in judged:
            self._put_down(each, owners)
        there = [j.file.item for j in judged if j.state is not None]
        self.sources.seen(there)
        relabel(self.lake, self.ledger, self.shard)
        return self.settled

    def is_as_read(self) -> bool:
        judged = self._judge(self._enter())
        known = self.sources.of_shard(self.shard)
        gone = {SourceStatus.GONE, SourceStatus.AWAY}
        for each in judged:
            expected = gone if known[each.file.item].is_gone else {SourceStatus.SAME}
            if each.status not in expected:
                return False
        owners = self.contents.owners(row["video_id"] for row in self.rows.values())
        for each in judged:
            if each.status is SourceStatus.SAME:
                self._put_down(each, owners)
        return True

    def _enter(self) -> list[RawFileOfShard]:
        """The files of the shard, with the table of sources as the lake has it."""
        files = {f.item: f for f in files_of(self.lake, self.shard)}
        known = self.sources.of_shard(self.shard)
        if files.keys() - known.keys():
            enter_shard(self.lake, self.sources, self.shard)
        for item, source in known.items():
            if item not in files:
                self.sources.remove(source)
            elif source.uri != files[item].uri:
                self.sources.move(source, files[item].uri, "")
        self.rows = self.lake.rows_of_files(self.shard)
        self.made = self.lake.provenances(STAGE, self.shard)
        return list(files.values())

    # -- judging -------------------------------------------------------------------------------

    def _judge(self, files: Iterable[RawFileOfShard]) -> list[Judged]:
        known = self.sources.of_shard(self.shard)
        with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="look") as pool:
            return list(pool.map(lambda f: self._judge_one(f, known[f.item]), files))

    def _judge_one(self, file: RawFileOfShard, source: Source) -> Judged:
        try:
            state, sidecar = look_at(file.uri)
        except RawRefusedError as error:
            return self._judge_refused(file, str(error))
        except RawMovedError as error:
            return Judged(file, SourceStatus.GONE, error.strerror or "")
        except RawGoneError:
            return Judged(file, SourceStatus.GONE)
        except RawAwayError as error:
            return Judged(file, SourceStatus.AWAY, error.strerror or "")
        except s3_errors() as error:
            if classify(error) is not ErrorKind.TRANSIENT:
                raise
            return Judged(file, SourceStatus.UNSURE, str(error))
        return self._compare(file, source, state, sidecar)

    def _compare(
        self, file: RawFileOfShard, source: Source, state: RawState, sidecar: str | None
    ) -> Judged:
        """What is to be said of a file that is there."""
        row, made = self.rows.get(file.item), self.made.get(file.item)
        if row is None or made is None:
            inputs = probe_inputs(file.uri)
            return Judged(file, SourceStatus.NEW, "", state, sidecar, inputs)
        try:
            is_same = self._is_same(file, source, state, sidecar, row, made)
            is_said = is_same and _says_it(file, source, sidecar, row)
            begins = self._begins(file, state, sidecar, row) if is_same else ""
        except RawUnreadError as error:  # keeps what it has; who needs it will fail on it
            return Judged(file, SourceStatus.UNSURE, error.strerror or "")
        except (RawAwayError, RawGoneError) as error:
            return Judged(file, SourceStatus.AWAY, error.strerror or "")
        except RawChangedError:
            is_same = False
        except OSError as error:
            return Judged(file, SourceStatus.UNSURE, str(error))
        except s3_errors() as error:
            if classify(error) is not ErrorKind.TRANSIENT:
                raise
            return Judged(file, SourceStatus.UNSURE, str(error))
        if is_same and begins not in ("", made.input_hash):
            return Judged(file, SourceStatus.CHANGED, BEGINS_NOW, state, sidecar, begins)
        if is_same:
            status = SourceStatus.SAME if is_said else SourceStatus.RESAID
            return Judged(file, status, "", state, sidecar, made.input_hash)
        # Not only what `probe_inputs` goes by: other bytes may have the old size and time.
        inputs = digest(probe_inputs(file.uri), state.identity, sidecar)
        return Judged(file, SourceStatus.CHANGED, "", state, sidecar, inputs)

    def _begins(
        self,
        file: RawFileOfShard,
        state: RawState,
        sidecar: str | None,
        row: Mapping[str, Any],
    ) -> str:
        """What the row of a chapter is made from once all chapters before it are there; empty: it
        knows when it begins, or they are not. Whose footage it is changes nothing in that."""
        if not row.get("chapter_index"):
            return ""
        from ego_assets.videos.recordings.chapters import newly_there

        before = newly_there(file.uri, row)
        made_from = (probe_inputs(file.uri), state.identity, calibration_state(sidecar), before)
        return digest(*made_from) if before else ""

    def _judge_refused(self, file: RawFileOfShard, why: str) -> Judged:
        """What is no file by now gets a row that says so, once."""
        inputs = digest(probe_inputs(file.uri), why)
        made = self.made.get(file.item)
        status = SourceStatus.NEW if made is None else SourceStatus.CHANGED
        if made is not None and made.input_hash == inputs:
            status = SourceStatus.SAME
        return Judged(file, status, why, RawState(0, "", ""), None, inputs)

    def _is_same(
        self,
        file: RawFileOfShard,
        source: Source,
        state: RawState,
        sidecar: str | None,
        row: Mapping[str, Any],
        made: Provenance,
    ) -> bool:
        """Whether a file has the content that its row is of. Raises as reading it does."""
        is_known = (source.sha256 or "") == row["sha256"] and source.state != ""
        is_untouched = is_known and source.state == state.text
        if is_untouched and source.sidecar == sidecar:
            return True
        is_as_entered = not source.inputs and any(
            probe_inputs(file.uri, named=uri) == made.input_hash
            for uri in {file.uri, file.entered_uri, row["uri"]}
        )
        # Size and time are all that is known then. Other bytes of a local file may have them, too;
        # one that was too large to be read has nothing else.
        if is_as_entered and (is_remote(file.uri) or not row["sha256"]):
            return True
        if state.byte_size != row["byte_size"] or not row["sha256"]:  # too large to be read
            return False
        reader = RawReader()
        if not is_untouched and reader.sha256(file.uri) != row["sha256"]:
            return False
        if is_as_entered:  # its calibration, too
            return True
        if row["fx_px"] is None:  # a file that was rejected before its camera was looked at
            return row["reject_reason"] != "bad_calibration" or source.sidecar == sidecar
        from ego_assets.videos.calibration.columns import is_calibrated_by

        if not is_remote(file.uri):
            return is_calibrated_by(row, path_of(file.uri))
        with reader.hold(file.uri) as path:
            return is_calibrated_by(row, path)

    # -- putting it down -----------------------------------------------------------------------

    def _move(self, files: Mapping[str, int]) -> bool:
        """Whether files of the shard turn out to be others that were moved there."""
        moves = Moves(self.lake, self.ledger)
        found = moves.find(files, are_changed=True)
        if not found:
            return False
        with self.lake.storage.lock("shards"):
            self._note(moves.apply(found).moves)
        return True

    def _note(self, moves: Iterable[Any]) -> None:
        self.settled.moved |= {m.source.uri: m.uri for m in moves}

    def _put_down(self, judged: Judged, owners: Mapping[str, tuple[str, str]]) -> None:
        source = self.sources.find(judged.file.item)
        if source is None or source.uri != judged.file.uri:
            return  # somebody else has moved it meanwhile
        if judged.state is None:
            if judged.status is not SourceStatus.UNSURE:
                self._absent(source, judged)
            return
        if source.is_gone:
            self.sources.back(source)
        new = replace(source, inputs=judged.inputs)
        row = self.rows.get(judged.file.item)
        if judged.status is SourceStatus.SAME and row is not None:
            new = replace(
                new,
                byte_size=row["byte_size"],
                sha256=row["sha256"],
                state=judged.state.text,
                sidecar=judged.sidecar,
            )
            self._keep_owner(new, row, owners.get(row["video_id"]))
        if judged.status is SourceStatus.RESAID:
            # Its row is made again under the same fingerprint, and what is made of its pictures
            # stays.
            self.ledger.requeue(STAGE, [source.item_id], "what is said of its footage has changed")
        if new != source:
            self.sources.update([new])

    def _absent(self, source: Source, judged: Judged) -> None:
        """A file that is not there: it was moved, it is waited for, or it is gone."""
        moves = Moves(self.lake, self.ledger)
        if found := moves.seek(source):
            with self.lake.storage.lock("shards"):
                self._note(moves.apply(found).moves)
            return
        why = DELETED
        if judged.status is SourceStatus.AWAY:
            why = AWAY
            item = source.item_id
            if self.sources.missed(item, patience_s=AWAY_S, brief_s=UNSEEN_S) > 0:
                return
        words = judged.why if why == DELETED else ""
        detail = f"{source.uri}: {words}" if words else gone_detail(source.uri, GONE_WORDS[why])
        if self.sources.mark_gone(source, why, detail):
            self.settled.gone[source.uri] = detail

    def _keep_owner(
        self, source: Source, row: Mapping[str, Any], owner: tuple[str, str] | None
    ) -> None:
        """A content belongs to the file that has it. A duplicate whose first file has another
        content by now is probed again."""
        if row["accepted"]:
            if owner is None:
                self.contents.claim(row["video_id"], source.uri, self.shard, source.item_id)
        elif row["reject_reason"] == "duplicate" and (
            owner is None or self.contents.let_go(row["video_id"])
        ):
            why = "its first file has another content"
            self.ledger.requeue(STAGE, [source.item_id], why)


def _says_it(
    file: RawFileOfShard, source: Source, sidecar: str | None, row: Mapping[str, Any]
) -> bool:
    """Whether the row of a file says what the file beside it says of the footage. Raises as
    reading that does."""
    from ego_assets.videos.footage.sidecar import REASON, is_described_by

    if row["reject_reason"] not in (None, "duplicate", REASON):
        return True  # it was not looked at
    if source.state and source.sidecar == sidecar:
        return True
    return is_described_by(row, read_footage_sidecars(file.uri))


def look_at(uri: str) -> tuple[RawState, str | None]:
    """The state of a file, and of the files beside it. Raises as `look` does."""
    state, sidecar = look(uri), sidecar_state(uri)
    if not is_remote(uri):
        look(uri)  # what is beside it was not there only if it is there still
    return state, sidecar


def gone_detail(uri: str, why: str) -> str:
    """A sentence for a person."""
    return (
        f"{uri} is {why}: it was deleted or moved away, or its disk is not mounted. What was made "
        "of it stays; what was not is dropped until it is found there again, or elsewhere"
    )
