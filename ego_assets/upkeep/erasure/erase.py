"""Erases videos: every row, array, picture and earlier version, what the ledger says of them, and
their names. What is left is a tombstone, so that they are not taken in again.

The tombstone is there first, with what is to be erased; each step may be done twice. So whoever is
killed at any point goes on where he was, and so does whoever comes next. Raw files are never
touched. Not here: what there is of a video (`survey`), the proof (`traces`), what Dagster remembers
(the caller has it erased, see `Beyond`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ego_assets.catalog import TABLES, stage_of
from ego_assets.exports.files import IN_LAKE
from ego_assets.exports.grid import ExportError
from ego_assets.feature import LAKE
from ego_assets.galleries.files import FOLDER as GALLERIES
from ego_assets.galleries.files import is_of_video
from ego_assets.intake.links.parts import LinkPart
from ego_assets.intake.links.records import FOLDER as LINKS
from ego_assets.intake.links.records import LinkFiles
from ego_assets.media.pictures import FOLDER as PREVIEWS
from ego_assets.media.pictures import LATEST
from ego_assets.quality.failed import reword_failed
from ego_assets.reviews.store import FOLDER as REVIEWS
from ego_assets.reviews.store import ReviewFiles
from ego_assets.upkeep.erasure.data_sets import erase_data_sets
from ego_assets.upkeep.erasure.survey import Survey, at_work, survey
from ego_assets.upkeep.erasure.traces import find_traces, find_words
from ego_assets.upkeep.problems import DAMAGED
from ego_assets.upkeep.recovery.agreement import note_file
from resources.lake import Lake, LakeError, erasure
from resources.lake.holdings import item_and_token
from resources.lake.storage import is_safe
from resources.ledger import Ledger
from resources.ledger.contents import Contents, Tombstone
from resources.raw import tombstones
from resources.raw.additions import folders_aside
from resources.raw.places import known_files, take_out
from resources.raw.scratch import Scratch, ScratchError
from resources.raw.tombstones import Left
from resources.words import ErasedWords, names_alone

LOCK = "forget"
TEXTS = ("reports", "_baselines", "_choices")
"""Folders with texts that may name a clip or a file."""
LITTER_AGE_S = 86_400.0

Beyond = Callable[[Sequence[str], Sequence[str]], list[str]]
"""Erases words, and pictures of shards, from what is outside of the lake and the ledger. Returns
sentences on what it could not erase."""
Refuse = Callable[[Collection[str]], None]
"""Raises ForgetError if something that the ledger does not know of is at work on these shards."""


class ForgetError(ValueError):
    """It cannot be done now; what was begun goes on when it is asked for again."""


@dataclass
class Erased:
    """What was erased. warnings: sentences on what a person has to do."""

    tombstone: Tombstone
    shards: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)


def forget(
    lake: Lake,
    ledger: Ledger,
    surveys: Iterable[Survey],
    beyond: Beyond,
    reason: str = "",
    refuse: Refuse = lambda shards: None,
) -> list[Erased]:
    """Erase videos, and go on with those whose erasure was interrupted.

    Raises ForgetError while somebody works on one of their shards; nothing was done then, but that
    they are not taken in again.
    """
    wanted = list(surveys)
    refuse_if_at_work(ledger, {shard for each in wanted for shard in each.left.shards}, refuse)
    with lake.storage.lock(LOCK):
        for each in wanted:
            _begin(lake, ledger, each, reason)
        videos = {each.tombstone.video_id for each in wanted}
        known = tombstones.agree(lake, ledger)
        begun = [v for v in known if v in videos or v in tombstones.unfinished(lake, [v])]
        return [_go_on(lake, ledger, video_id, beyond, refuse) for video_id in sorted(begun)]


def resume(
    lake: Lake,
    ledger: Ledger,
    video_ids: Iterable[str],
    beyond: Beyond,
    refuse: Refuse = lambda shards: None,
) -> list[Erased]:
    """Erase what is left, or there again, of videos that have a tombstone. Raises ForgetError."""
    known = Contents(ledger).tombstones()
    found = []
    for video_id in sorted(set(video_ids)):
        tombstone = known.get(video_id)
        if (in_lake := tombstones.read(lake, video_id)) is not None:
            tombstone = in_lake[0]
        if tombstone is not None:
            found.append(survey(lake, ledger, tombstone))
    return forget(lake, ledger, found, beyond, refuse=refuse)


def refuse_if_at_work(ledger: Ledger, shards: Collection[str], refuse: Refuse) -> None:
    """Raises ForgetError if a worker has anything of these shards, or as `refuse` does."""
    refuse(shards)
    for shard, run in at_work(ledger, sorted(shards)).items():
        raise ForgetError(
            f"shard {shard} is being worked on by run {run}: wait for it, or terminate it, and "
            "forget again"
        )


def _begin(lake: Lake, ledger: Ledger, found: Survey, reason: str) -> None:
    """From here on nobody claims work on the video, and whoever comes next goes on."""
    tombstone = replace(found.tombstone, reason=reason) if reason else found.tombstone
    Contents(ledger).bury([tombstone])
    tombstones.write(lake, tombstone, found.left)


def _go_on(lake: Lake, ledger: Ledger, video_id: str, beyond: Beyond, refuse: Refuse) -> Erased:
    known = tombstones.read(lake, video_id)
    assert known is not None
    tombstone = known[0]
    # What was begun by somebody else may have become more, or have no list of its own.
    left = survey(lake, ledger, tombstone).left
    shards = [shard for shard in left.shards if shard in set(lake.shards())]
    refuse_if_at_work(ledger, shards, refuse)
    done = Erased(tombstone, shards)
    for step in _steps(lake, ledger, tombstone, left, shards, done, beyond):
        step()
    tombstones.write(lake, tombstone, None)
    try:
        tombstones.purge(lake, video_id)
    except PermissionError as error:
        done.warnings += [words for words in [str(error)] if words not in done.warnings]
    return done


def _steps(
    lake: Lake,
    ledger: Ledger,
    tombstone: Tombstone,
    left: Left,
    shards: list[str],
    done: Erased,
    beyond: Beyond,
) -> Iterator[Callable[[], None]]:
    """What is to be done, in this order: first what would bring something of it back."""
    video_id = tombstone.video_id
    words = words_of(video_id, left.uris)
    texts = ErasedWords(words)
    of_tables = [
        (table, shard)
        for table in TABLES
        for shard in ([LAKE] if stage_of(table).item == "lake" else shards)
    ]

    def names() -> None:
        with lake.storage.lock("shards"):
            for shard in shards:
                take_out(lake, shard, left.shards[shard])

    def tables() -> None:
        for table, shard in of_tables:
            done.counts += erasure.erase(lake, table, shard, video_id, left.uris)

    def entries() -> None:
        files = [item for items in left.shards.values() for item in items]
        done.counts["entries of the ledger"] += Contents(ledger).erase(video_id, files, left.uris)
        for table, shard in of_tables:
            _requeue(lake, ledger, table, shard)
            note_file(lake, ledger, table, shard)

    def reviews() -> None:
        count = ReviewFiles(lake).erase(video_id, texts.replaced)
        done.counts["reviews"] += count
        links = LinkFiles(lake)
        rows = links.of_video(video_id)
        ids = {row.link_id for row in rows}
        # Rows last: they tell which parts are of the video.
        for folder in folders_aside({*left.uris, *(row.path for row in rows if row.path)}):
            LinkPart.erase(folder, video_id, ids)
        links.erase(ids)
        done.counts["links"] += len(ids)

    def copies() -> None:
        if not tombstone.sha256:
            return
        with suppress(ScratchError):
            if held := Scratch.of_machine().erase(tombstone.sha256):
                done.warnings.append(
                    f"{held} copies in the scratch space are being read: forget again when they "
                    "are not"
                )

    yield names
    yield tables
    yield lambda: _beside(lake, video_id, shards, texts, done)
    yield lambda: done.counts.update(texts=_reword_notes(lake, of_tables, names_alone(words)))
    yield reviews
    yield entries
    yield copies
    yield lambda: done.counts.update(words=ledger.erase_words(words))
    yield lambda: done.warnings.extend(beyond(words, shards))
    yield lambda: _purge(lake, video_id, shards, of_tables, done)
    yield lambda: _prove(lake, ledger, video_id, shards)
    yield lambda: _tell_names(lake, video_id, left.uris, shards, done)


def _requeue(lake: Lake, ledger: Ledger, table: str, shard: str) -> None:
    """Have made again what is of several videos, where it is not compacted and went as a whole."""
    if stage_of(table).item in ("shard", "lake"):
        there = lake.fingerprints(table, shard)
        entries = ledger.entries(stage=table, shard=shard)
        gone = [e.item_id for e in entries if e.has_result and e.item_id not in there]
        ledger.requeue(table, gone, "a video that it was made from was forgotten")


def words_of(video_id: str, uris: Iterable[str]) -> list[str]:
    """The words that name a video, as texts and JSON have them; the longest first."""
    found = {video_id}
    for uri in uris:
        found.add(uri)
        for ascii_only in (True, False):
            once = json.dumps(uri, ensure_ascii=ascii_only)[1:-1]
            found |= {once, json.dumps(once, ensure_ascii=ascii_only)[1:-1]}
    return sorted(found, key=lambda w: (-len(w), w))


def _beside(lake: Lake, video_id: str, shards: list[str], words: ErasedWords, done: Erased) -> None:
    """What lies beside the tables: carried state, pictures, texts, and what was put aside."""
    storage, mine = lake.storage, set(shards)
    exported: list[str] = []
    for key in list(storage.everything()):
        folder = key.partition("/")[0]
        if not is_safe(key):
            done.warnings.append(
                f"the file {key!r} of the lake was not searched, for its name cannot be used: "
                "rename or delete it, and forget again"
            )
        elif _is_carried_of(key, mine, video_id):
            storage.delete(key)
            done.counts["carried states"] += 1
        elif _is_put_aside_of(key, mine, video_id):
            storage.delete(key)
            done.counts["damaged files"] += 1
        elif is_of_video(key, mine, video_id):
            storage.delete(key)
            done.counts["files of galleries"] += 1
        elif folder in TEXTS:
            _reword(lake, key, words, done)
        elif folder == IN_LAKE:
            exported.append(key)
    try:
        for name in erase_data_sets(lake, video_id, exported):
            done.counts["data sets"] += 1
            done.warnings.append(f"{name} was deleted, since it had the video: export it again")
    except ExportError as error:
        raise ForgetError(f"{error}: wait until it is over, and forget again") from error
    for table in TABLES:
        pictures = storage.list(f"{PREVIEWS}/{table}")
        shown = {k: storage.sha256(k) for k in pictures if _stem(k) in mine}
        latest = [k for k in pictures if _stem(k) == LATEST and storage.sha256(k) in shown.values()]
        for key in (*latest, *shown):  # the latest first: it is known by the others
            storage.delete(key)
            done.counts["pictures"] += 1
    storage.sweep_aside(LITTER_AGE_S, grace_s=0.0)


def _is_carried_of(key: str, shards: set[str], video_id: str) -> bool:
    """Whether it is state that was carried from clip to clip of a video."""
    match key.split("/"):
        case ["_carried", _, shard, _] if shard in shards:
            return erasure.is_of(item_and_token(key)[0], video_id)
    return False


def _is_put_aside_of(key: str, shards: set[str], video_id: str) -> bool:
    """Whether it is a damaged file that was put aside, of a shard or of a video, by its name."""
    folder, *parts = key.split("/")
    if folder != DAMAGED or not parts:
        return False
    named = parts[-1].startswith((video_id, *(f"{shard}." for shard in shards)))
    return named or not shards.isdisjoint(parts)


def _stem(key: str) -> str:
    return key.rpartition("/")[2].partition(".")[0]


def _reword(lake: Lake, key: str, words: ErasedWords, done: Erased) -> None:
    with suppress(FileNotFoundError), lake.storage.lock(_lock_of(key)):
        before = lake.storage.read(key).decode(errors="surrogateescape")
        text = words.replaced(before)
        if text != before:
            lake.storage.write(key, text.encode(errors="surrogateescape"))
            done.counts["texts"] += 1


def _reword_notes(lake: Lake, of_tables: Iterable[tuple[str, str]], names: ErasedWords) -> int:
    return sum(reword_failed(lake, table, shard, names) for table, shard in of_tables)


def _lock_of(key: str) -> str:
    """Under which whoever writes the file of a text has it alone."""
    name = key.removesuffix(".json") if key.startswith("_choices/") else key
    return name.replace("/", ".")


def _purge(
    lake: Lake,
    video_id: str,
    shards: list[str],
    of_tables: list[tuple[str, str]],
    done: Erased,
) -> None:
    """Earlier versions of objects, where a bucket keeps them. Of texts all of them: which had it
    cannot be told without reading them."""
    mine = set(shards)
    beside: dict[str, Callable[[str], bool]] = {
        f"{PREVIEWS}/": lambda key: _stem(key) in {*mine, LATEST},
        f"{GALLERIES}/": lambda key: is_of_video(key, mine, video_id),
        f"{DAMAGED}/": lambda key: _is_put_aside_of(key, mine, video_id),
        "_carried/": lambda key: _is_carried_of(key, mine, video_id),
        "_choices/": lambda key: _stem(key) in mine,
    }
    begins = [f"{folder}/" for folder in (REVIEWS, LINKS, *TEXTS) if f"{folder}/" not in beside]
    begins += [f"shards/{shard}.json" for shard in shards]
    begins += [f"_places/{shard}.json" for shard in shards]
    for table, shard in of_tables:
        begins += [f"{table}/{shard}.parquet", f"{table}/_history/{shard}/"]
        begins += [f"{table}/_arrays/{shard}/{video_id}"]
        own = video_id if stage_of(table).item in ("video", "clip") else ""
        begins += [f"{table}/_fragments/{shard}/{own}"]
    try:
        for begin in begins:
            done.counts["earlier versions of objects"] += lake.storage.purge(begin)
        for begin, is_wanted in beside.items():
            done.counts["earlier versions of objects"] += lake.storage.purge(begin, is_wanted)
    except PermissionError as error:
        done.warnings.append(str(error))


def _prove(lake: Lake, ledger: Ledger, video_id: str, shards: list[str]) -> None:
    """Raises ForgetError if anything of the video is there still, in the shards that had it."""
    names = [trace.key for trace in find_traces(lake, {video_id}, [*shards, LAKE])]
    names += [f"the ledger, shard {s}" for s in Contents(ledger).shards_of(video_id)]
    if names:
        raise ForgetError(
            f"something of {video_id} is there again, in {', '.join(names[:5])}: somebody works on "
            "its shard. Forget it again when that is over"
        )


def _tell_names(
    lake: Lake, video_id: str, uris: Collection[str], shards: list[str], done: Erased
) -> None:
    """Say which files name a path of it still: those that nobody but a person may change."""
    known, _ = known_files(lake)
    mine = [uri for uri in uris if uri not in known]  # else another video is there by now
    for key in (
        find_words(lake, ErasedWords(words_of(video_id, mine)), [*shards, LAKE]) if mine else ()
    ):
        done.warnings.append(
            f"{key} names a raw file of it: take the name out, or delete it, and forget again"
        )


__all__ = ["Erased", "ForgetError", "LakeError", "forget", "resume", "words_of"]
