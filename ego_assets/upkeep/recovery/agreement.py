"""Brings the ledger into agreement with the lake: what is done, by which attempt, who owns a video.

The files know what was made of each item; the ledger may have been lost, or be a copy from before
they were written. What the lake holds of an attempt that is newer than the ledger's is taken over,
so that nothing is computed again, and the next attempt at an item gets a higher token than any that
is there, whatever the clocks say. Here: one table of one shard. Not here: the whole lake
(`rebuild`, `differences`), damaged files (`audit`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ego_assets.engine.plan import ShardInputs, StageSpec, WorkItem
from resources.lake import Lake, LakeError, Provenance, file_item_id, holdings
from resources.lake.holdings import Tokens, highest_tokens
from resources.ledger import Entry, Ledger
from resources.ledger.adoption import Adoption, FileState, Found
from resources.ledger.contents import Contents, Duplicate
from resources.ledger.states import WAITS_FOR_GPU
from resources.raw.places import RawFileOfShard, files_of

MANIFEST, CLIPS = "video_manifest", "clips"
MOVED_AWAY = "moved away"
"""How the reason of a row begins whose file is gone: it is no duplicate that could take over."""


@dataclass(frozen=True)
class Comparison:
    """How the ledger and the lake differ about a table of a shard.

    newer: items of which the lake holds a later attempt than the ledger knows; missing, stale:
    {item: token} of those that the ledger has a result for, and the lake none, or one of another
    fingerprint; extra: items with rows that are none of the shard, or of another shard by now.
    """

    newer: tuple[str, ...] = ()
    missing: Mapping[str, int] = field(default_factory=dict)
    stale: Mapping[str, int] = field(default_factory=dict)
    extra: tuple[str, ...] = ()

    @property
    def items(self) -> int:
        """How many items the ledger has to be told of."""
        return len({*self.newer, *self.missing, *self.stale})


def compare(
    lake: Lake, ledger: Ledger, table: str, shard: str, without: Collection[str] = ()
) -> Comparison:
    """Compare what the ledger says of a table of a shard with what the lake holds.

    without: items to leave out, whose files are damaged. An attempt that ends meanwhile makes no
    difference: it publishes before it tells the ledger, so the ledger is read first, and again for
    whatever differs. Raises LakeError.
    """
    inputs = ShardInputs(lake, ledger, shard)
    entries = {u: e for u, e in _entries(ledger, table, shard).items() if u not in without}
    wanted = None
    if without:
        held = {*lake.compacted_items(table, shard), *lake.newest_fragments(table, shard)}
        wanted = held - set(without)
    made = lake.provenances(table, shard, wanted)
    elsewhere = Adoption(ledger).tokens(table, set(made) - set(entries))
    known = elsewhere | {u: e.token for u, e in entries.items()}
    belongs = _belongs(inputs, table) if set(made) - set(known) else (lambda _: True)
    later = [u for u, p in made.items() if p.token > known.get(u, -1)]
    results = {u: e for u, e in entries.items() if e.has_result}
    missing = {u: e.token for u, e in results.items() if u not in made}
    stale = {
        u: e.token
        for u, e in results.items()
        if u in made and made[u].fingerprint != e.fingerprint and made[u].token <= e.token
    }
    unknown = set(made) - set(entries)
    if missing or stale or later or unknown:
        again = _entries(ledger, table, shard)
        moved = {u for u in {*entries, *again} if entries.get(u) != again.get(u)}
        moved |= Adoption(ledger).at_work(table, shard)
        missing = {u: t for u, t in missing.items() if u not in moved}
        stale = {u: t for u, t in stale.items() if u not in moved}
        later = [u for u in later if u not in moved]
        unknown -= set(again)
    newer = [u for u in later if u in known or belongs(u)]
    return Comparison(
        newer=tuple(sorted(newer)),
        missing=missing,
        stale=stale,
        extra=tuple(sorted(unknown - set(newer))),
    )


def note_file(lake: Lake, ledger: Ledger, table: str, shard: str) -> None:
    """Remember that the ledger agrees with the compacted file as it is now.

    It does not if it lacks some of its items: it was lost while they were made.
    """
    adoption = Adoption(ledger)
    state = holdings.state(lake, table, shard)
    items = lake.compacted_items(table, shard)
    if items.keys() <= adoption.tokens(table, items).keys():
        note = None if state is None else FileState(state, len(items))
        adoption.note_files({(table, shard): note})


def agree_on_item(lake: Lake, ledger: Ledger, spec: StageSpec, item: WorkItem) -> None:
    """Let the ledger know one item of a stage as the lake does, while the stage goes on."""
    for table in spec.tables:
        made: dict[str, Provenance] = {}
        with suppress(LakeError):  # the end of the stage will say so
            made = lake.provenances(table, spec.shard, items={item.item_id})
        held = {u: p.token for u, p in made.items()}
        tokens = highest_tokens(lake, table, spec.shard, held, spec.operator)
        highest = {item.item_id: tokens[item.item_id]}
        adoption = Adoption(ledger)
        adoption.adopt({table: [_found(table, spec.shard, u, p) for u, p in made.items()]})
        ledger.expect(table, spec.shard, [(item.item_id, item.video_id)], highest)
        adoption.raise_tokens(table, highest)


def agree(
    inputs: ShardInputs, own: Sequence[str], others: Iterable[str] = (), carried: str = ""
) -> tuple[dict[str, int], dict[str, Tokens]]:
    """Take over what the lake holds of tables of a shard and the ledger does not know.

    own: tables of which the ledger is also told the highest tokens; carried: the stage under whose
    name their clips carry state on. Returns {table: items taken over} and {own table: tokens}.
    """
    lake, shard = inputs.lake, inputs.shard
    adoption = Adoption(inputs.ledger)
    found: dict[str, list[Found]] = {}
    tokens: dict[str, Tokens] = {}
    for table in dict.fromkeys([*others, *own]):
        made = _tokens(inputs, table)
        known = adoption.tokens(table, made)
        newer = [u for u, token in made.items() if token > known.get(u, -1)]
        if newer:
            found[table] = results(inputs, table, newer)
        if table in own:
            tokens[table] = highest_tokens(lake, table, shard, made, carried)
    if any(found.values()) and not adoption.is_whole():
        adoption.set_part()  # the rest of the lake is for whoever opens the ledger next
    taken = take_over(inputs, found)
    for table, highest in tokens.items():
        known = adoption.tokens(table, highest.of)
        behind = {u: highest.of[u] for u, token in known.items() if highest.of[u] > token}
        if behind:
            adoption.raise_tokens(table, behind)
    return taken, tokens


def _tokens(inputs: ShardInputs, table: str) -> dict[str, int]:
    """{item: token} of the current rows; of those that can be read, if a file is damaged."""
    try:
        return {u: p.token for u, p in inputs.made(table).items()}
    except LakeError:  # whoever needs the file will say so
        return {}


def take_over(inputs: ShardInputs, found: Mapping[str, Sequence[Found]]) -> dict[str, int]:
    """Enter results of a shard {table: results}, who owns its videos, and what else is to be done
    of these tables.

    Returns {table: items} of the results that were entered.
    """
    if not any(found.values()):
        return {}
    # Results last: whoever is killed before finds them still to be entered.
    if found.get(MANIFEST):
        items = {r.item_id for r in found[MANIFEST]}
        remember_owners(inputs.lake, inputs.ledger, [(inputs, items)])
    enter_waiting(inputs, [table for table, items in found.items() if items])
    entered = Adoption(inputs.ledger).adopt(found)
    return {table: len(items) for table, items in entered.items() if items}


def enter_waiting(inputs: ShardInputs, tables: Iterable[str]) -> None:
    """Enter the items of tables of which the lake holds others: a run was at them, and would else
    not be taken up by a retry."""
    for table in tables:
        left = set(_expected(inputs, table)) - set(_tokens(inputs, table))
        if left:
            videos = {item: _video_of(table, item) for item in left}
            Adoption(inputs.ledger).enter_waiting(table, inputs.shard, videos)


def results(inputs: ShardInputs, table: str, items: Iterable[str] | None = None) -> list[Found]:
    """What the lake holds of items of a table, as the ledger enters it; of all of them by default.

    Items that the tables above say are none of the shard are left out.
    """
    made = inputs.made(table)
    belongs = _belongs(inputs, table)
    chosen = made if items is None else items
    return [_found(table, inputs.shard, u, made[u]) for u in chosen if belongs(u)]


def remember_owners(
    lake: Lake, ledger: Ledger, shards: Iterable[tuple[ShardInputs, Container[str]]]
) -> None:
    """Enter who owns the videos of files (items) of shards, and which of these came too late, as
    the manifests say: by where the files are now, since a move may have been killed before it was
    in the manifest."""
    owners: dict[str, tuple[str, str]] = {}
    tokens: dict[str, int] = {}
    item_of: dict[tuple[str, str], str] = {}
    late = []
    for inputs, items in shards:
        made = inputs.made(MANIFEST)
        uris = {file.item: file.uri for file in inputs.files}
        for item, row in inputs.rows_of_files.items():
            video_id = row["video_id"]
            # A file without a place has lost it to another one, along with its content.
            if item not in items or item not in made or item not in uris or not video_id:
                continue
            token = made[item].token
            if row["accepted"] and token > tokens.get(video_id, -1):
                owners[video_id], tokens[video_id] = (uris[item], inputs.shard), token
                item_of[uris[item], inputs.shard] = item
            elif is_late_copy(row):
                noted_at = _seconds(made[item].created_at) or 0.0
                late.append((Duplicate(item, inputs.shard, noted_at, None), video_id))
    contents = Contents(ledger)
    others = {v: o for v, o in contents.owners(owners).items() if o != owners[v]}
    for shard in {shard for _, shard in others.values()}:
        item_of |= _items_of_places(lake, shard)
    theirs = {v: item_of.get(o) or file_item_id(o[0]) for v, o in others.items()}
    known = Adoption(ledger).tokens(MANIFEST, theirs.values())
    # Of two files the one that got it later has it: the other was gone by then. One file may be
    # known by the place that it had.
    instead = {
        v: other
        for v, other in others.items()
        if theirs[v] == item_of[owners[v]] or known.get(theirs[v], tokens[v]) < tokens[v]
    }
    contents.remember(owners, late, instead)


def _items_of_places(lake: Lake, shard: str) -> dict[tuple[str, str], str]:
    """{(uri, shard): item} of the places that the files of a shard have, and had at first."""
    files: list[RawFileOfShard] = []
    with suppress(LakeError):  # the owner may be of a shard that is not in the lake
        files = files_of(lake, shard)
    entered = {(f.entered_uri, shard): f.item for f in files}
    return entered | {(f.uri, shard): f.item for f in files}


def is_late_copy(row: Mapping[str, Any]) -> bool:
    """Whether a row of the manifest is of a file that is there, with the bytes of another one."""
    detail = row["reject_detail"] or ""
    return row["reject_reason"] == "duplicate" and not detail.startswith(MOVED_AWAY)


def _entries(ledger: Ledger, table: str, shard: str) -> dict[str, Entry]:
    return {e.item_id: e for e in ledger.entries(stage=table, shard=shard)}


def _belongs(inputs: ShardInputs, table: str) -> Callable[[str], bool]:
    """Whether an item is one of the shard, as far as the tables above it can say."""
    if table == MANIFEST:
        return lambda _: True  # the files of a shard never change
    videos: dict[str, bool] = {}
    clips: dict[str, set[str]] = {}
    with suppress(LakeError):  # one that is damaged says nothing
        for video in inputs.rows(MANIFEST):
            if video["video_id"]:
                accepted = videos.get(video["video_id"], False) or video["accepted"]
                videos[video["video_id"]] = accepted
        if table != CLIPS:
            clips = {video_id: set() for video_id in inputs.made(CLIPS)}
            for clip in inputs.rows(CLIPS):
                clips.setdefault(clip["video_id"], set()).add(clip["clip_id"])

    def belongs(item: str) -> bool:
        video_id = item if table == CLIPS else item.rpartition("-")[0]
        if videos and not videos.get(video_id):
            return False
        return video_id not in clips or item in clips[video_id]

    return belongs


def _expected(inputs: ShardInputs, table: str) -> list[str]:
    """The items that a table of a shard is to have, as far as the tables above it can say."""
    try:
        if table == MANIFEST:
            return [f.item for f in inputs.files if f.item not in inputs.rows_of_files]
        accepted = {v["video_id"] for v in inputs.rows(MANIFEST) if v["accepted"]}
        if table == CLIPS:
            return list(accepted)
        return [c["clip_id"] for c in inputs.rows(CLIPS) if c["video_id"] in accepted]
    except LakeError:
        return []


def _video_of(table: str, item: str) -> str | None:
    if table == MANIFEST:
        return None
    return (item if table == CLIPS else item.rpartition("-")[0])[:16] or None


def _found(table: str, shard: str, item: str, made: Provenance) -> Found:
    kind, _, why = made.provisional.partition(": ")
    return Found(
        item_id=item,
        shard=shard,
        video_id=_video_of(table, item),
        fingerprint=made.fingerprint,
        token=made.token,
        attempts=made.attempt,
        worker=made.host,
        run_id=made.run_id,
        finished_at=_seconds(made.created_at),
        provisional=why if kind == WAITS_FOR_GPU else "",
    )


def _seconds(time: str) -> float | None:
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None
