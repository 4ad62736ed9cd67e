"""Every raw file that was ever seen, its shard, and the runs that shards still wait for.

A file is known by its mark, a hash of name, size and version: what a listing shows is compared
with a set of numbers, whatever the files are called. Not here: when a file is complete and which
shard it joins (`ego_assets.intake.arrivals`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any

import sqlalchemy as sa

from resources.ledger.database import Database, T, patient
from resources.ledger.tables import raw_files as _files
from resources.ledger.tables import raw_news as _news
from resources.ledger.tables import run_requests as _requests

_PAGE = 500
SUPERSEDED, REFUSED, GONE, MOVED = "superseded", "refused", "gone", "moved"
FORGOTTEN = "forgotten"
"""Version of a file that is left alone."""


@dataclass(frozen=True)
class Seen:
    """A raw file as a listing showed it. waits: it is yet to be entered into a shard."""

    file_id: str
    uri: str
    byte_size: int
    version: str
    waits: bool = True

    @property
    def mark(self) -> int:
        return mark_of(self.uri, self.byte_size, self.version)


@dataclass(frozen=True)
class Waiting:
    """A file that is new, or (with a shard) has other content than when it was entered.

    duration_s: an estimate; None until somebody looked.
    """

    file_id: str
    uri: str
    byte_size: int
    version: str
    mark: int
    duration_s: float | None
    first_seen: float
    stable_since: float
    shard: str | None


@dataclass(frozen=True)
class RunRequest:
    """A run that a shard needs, or (wants_run=False) a shard that only has to be made known."""

    run_key: str
    shard: str
    wants_run: bool
    priority: int


@dataclass(frozen=True)
class News:
    """What is to be told of a raw file. detail: the videos that it had, or why it is refused."""

    kind: str
    uri: str
    shard: str | None
    detail: str
    id: int = 0


def mark_of(uri: str, byte_size: int, version: str) -> int:
    """64 bits, signed, as databases have them."""
    text = f"{uri}\n{byte_size}\n{version}".encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big", signed=True)


class RawFiles:
    """The raw files and run requests in a ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- files -------------------------------------------------------------------------------

    def marks(self, *, waiting: bool) -> set[int]:
        """Marks of the files that are yet to be entered, or of those that nothing has to be done
        about."""
        which = "waiting" if waiting else "NOT waiting"

        def read(connection: sa.Connection) -> set[int]:
            # The driver's own cursor: these are the queries over everything that is known.
            cursor = connection.connection.cursor()
            cursor.execute(f"SELECT mark FROM raw_files WHERE {which}")
            return set(chain.from_iterable(cursor.fetchall()))

        return self._read(read)

    def waiting(
        self,
        *,
        entered: bool | None = None,
        measured: bool | None = None,
        stable_before: float | None = None,
        not_under: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[Waiting]:
        """The files that are to be entered, those that waited longest first.

        entered: only those that are in a shard (and changed there), or are not; measured: whose
        duration is known, or is not; not_under: leaving out what begins so.
        """
        columns = [_files.c[name] for name in Waiting.__dataclass_fields__]
        query = sa.select(*columns).where(_files.c.waiting.is_(True))
        for wanted, column in ((entered, _files.c.shard), (measured, _files.c.duration_s)):
            if wanted is not None:
                query = query.where(column.is_not(None) if wanted else column.is_(None))
        if stable_before is not None:
            query = query.where(_files.c.stable_since <= stable_before)
        for place in not_under:
            # Not LIKE, which takes small letters for capitals on SQLite.
            query = query.where(sa.func.substr(_files.c.uri, 1, len(place)) != place)
        query = query.order_by(_files.c.first_seen, _files.c.uri).limit(limit)
        return self._read(lambda c: [Waiting(*row) for row in c.execute(query)])

    def with_marks(self, marks: Sequence[int]) -> list[tuple[str, str]]:
        """(uri, shard) of the files in shards that have these marks."""
        chosen = sa.and_(_files.c.mark.in_(marks), _files.c.shard.is_not(None))
        query = sa.select(_files.c.uri, _files.c.shard).where(chosen)
        return self._read(lambda c: [(r.uri, r.shard) for r in c.execute(query)])

    def count_waiting(self) -> int:
        query = sa.select(sa.func.count()).where(_files.c.waiting.is_(True))
        return self._read(lambda c: c.execute(query).scalar_one())

    @patient
    def end_future(self, now: float) -> None:
        """Files that were noted by a clock which was put back since, are noted now."""
        times = (_files.c.stable_since, _files.c.first_seen)
        late = sa.and_(_files.c.waiting.is_(True), sa.or_(*(time > now for time in times)))
        values = {time: sa.case((time > now, now), else_=time) for time in times}
        with self._database.transaction() as connection:
            connection.execute(_files.update().where(late).values(values))

    def note(self, seen: Sequence[Seen], now: float) -> int:
        """Files that are new, or not as they were: they wait from now on. Returns how many.

        The version of a file that came into a shard without this table is taken as it is, and so
        is one that says more than the one that an older release has noted.
        """
        pages = range(0, len(seen), _PAGE)
        return sum(self._note({s.file_id: s for s in seen[p : p + _PAGE]}, now) for p in pages)

    @patient
    def _note(self, page: dict[str, Seen], now: float) -> int:
        ids = _files.c.file_id
        with self._database.transaction() as connection:
            known = {
                row.file_id: row
                for row in connection.execute(sa.select(_files).where(ids.in_(page)))
            }
            new = [_row(s, now) for s in page.values() if s.file_id not in known]
            if new:
                connection.execute(self._database.insert_ignore(_files), new)
            count: int = sum(row["waiting"] for row in new)
            for file_id, row in known.items():
                seen = page[file_id]
                if row.mark == seen.mark:
                    continue
                values = _row(seen, now) | {"shard": row.shard, "duration_s": None}
                is_told_more = not row.version or seen.version.startswith(f"{row.version}:")
                if row.shard and is_told_more and row.byte_size == seen.byte_size:
                    values["waiting"] = row.waiting
                count += values["waiting"]
                values["first_seen"] = row.first_seen if row.waiting else now
                connection.execute(_files.update().where(ids == file_id).values(**values))
            told = {f for f, row in known.items() if row.mark == page[f].mark}
            refused = [s for s in page.values() if not s.waits and s.file_id not in told]
            tell(connection, [News(REFUSED, s.uri, None, s.version) for s in refused])
        return count

    @patient
    def forget(self, file_ids: Iterable[str]) -> None:
        """Files that went away before they were in a shard; those in one wait no more."""
        chosen = _files.c.file_id.in_(list(file_ids))
        with self._database.transaction() as connection:
            connection.execute(_files.delete().where(chosen, _files.c.shard.is_(None)))
            connection.execute(
                _files.update().where(chosen).values(waiting=False, version="gone", mark=0)
            )

    @patient
    def leave_alone(self, seen: Seen) -> None:
        """Nothing is to be done about a file, and its name is not kept: its content was forgotten.
        A listing passes it over as long as it is this one."""
        row = _row(seen, 0.0) | {"uri": "", "byte_size": 0, "version": FORGOTTEN, "waiting": False}
        mine = _files.c.file_id == seen.file_id
        with self._database.transaction() as connection:
            connection.execute(_files.delete().where(mine))
            connection.execute(_files.insert().values(**row))

    def left_alone(self, file_ids: Iterable[str]) -> dict[str, int]:
        """{file_id: mark} of those of these files that are left alone."""
        ids = list(file_ids)
        found: dict[str, int] = {}
        for start in range(0, len(ids), _PAGE):
            mine = sa.and_(
                _files.c.file_id.in_(ids[start : start + _PAGE]), _files.c.version == FORGOTTEN
            )
            found |= self._marks_of(sa.select(_files.c.file_id, _files.c.mark).where(mine))
        return found

    def _marks_of(self, query: sa.Select[Any]) -> dict[str, int]:
        return self._read(lambda c: {r.file_id: r.mark for r in c.execute(query)})

    @patient
    def moved(self, olds: Sequence[tuple[str, str]], news: Sequence[tuple[Seen, str]]) -> None:
        """Files of shards are no longer at `olds` (uri, shard), they are at `news`."""
        with self._database.transaction() as connection:
            for uri, shard in olds:
                old = sa.and_(_files.c.uri == uri, _files.c.shard == shard)
                connection.execute(_files.delete().where(old))
            for seen, shard in news:
                mine = _files.c.file_id == seen.file_id
                row = _row(seen, 0.0) | {"shard": shard, "waiting": False}
                connection.execute(_files.delete().where(mine))
                connection.execute(_files.insert().values(**row))

    @patient
    def measured(self, durations: dict[str, float]) -> None:
        update = _files.update().where(_files.c.file_id == sa.bindparam("file"))
        rows = [{"file": file_id, "duration": d} for file_id, d in durations.items()]
        with self._database.transaction() as connection:
            connection.execute(update.values(duration_s=sa.bindparam("duration")), rows)

    # -- shards ------------------------------------------------------------------------------

    def known_shards(self) -> set[str]:
        query = sa.select(_requests.c.shard).distinct()
        return self._read(lambda c: set(c.execute(query).scalars()))

    @patient
    def enter(
        self,
        batches: Sequence[tuple[Sequence[Seen], RunRequest]],
        now: float,
        news: Sequence[News] = (),
    ) -> None:
        """Files are in shards, these runs are wanted for them, and this is to be told: all of that,
        or nothing.

        A file whose version is not known is one that somebody else entered: it keeps the version
        that was seen, if any was.
        """
        ids = _files.c.file_id
        with self._database.transaction() as connection:
            for files, request in batches:
                for start in range(0, len(files), _PAGE):
                    page = files[start : start + _PAGE]
                    entered = {"shard": request.shard, "waiting": False}
                    rows = [_row(f, now) | entered for f in page]
                    connection.execute(self._database.insert_ignore(_files), rows)
                    chosen = ids.in_([f.file_id for f in page])
                    connection.execute(_files.update().where(chosen).values(entered))
                row = vars(request) | {"created_at": now, "confirmed": False}
                connection.execute(self._database.insert_ignore(_requests), [row])
            tell(connection, news)

    # -- news --------------------------------------------------------------------------------

    def news(self, limit: int) -> list[News]:
        """What is yet to be told, the oldest first."""
        columns = [_news.c[name] for name in News.__dataclass_fields__]
        query = sa.select(*columns).order_by(_news.c.id).limit(limit)
        return self._read(lambda c: [News(*row) for row in c.execute(query)])

    @patient
    def told(self, until: int) -> None:
        """What has an id up to this one was told."""
        with self._database.transaction() as connection:
            connection.execute(_news.delete().where(_news.c.id <= until))

    # -- requests ----------------------------------------------------------------------------

    def open_requests(self, limit: int) -> list[RunRequest]:
        """What is not confirmed yet, longest first."""
        columns = [_requests.c[name] for name in RunRequest.__dataclass_fields__]
        query = sa.select(*columns).where(_requests.c.confirmed.is_(False))
        query = query.order_by(_requests.c.priority.desc(), _requests.c.run_key).limit(limit)
        return self._read(lambda c: [RunRequest(*row) for row in c.execute(query)])

    @patient
    def confirm(self, run_keys: Iterable[str]) -> None:
        """These runs exist: they need not be asked for again."""
        chosen = _requests.c.run_key.in_(list(run_keys))
        with self._database.transaction() as connection:
            connection.execute(_requests.update().where(chosen).values(confirmed=True))

    @patient
    def _read(self, query: Callable[[sa.Connection], T]) -> T:
        with self._database.reading() as connection:
            return query(connection)


def tell(connection: sa.Connection, news: Sequence[News]) -> None:
    """Add to what is to be told, in a transaction of the caller's."""
    rows = [{k: v for k, v in vars(n).items() if k != "id"} for n in news]
    if rows:
        connection.execute(_news.insert(), rows)


def _row(seen: Seen, now: float) -> dict[str, Any]:
    return {
        "file_id": seen.file_id,
        "uri": seen.uri,
        "byte_size": seen.byte_size,
        "version": seen.version,
        "mark": seen.mark if seen.version else 0,
        "first_seen": now,
        "stable_since": now,
        "waiting": seen.waits,
        "shard": None,
    }
