"""Brings the ledger into agreement with the lake: what is done, by which attempt, who owns a video.

The files know what was made of each unit; the ledger may have been lost, or be a copy from before
they were written. What the lake holds of an attempt that is newer than the ledger's is taken over,
so that nothing is computed again, and the next attempt at a unit gets a higher token than any that
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
from resources.lake import Lake, LakeError, Provenance, file_unit_id, holdings
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

    newer: units of which the lake holds a later attempt than the ledger knows; missing, stale:
    {unit: token} of those that the ledger has a result for, and the lake none, or one of another
    fingerprint; extra: units with rows that are none of the shard, or of another shard by now.
    """

    newer: tuple[str, ...] = ()
    missing: Mapping[str, int] = field(default_factory=dict)
    stale: Mapping[str, int] = field(default_factory=dict)
    extra: tuple[str, ...] = ()

    @property
    def units(self) -> int:
        """How many units the ledger has to be told of."""
        return len({*self.newer, *self.missing, *self.stale})


def compare(
    lake: Lake, ledger: Ledger, table: str, shard: str, without: Collection[str] = ()
) -> Comparison:
    """Compare what the ledger says of a table of a shard with what the lake holds.

    without: units to leave out, whose files are damaged. An attempt that ends meanwhile makes no
    difference: it publishes before it tells the ledger, so the ledger is read first, and again for
    whatever differs. Raises LakeError.
    """
    inputs = ShardInputs(lake, ledger, shard)
    entries = {u: e for u, e in _entries(ledger, table, shard).items() if u not in without}
    wanted = None
    if without:
        held = {*lake.compacted_units(table, shard), *lake.newest_fragments(table, shard)}
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

    It does not if it lacks some of its units: it was lost while they were made.
    """
    adoption = Adoption(ledger)
    state = holdings.state(lake, table, shard)
    units = lake.compacted_units(table, shard)
    if units.keys() <= adoption.tokens(table, units).keys():
        note = None if state is None else FileState(state, len(units))
        adoption.note_files({(table, shard): note})


def agree_on_unit(lake: Lake, ledger: Ledger, spec: StageSpec, unit: WorkItem) -> None:
    """Let the ledger know one unit of a stage as the lake does, while the stage goes on."""
    for table in spec.tables:
        made: dict[str, Provenance] = {}
        with suppress(LakeError):  # the end of the stage will say so
            made = lake.provenances(table, spec.shard, units={unit.unit_id})
        held = {u: p.token for u, p in made.items()}
        tokens = highest_tokens(lake, table, spec.shard, held, spec.operator)
        highest = {unit.unit_id: tokens[unit.unit_id]}
        adoption = Adoption(ledger)
        adoption.adopt({table: [_found(table, spec.shard, u, p) for u, p in made.items()]})
        ledger.expect(table, spec.shard, [(unit.unit_id, unit.video_id)], highest)
        adoption.raise_tokens(table, highest)


def agree(
    inputs: ShardInputs, own: Sequence[str], others: Iterable[str] = (), carried: str = ""
) -> tuple[dict[str, int], dict[str, Tokens]]:
    """Take over what the lake holds of tables of a shard and the ledger does not know.

    own: tables of which the ledger is also told the highest tokens; carried: the stage under whose
    name their clips carry state on. Returns {table: units taken over} and {own table: tokens}.
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
    """{unit: token} of the current rows; of those that can be read, if a file is damaged."""
    try:
        return {u: p.token for u, p in inputs.made(table).items()}
    except LakeError:  # whoever needs the file will say so
        return {}


def take_over(inputs: ShardInputs, found: Mapping[str, Sequence[Found]]) -> dict[str, int]:
    """Enter results of a shard {table: results}, who owns its videos, and what else is to be done
    of these tables.

    Returns {table: units} of the results that were entered.
    """
    if not any(found.values()):
        return {}
    # Results last: whoever is killed before finds them still to be entered.
    if found.get(MANIFEST):
        units = {r.unit_id for r in found[MANIFEST]}
        remember_owners(inputs.lake, inputs.ledger, [(inputs, units)])
    enter_waiting(inputs, [table for table, units in found.items() if units])
    entered = Adoption(inputs.ledger).adopt(found)
    return {table: len(units) for table, units in entered.items() if units}


def enter_waiting(inputs: ShardInputs, tables: Iterable[str]) -> None:
    """Enter the units of tables of which the lake holds others: a run was at them, and would else
    not be taken up by a retry."""
    for table in tables:
        left = set(_expected(inputs, table)) - set(_tokens(inputs, table))
        if left:
            videos = {unit: _video_of(table, unit) for unit in left}
            Adoption(inputs.ledger).enter_waiting(table, inputs.shard, videos)


