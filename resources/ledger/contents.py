"""Which raw file owns a content, and which came too late: the same video is in the lake once. And
which contents are never taken in again, since a person had them forgotten.

Not here: the files themselves and their shards (`raw_files`), what becomes of a duplicate
(`ego_assets.engine.tasks`, `ego_assets.intake.arrivals`), the tombstones in the lake
(`resources.raw.tombstones`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields

import sqlalchemy as sa

from resources.ledger.database import Database, patient
from resources.ledger.states import RAW_GONE, State
from resources.ledger.tables import alerts as _alerts
from resources.ledger.tables import duplicates as _duplicates
from resources.ledger.tables import forgotten as _forgotten
from resources.ledger.tables import raw_files as _files
from resources.ledger.tables import raw_news as _news
from resources.ledger.tables import sources as _sources
from resources.ledger.tables import videos as _videos
from resources.ledger.tables import work as _work

_PAGE = 500
_MANIFEST = "video_manifest"


@dataclass(frozen=True)
class Duplicate:
    """A file that was rejected since `owner` (uri, shard) has its content; None: nobody has now."""

    file_id: str
    shard: str
    noted_at: float
    owner: tuple[str, str] | None


@dataclass(frozen=True)
class Tombstone:
    """A video that was forgotten: its content is never taken in again.

    sha256: of its bytes, hex; empty if they were never read, and video_id is made from its uri.
    forgotten_at: ISO 8601, UTC; reason: as the person gave it.
    """

    video_id: str
    sha256: str
    byte_size: int
    forgotten_at: str
    reason: str = ""


class Contents:
    """The owners of contents in a ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @patient
    def claim(self, video_id: str, uri: str, shard: str, file_id: str) -> tuple[str, str]:
        """The (uri, shard) that owns this content: the first to ask.

        Who does not get it is remembered under its file_id, for when the owner has it no more.
        """
        mine = sa.and_(_duplicates.c.file_id == file_id, _duplicates.c.shard == shard)
        with self._database.transaction() as connection:
            row = {"video_id": video_id, "uri": uri, "shard": shard}
            connection.execute(self._database.insert_ignore(_videos), [row])
            owner = connection.execute(
                sa.select(_videos.c.uri, _videos.c.shard).where(_videos.c.video_id == video_id)
            ).one()
            connection.execute(_duplicates.delete().where(mine))
            if tuple(owner) != (uri, shard):
                lost = {"file_id": file_id, "shard": shard, "video_id": video_id}
                connection.execute(
                    _duplicates.insert().values(noted_at=self._database.now(), **lost)
                )
        return owner.uri, owner.shard

    @patient
    def owner(self, video_id: str) -> tuple[str, str] | None:
        """The (uri, shard) that owns this content, if any does."""
        query = sa.select(_videos.c.uri, _videos.c.shard).where(_videos.c.video_id == video_id)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        return (row.uri, row.shard) if row else None

    @patient
    def owners(self, video_ids: Iterable[str]) -> dict[str, tuple[str, str]]:
        """{video_id: (uri, shard)} of the contents that somebody owns."""
        wanted = sorted(set(video_ids))
        found: dict[str, tuple[str, str]] = {}
        with self._database.reading() as connection:
            for start in range(0, len(wanted), _PAGE):
                named = _videos.c.video_id.in_(wanted[start : start + _PAGE])
                for row in connection.execute(sa.select(_videos).where(named)):
                    found[row.video_id] = (row.uri, row.shard)
        return found

    @patient
    def remember(
        self,
        owners: Mapping[str, tuple[str, str]],
        duplicates: Iterable[tuple[Duplicate, str]] = (),
        instead: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        """Enter owners {video_id: (uri, shard)} where there is none, and duplicates (each with its
        video_id) that are unknown.

        instead: owners that are replaced by these, if they are as they were.
        """
        with self._database.transaction() as connection:
            for video_id, (uri, shard) in (instead or {}).items():
                same = sa.and_(_videos.c.video_id == video_id, _videos.c.uri == uri)
                connection.execute(_videos.delete().where(same, _videos.c.shard == shard))
            rows = [{"video_id": v, "uri": uri, "shard": s} for v, (uri, s) in owners.items()]
            if rows:
                connection.execute(self._database.insert_ignore(_videos), rows)
            lost = [
                {"file_id": d.file_id, "shard": d.shard, "noted_at": d.noted_at, "video_id": v}
                for d, v in duplicates
            ]
            if lost:
                connection.execute(self._database.insert_ignore(_duplicates), lost)

    @patient
    def let_go(self, video_id: str) -> bool:
        """Let go of a content that its owner's file does not have any more. Tells if that is so."""
        of_owner = sa.and_(_sources.c.uri == _videos.c.uri, _sources.c.shard == _videos.c.shard)
        is_other = sa.func.substr(_sources.c.sha256, 1, 16) != _videos.c.video_id
        replaced = sa.exists().where(of_owner, is_other)
        kept = sa.exists().where(of_owner, sa.not_(is_other))
        lost = sa.and_(_videos.c.video_id == video_id, replaced, sa.not_(kept))
        with self._database.transaction() as connection:
            return connection.execute(_videos.delete().where(lost)).rowcount == 1

    @patient
    def duplicates_without_owner(self, stage: str, limit: int) -> list[Duplicate]:
        """Duplicates whose content nobody has any more, and whose item of `stage` is done."""
        is_owned = sa.exists().where(_videos.c.video_id == _duplicates.c.video_id)
        is_done = sa.exists().where(
            _work.c.stage == stage,
            _work.c.item_id == _duplicates.c.file_id,
            _work.c.state == State.DONE,
        )
        query = sa.select(_duplicates).where(~is_owned, is_done).limit(limit)
        query = query.order_by(_duplicates.c.shard, _duplicates.c.file_id)
        with self._database.reading() as connection:
            return [
                Duplicate(r.file_id, r.shard, r.noted_at, None) for r in connection.execute(query)
            ]

    @patient
    def duplicates_of_missing(self, stage: str, limit: int) -> list[Duplicate]:
        """Duplicates whose owner's file some stage did not find. Of `stage`, whose items are files,
        it is not known which of a shard that is."""
        not_found = sa.and_(
            _work.c.state.in_([State.QUARANTINED, State.FAILED, State.DROPPED]),
            _work.c.error_class.in_([RAW_GONE, FileNotFoundError.__name__]),
        )
        videos = sa.select(_work.c.video_id).where(not_found)
        shards = sa.select(_work.c.shard).where(not_found, _work.c.stage == stage)
        query = (
            sa.select(_duplicates, _videos.c.uri, _videos.c.shard.label("of_shard"))
            .join(_videos, _videos.c.video_id == _duplicates.c.video_id)
            .where(sa.or_(_videos.c.video_id.in_(videos), _videos.c.shard.in_(shards)))
            .order_by(_duplicates.c.shard, _duplicates.c.file_id)
        )
        with self._database.reading() as connection:
            return [
                Duplicate(r.file_id, r.shard, r.noted_at, (r.uri, r.of_shard))
                for r in connection.execute(query.limit(limit))
            ]

    @patient
    def disown(self, uri: str, keep: str | None = None) -> list[str]:
        """Let go of the contents that the file at `uri` had before: their video ids.

        Whoever brings one of them again, under any name, then owns it. keep: what it has now.
        """
        mine = sa.and_(_videos.c.uri == uri, _videos.c.video_id != (keep or ""))
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(_videos.c.video_id).where(mine)).scalars().all()
            connection.execute(_videos.delete().where(mine))
        return sorted(found)

    # -- contents that are forgotten -----------------------------------------------------------

    @patient
    def bury(self, tombstones: Iterable[Tombstone]) -> None:
        """Enter contents that are never taken in again; from now on nobody can claim work on them.
        One that is known stays as it is."""
        rows = [vars(t) for t in tombstones]
        with self._database.transaction() as connection:
            if rows:
                connection.execute(self._database.insert_ignore(_forgotten), rows)

    @patient
    def exhume(self, video_id: str) -> None:
        """Take a tombstone back of which nothing was done yet."""
        with self._database.transaction() as connection:
            connection.execute(_forgotten.delete().where(_forgotten.c.video_id == video_id))

    @patient
    def tombstones(self, sizes: Iterable[int] | None = None) -> dict[str, Tombstone]:
        """{video_id: tombstone} of all, or of contents that have one of these sizes in bytes."""
        query = sa.select(*(_forgotten.c[field.name] for field in fields(Tombstone)))
        pages: list[sa.ColumnElement[bool]] = [sa.true()]
        if sizes is not None:
            wanted = sorted(set(sizes))
            starts = range(0, len(wanted), _PAGE)
            pages = [_forgotten.c.byte_size.in_(wanted[s : s + _PAGE]) for s in starts]
        found = {}
        with self._database.reading() as connection:
            for page in pages:
                for row in connection.execute(query.where(page)):
                    found[row.video_id] = Tombstone(*row)
        return found

    @patient
    def is_forgotten(self, video_id: str) -> bool:
        query = sa.select(_forgotten.c.video_id).where(_forgotten.c.video_id == video_id)
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    @patient
    def shards_of(self, video_id: str) -> set[str]:
        """The shards in which the ledger knows anything of a video."""
        queries = [
            sa.select(table.c.shard).where(table.c.video_id == video_id)
            for table in (_work, _videos, _duplicates)
        ]
        own = sa.or_(_work.c.item_id == video_id, _work.c.item_id.startswith(f"{video_id}-"))
        queries.append(sa.select(_work.c.shard).where(own))
        is_it = sa.func.substr(_sources.c.sha256, 1, 16) == video_id
        queries.append(sa.select(_sources.c.shard).where(is_it))
        with self._database.reading() as connection:
            return set(connection.execute(sa.union(*queries)).scalars())

    @patient
    def erase(self, video_id: str, files: Collection[str], uris: Collection[str]) -> int:
        """Delete all entries of a video: of its files (items of video_manifest), its work items,
        and what was seen at its uris. Returns how many. Words in what is left: `erase_words`."""
        of_video = sa.or_(
            _work.c.video_id == video_id,
            _work.c.item_id == video_id,
            _work.c.item_id.startswith(f"{video_id}-"),
            sa.and_(_work.c.stage == _MANIFEST, _work.c.item_id.in_(files)),
        )
        is_it = sa.func.substr(_sources.c.sha256, 1, 16) == video_id
        deletes = [
            _work.delete().where(of_video),
            _videos.delete().where(_videos.c.video_id == video_id),
            _duplicates.delete().where(_duplicates.c.video_id == video_id),
            _sources.delete().where(sa.or_(is_it, _sources.c.item_id.in_(files))),
            _files.delete().where(_files.c.uri.in_(uris)),
            _news.delete().where(_news.c.uri.in_(uris)),
            _alerts.delete().where(
                sa.or_(*(_alerts.c.state.contains(w, autoescape=True) for w in [video_id, *uris]))
            ),
        ]
        with self._database.transaction() as connection:
            return sum(connection.execute(one).rowcount for one in deletes)
