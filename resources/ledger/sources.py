"""Where the raw file of each work item of `video_manifest` is, and whether it is the one that was
hashed.

An index: the lake's shards, places and manifests say what is where (`resources.raw.places`), and a
row that is lost costs one hashing of its file. Here also: what becomes of the work on a video whose
file is gone, since that changes together. Not here: looking at files (`resources.raw.reader`), what
follows for a run (`ego_assets.intake.sources`, `ego_assets.intake.absence`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import sqlalchemy as sa

from resources.ledger.database import Database, patient
from resources.ledger.raw_files import GONE, SUPERSEDED, News, tell
from resources.ledger.states import RAW_GONE, State
from resources.ledger.tables import raw_files as _files
from resources.ledger.tables import sources as _sources
from resources.ledger.tables import videos as _videos
from resources.ledger.tables import work as _work

STAGE = "video_manifest"
DELETED, AWAY, HANDED_ON = "deleted", "away", "handed on"
"""Why a file is gone: its neighbours are there; its place was away for too long; and its content
has another file, so that its row is to be made again without it."""
_PAGE = 500


@dataclass(frozen=True)
class Source:
    """The raw file of an item.

    sha256: of its bytes when it was probed; None: it never was. state: in which those bytes were
    read (`RawState.text`); "" if not known. sidecar: as of `sidecar_state`. inputs: hash of what
    its row is, or will be, made from. seen_at, away_until: seconds since 1970; it is waited
    for until then. gone_why: None as long as it is
    there, or may be. is_told: a person has read that it is gone.
    """

    item_id: str
    shard: str
    uri: str
    byte_size: int
    sha256: str | None = None
    state: str = ""
    sidecar: str | None = None
    inputs: str = ""
    seen_at: float | None = None
    away_until: float | None = None
    gone_why: str | None = None
    is_told: bool = False

    @property
    def video_id(self) -> str | None:
        return self.sha256[:16] if self.sha256 else None

    @property
    def is_gone(self) -> bool:
        return self.gone_why is not None


_COLUMNS = [_sources.c[field.name] for field in fields(Source)]


class Sources:
    """The table `sources` in a ledger's database; a `Memory` of raw readers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- looking -------------------------------------------------------------------------------

    def of_shard(self, shard: str) -> dict[str, Source]:
        """{item: source}"""
        return {s.item_id: s for s in self._read(_sources.c.shard == shard)}

    def __contains__(self, item_id: object) -> bool:
        return self.find(str(item_id)) is not None

    def find(self, item_id: str) -> Source | None:
        return next(iter(self._read(_sources.c.item_id == item_id)), None)

    def at(self, uris: Iterable[str]) -> list[Source]:
        """Those whose files are at one of these places."""
        return self._pages(_sources.c.uri, sorted(set(uris)))

    def of_sizes(self, sizes: Iterable[int]) -> list[Source]:
        """Those with one of these sizes in bytes whose content is known."""
        found = self._pages(_sources.c.byte_size, sorted(set(sizes)))
        return [s for s in found if s.sha256]

    def gone(self, shard: str | None = None, limit: int | None = None) -> list[Source]:
        """Those that are gone, of a shard or of all."""
        of_shard = sa.true() if shard is None else _sources.c.shard == shard
        return self._read(sa.and_(_sources.c.gone_why.is_not(None), of_shard), limit)

    def places_away(self, shard: str) -> set[str]:
        """The folders of a shard's files that are away and waited for."""
        waited_for = sa.and_(_sources.c.away_until.is_not(None), _sources.c.gone_why.is_(None))
        found = self._read(sa.and_(waited_for, _sources.c.shard == shard))
        return {s.uri.rpartition("/")[0] for s in found}

    @patient
    def shards(self) -> set[str]:
        """Those whose files are in this table."""
        with self._database.reading() as connection:
            return set(connection.execute(sa.select(_sources.c.shard).distinct()).scalars())

    @patient
    def unread_shards(self) -> set[str]:
        """Those with files into which nobody has looked, as far as this table knows."""
        query = sa.select(_sources.c.shard).where(_sources.c.sha256.is_(None)).distinct()
        with self._database.reading() as connection:
            return set(connection.execute(query).scalars())

    # -- what a reader of files remembers ------------------------------------------------------

    def recall(self, uri: str, sha256: str) -> str | None:
        """As of `Memory`: "" also if the file has another content by now."""
        found = self.at([uri])
        if not found:
            return None
        return next((s.state for s in found if s.sha256 == sha256), "")

    @patient
    def remember(self, uri: str, sha256: str, state: str) -> None:
        mine = sa.and_(_sources.c.uri == uri, _sources.c.sha256 == sha256)
        self._update(mine, state=state, away_until=None, seen_at=self._database.now())

    # -- what was found ------------------------------------------------------------------------

    @patient
    def enter(self, found: Sequence[Source]) -> None:
        """Add those that are not known yet."""
        rows = [vars(s) for s in found]
        with self._database.transaction() as connection:
            for start in range(0, len(rows), _PAGE):
                insert = self._database.insert_ignore(_sources)
                connection.execute(insert, rows[start : start + _PAGE])

    @patient
    def update(self, found: Sequence[Source]) -> None:
        """Put down what was found of files that are there."""
        with self._database.transaction() as connection:
            for source in found:
                values: dict[str, Any] = {
                    name: getattr(source, name)
                    for name in (
                        "shard",
                        "uri",
                        "byte_size",
                        "sha256",
                        "state",
                        "sidecar",
                        "inputs",
                    )
                }
                mine = _sources.c.item_id == source.item_id
                connection.execute(_sources.update().where(mine).values(**values))

    @patient
    def seen(self, items: Sequence[str]) -> None:
        """The files of these items are there."""
        for start in range(0, len(items), _PAGE):
            chosen = _sources.c.item_id.in_(items[start : start + _PAGE])
            there = sa.and_(chosen, _sources.c.gone_why.is_(None))
            self._update(there, away_until=None, seen_at=self._database.now())

    @patient
    def missed(
        self, item_id: str, *, patience_s: float, brief_s: float, recent_s: float = 3600.0
    ) -> float:
        """The file's place is away: for how many seconds it is still to be waited for.

        It counts from when it was first missed: patience_s for a file that was seen in the last
        recent_s, else brief_s. A wait that ended longer ago than recent_s was of a run that never
        came to its end, and says nothing about this absence.
        """
        mine = _sources.c.item_id == item_id
        now = self._database.now()
        age_s = now - sa.func.coalesce(_sources.c.seen_at, 0.0)
        patience = sa.case((age_s < recent_s, patience_s), else_=brief_s)
        until = _sources.c.away_until
        is_new = sa.or_(until.is_(None), until > now + patience_s, until < now - recent_s)
        with self._database.transaction() as connection:
            first = sa.and_(mine, is_new)
            connection.execute(_sources.update().where(first).values(away_until=now + patience))
            query = sa.select(_sources.c.away_until - now, _sources.c.gone_why).where(mine)
            row = connection.execute(query).first()
        return 0.0 if row is None or row[1] is not None else float(row[0])

    @patient
    def probed(self, source: Source) -> None:
        """A file was probed: this is its content now."""
        self.enter([source])
        self.update([source])

    # -- files that are gone, and come back ------------------------------------------------------

    @patient
    def mark_gone(self, source: Source, why: str, detail: str) -> bool:
        """Note that a file is gone, unless it was moved since it was looked for, and drop the work
        that was not done. Tells if that was not known."""
        mine = sa.and_(_sources.c.item_id == source.item_id, _sources.c.uri == source.uri)
        new = sa.and_(mine, _sources.c.gone_why.is_(None))
        with self._database.transaction() as connection:
            known = connection.execute(sa.select(_sources.c.gone_why).where(mine)).first()
            if known is None or known.gone_why == HANDED_ON:
                return False
            gone = _sources.update().where(new).values(gone_why=why, is_told=False)
            is_new = connection.execute(gone).rowcount == 1
            waits = _work.c.state.in_([State.PENDING, State.FAILED, State.QUARANTINED])
            dropped = {"state": State.DROPPED, "error_class": RAW_GONE, "error": detail}
            chosen = sa.and_(self._work_on(connection, source), waits)
            connection.execute(_work.update().where(chosen).values(**dropped))
            if is_new:
                # A listing that shows it again then takes note of it.
                seen = sa.and_(_files.c.uri == source.uri, _files.c.shard == source.shard)
                forget = {"waiting": False, "version": "gone", "mark": 0}
                connection.execute(_files.update().where(seen).values(**forget))
                tell(connection, [News(GONE, source.uri, source.shard, detail)])
        return is_new

    @patient
    def hand_on(self, uri: str, shard: str) -> str | None:
        """The content of a file that is gone goes to another one. Returns its item, if it is
        known."""
        mine = sa.and_(_sources.c.uri == uri, _sources.c.shard == shard)
        with self._database.transaction() as connection:
            item = connection.execute(sa.select(_sources.c.item_id).where(mine)).scalar()
            values = {"gone_why": HANDED_ON, "is_told": True}
            connection.execute(_sources.update().where(mine).values(**values))
        return item

    @patient
    def drop(self, stage: str, item_id: str, detail: str) -> None:
        """An item that cannot be done without the file is dropped, whoever's content it is."""
        waits = _work.c.state.in_([State.PENDING, State.FAILED, State.QUARANTINED])
        chosen = sa.and_(_work.c.stage == stage, _work.c.item_id == item_id, waits)
        with self._database.transaction() as connection:
            dropped = {"state": State.DROPPED, "error_class": RAW_GONE, "error": detail}
            connection.execute(_work.update().where(chosen).values(**dropped))

    @patient
    def back(self, source: Source) -> int:
        """A file is there again: what was dropped for it is to be done. Returns how many items."""
        with self._database.transaction() as connection:
            return self._back(connection, source)

    def _back(self, connection: sa.Connection, source: Source) -> int:
        mine = _sources.c.item_id == source.item_id
        there = {"gone_why": None, "is_told": False, "away_until": None}
        connection.execute(_sources.update().where(mine).values(**there))
        was_dropped = sa.and_(_work.c.state == State.DROPPED, _work.c.error_class == RAW_GONE)
        values: dict[str, Any] = {"state": State.PENDING, "attempts": 0, "lost": 0}
        values |= {"fingerprint": "", "error_class": None, "error": None}
        chosen = sa.and_(self._work_on(connection, source), was_dropped)
        return connection.execute(_work.update().where(chosen).values(**values)).rowcount

    def _work_on(self, connection: sa.Connection, source: Source) -> sa.ColumnElement[bool]:
        """The items that are made from a file: its own, and those of its video, if that is not
        another file's by now."""
        own = sa.and_(_work.c.stage == STAGE, _work.c.item_id == source.item_id)
        if source.video_id is None:
            return own
        query = sa.select(_videos.c.uri, _videos.c.shard).where(
            _videos.c.video_id == source.video_id
        )
        owner = connection.execute(query).first()
        if owner is not None and tuple(owner) != (source.uri, source.shard):
            return sa.false()
        video = sa.and_(_work.c.video_id == source.video_id, _work.c.shard == source.shard)
        return sa.or_(own, video)

    @patient
    def untold(self, shards: Sequence[str]) -> list[tuple[Source, int]]:
        """What is gone of these shards that nobody was told, and how many items were dropped."""
        found, wanted = [], set(shards)
        gone = [s for s in self.gone() if s.shard in wanted and not s.is_told]
        with self._database.reading() as connection:
            for source in sorted(gone, key=lambda s: (s.shard, s.item_id)):
                lost = sa.and_(_work.c.state == State.DROPPED, _work.c.error_class == RAW_GONE)
                chosen = sa.and_(self._work_on(connection, source), lost)
                query = sa.select(sa.func.count()).select_from(_work).where(chosen)
                found.append((source, connection.execute(query).scalar_one()))
        return found

    @patient
    def told(self, items: Sequence[str]) -> None:
        for start in range(0, len(items), _PAGE):
            self._update(_sources.c.item_id.in_(items[start : start + _PAGE]), is_told=True)

    # -- files that are moved ------------------------------------------------------------------

    @patient
    def move(self, source: Source, uri: str, state: str) -> int:
        """The file of an item is elsewhere now, and is its content's owner there if it was before.
        Returns how many items wait for it, with those that were dropped meanwhile."""
        mine = _sources.c.item_id == source.item_id
        owned = sa.and_(
            _videos.c.video_id == source.video_id,
            _videos.c.uri == source.uri,
            _videos.c.shard == source.shard,
        )
        now = self._database.now()
        there = {"uri": uri, "state": state, "seen_at": now}
        with self._database.transaction() as connection:
            connection.execute(_videos.update().where(owned).values(uri=uri))
            connection.execute(_sources.update().where(mine).values(**there))
            moved = replace(source, uri=uri)
            self._back(connection, moved)
            waits = _work.c.state.in_([State.PENDING, State.FAILED])
            chosen = sa.and_(self._work_on(connection, moved), waits)
            query = sa.select(sa.func.count()).select_from(_work).where(chosen)
            return connection.execute(query).scalar_one()

    @patient
    def new_token(self, item_id: str, rows: int = 0, above: int = 0) -> int | None:
        """A fencing token for rows of an item that are published again as they are, but for where
        its file is; None while a worker has the item.

        rows: the token that they have; above: the highest one that the lake knows of the item. A
        ledger that is older than the rows keeps the token that it has: it is to take them over.
        """
        mine = sa.and_(_work.c.stage == STAGE, _work.c.item_id == item_id)
        least = max(above + 1, int(time.time() * 1000))
        with self._database.transaction() as connection:
            row = connection.execute(
                sa.select(_work.c.state, _work.c.token).where(mine).with_for_update()
            ).first()
            if row is None:
                return least
            if row.state == State.RUNNING:
                return None
            token: int = max(row.token + 1, least)
            if row.token >= rows:
                connection.execute(_work.update().where(mine).values(token=token, digest=None))
        return token

    @patient
    def published(self, item_id: str, token: int, digest: str) -> None:
        """These rows were published. digest: SHA-256 of their file, hex."""
        mine = sa.and_(_work.c.stage == STAGE, _work.c.item_id == item_id)
        with self._database.transaction() as connection:
            done = sa.and_(mine, _work.c.token == token, _work.c.state == State.DONE)
            connection.execute(_work.update().where(done).values(digest=digest))

    @patient
    def remove(self, source: Source) -> None:
        """Another file of the lake has the place of this one, whose content is nowhere any more."""
        lost = sa.and_(_videos.c.uri == source.uri, _videos.c.video_id == source.video_id)
        with self._database.transaction() as connection:
            connection.execute(_sources.delete().where(_sources.c.item_id == source.item_id))
            connection.execute(_videos.delete().where(lost))
            words = source.video_id or ""
            tell(connection, [News(SUPERSEDED, source.uri, source.shard, words)])

    # -- inside --------------------------------------------------------------------------------

    @patient
    def _read(self, where: sa.ColumnElement[bool], limit: int | None = None) -> list[Source]:
        query = sa.select(*_COLUMNS).where(where).order_by(_sources.c.item_id).limit(limit)
        with self._database.reading() as connection:
            return [Source(*row) for row in connection.execute(query)]

    def _pages(self, column: sa.ColumnElement[Any], values: Sequence[Any]) -> list[Source]:
        pages = (values[start : start + _PAGE] for start in range(0, len(values), _PAGE))
        return [source for page in pages for source in self._read(column.in_(page))]

    def _update(self, chosen: sa.ColumnElement[bool], **values: Any) -> None:
        with self._database.transaction() as connection:
            connection.execute(_sources.update().where(chosen).values(**values))