def results(inputs: ShardInputs, table: str, units: Iterable[str] | None = None) -> list[Found]:
    """What the lake holds of units of a table, as the ledger enters it; of all of them by default.

    Units that the tables above say are none of the shard are left out.
    """
    made = inputs.made(table)
    belongs = _belongs(inputs, table)
    chosen = made if units is None else units
    return [_found(table, inputs.shard, u, made[u]) for u in chosen if belongs(u)]


def remember_owners(
    lake: Lake, ledger: Ledger, shards: Iterable[tuple[ShardInputs, Container[str]]]
) -> None:
    """Enter who owns the videos of files (units) of shards, and which of these came too late, as
    the manifests say: by where the files are now, since a move may have been killed before it was
    in the manifest."""
    owners: dict[str, tuple[str, str]] = {}
    tokens: dict[str, int] = {}
    unit_of: dict[tuple[str, str], str] = {}
    late = []
    for inputs, units in shards:
        made = inputs.made(MANIFEST)
        uris = {file.unit: file.uri for file in inputs.files}
        for unit, row in inputs.rows_of_files.items():
            video_id = row["video_id"]
            # A file without a place has lost it to another one, along with its content.
            if unit not in units or unit not in made or unit not in uris or not video_id:
                continue
            token = made[unit].token
            if row["accepted"] and token > tokens.get(video_id, -1):
                owners[video_id], tokens[video_id] = (uris[unit], inputs.shard), token
                unit_of[uris[unit], inputs.shard] = unit
            elif is_late_copy(row):
                noted_at = _seconds(made[unit].created_at) or 0.0
                late.append((Duplicate(unit, inputs.shard, noted_at, None), video_id))
    contents = Contents(ledger)
    others = {v: o for v, o in contents.owners(owners).items() if o != owners[v]}
    for shard in {shard for _, shard in others.values()}:
        unit_of |= _units_of_places(lake, shard)
    theirs = {v: unit_of.get(o) or file_unit_id(o[0]) for v, o in others.items()}
    known = Adoption(ledger).tokens(MANIFEST, theirs.values())
    # Of two files the one that got it later has it: the other was gone by then. One file may be
    # known by the place that it had.
    instead = {
        v: other
        for v, other in others.items()
        if theirs[v] == unit_of[owners[v]] or known.get(theirs[v], tokens[v]) < tokens[v]
    }
    contents.remember(owners, late, instead)


def _units_of_places(lake: Lake, shard: str) -> dict[tuple[str, str], str]:
    """{(uri, shard): unit} of the places that the files of a shard have, and had at first."""
    files: list[RawFileOfShard] = []
    with suppress(LakeError):  # the owner may be of a shard that is not in the lake
        files = files_of(lake, shard)
    entered = {(f.entered_uri, shard): f.unit for f in files}
    return entered | {(f.uri, shard): f.unit for f in files}


def is_late_copy(row: Mapping[str, Any]) -> bool:
    """Whether a row of the manifest is of a file that is there, with the bytes of another one."""
    detail = row["reject_detail"] or ""
    return row["reject_reason"] == "duplicate" and not detail.startswith(MOVED_AWAY)


def _entries(ledger: Ledger, table: str, shard: str) -> dict[str, Entry]:
    return {e.unit_id: e for e in ledger.entries(stage=table, shard=shard)}


def _belongs(inputs: ShardInputs, table: str) -> Callable[[str], bool]:
    """Whether a unit is one of the shard, as far as the tables above it can say."""
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

    def belongs(unit: str) -> bool:
        video_id = unit if table == CLIPS else unit.rpartition("-")[0]
        if videos and not videos.get(video_id):
            return False
        return video_id not in clips or unit in clips[video_id]

    return belongs


def _expected(inputs: ShardInputs, table: str) -> list[str]:
    """The units that a table of a shard is to have, as far as the tables above it can say."""
    try:
        if table == MANIFEST:
            return [f.unit for f in inputs.files if f.unit not in inputs.rows_of_files]
        accepted = {v["video_id"] for v in inputs.rows(MANIFEST) if v["accepted"]}
        if table == CLIPS:
            return list(accepted)
        return [c["clip_id"] for c in inputs.rows(CLIPS) if c["video_id"] in accepted]
    except LakeError:
        return []


def _video_of(table: str, unit: str) -> str | None:
    if table == MANIFEST:
        return None
    return (unit if table == CLIPS else unit.rpartition("-")[0])[:16] or None


def _found(table: str, shard: str, unit: str, made: Provenance) -> Found:
    kind, _, why = made.provisional.partition(": ")
    return Found(
        unit_id=unit,
        shard=shard,
        video_id=_video_of(table, unit),
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
