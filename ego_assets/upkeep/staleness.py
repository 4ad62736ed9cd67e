"""What of a lake is stale: done, but by another operator version, settings, weights or inputs than
a run would do it with now.

Here: the fingerprints that a run would plan, compared with those in the ledger; nothing is run and
no raw file is looked at (changed raw files are for `arrivals`). Not here: which settings and
backends hold now (`ego_assets.graph.recipes`), asking for runs (`sensors.stale`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ego_assets.catalog import TABLES
from ego_assets.engine.choices import ChoiceError, Part, share_out
from ego_assets.engine.plan import Group, ShardInputs, WorkItem, digest
from ego_assets.engine.todo import walk
from ego_assets.upkeep.recovery.agreement import results
from resources.lake import Lake, LakeError
from resources.ledger import Ledger, State

_MADE = {State.DONE, State.QUARANTINED}


@dataclass(frozen=True)
class StaleShard:
    """Items that a run would do again, by table. state: of what they are now, and what they would
    be: equal states need one run. problem: why it could not be judged."""

    shard: str
    items: Mapping[str, int]
    state: str
    problem: str = ""


RecipeOf = Callable[[str], Sequence[Sequence[Part]]]


def data_versions(ledger: Ledger, tables: Iterable[str], shard: str) -> dict[str, str]:
    """A version of each table's rows of a shard: the same only if every item was done under the
    same fingerprint."""
    found = {}
    for table in tables:
        done = ledger.entries(stage=table, shard=shard, states=[State.DONE])
        found[table] = digest([(e.item_id, e.fingerprint) for e in done])[:16]
    return found


def find_stale(
    lake: Lake,
    ledger: Ledger,
    recipe_of: RecipeOf,
    shards: Iterable[str],
    by_lake: Container[str] = (),
) -> Iterator[StaleShard]:
    """For each shard in turn what is stale in it (often nothing: no items).

    recipe_of: the stages of a shard as they would run now, in the order of the graph. by_lake:
    shards of which the lake holds later attempts than the ledger knows: the rows count there.
    """
    for shard in shards:
        inputs = ShardInputs(lake, ledger, shard)
        try:
            if shard in by_lake:
                _look_into_lake(inputs)
            yield _look(inputs, recipe_of(shard))
        except (LakeError, ChoiceError) as error:
            yield StaleShard(shard, {}, "", str(error))


def _look_into_lake(inputs: ShardInputs) -> None:
    """Let plans over a shard see, in place of what the ledger says, later attempts in the lake.

    A copy of a ledger knows the tables that had been made by then: items that it does not know are
    of the last one of these, or of those after it.
    """
    tables = list(TABLES)
    last = max((tables.index(t) for t in inputs.entries if t in TABLES), default=0)
    for number, table in enumerate(tables):
        entries = inputs.entries.setdefault(table, {})
        for found in results(inputs, table):
            known = entries.get(found.item_id)
            if (known is None and number >= last) or (known and known.token < found.token):
                entries[found.item_id] = found.entry(table)


def _look(inputs: ShardInputs, recipe: Sequence[Sequence[Part]]) -> StaleShard:
    found = _stale_items(inputs, recipe)
    now = sorted(
        (table, item, inputs.entries[table][item].fingerprint)
        for table, items in found.items()
        for item in items
    )
    made_with = [
        [s.operator, s.backend, s.operator_version, s.weights_hash, s.settings, p.items]
        for parts in recipe
        for p in parts
        for s in [p.spec]
    ]
    counts = {table: len(items) for table, items in found.items() if items}
    return StaleShard(inputs.shard, counts, digest(now, made_with)[:16])


def _stale_items(inputs: ShardInputs, recipe: Sequence[Sequence[Part]]) -> dict[str, set[str]]:
    """{table: items}. What is made from a stale item is stale, too: its inputs will change."""
    found: dict[str, set[str]] = {}
    file_of = inputs.file_of
    gone = {s.item_id for s in inputs.sources.values() if s.is_gone}
    for parts in recipe:
        spec, groups = parts[0].spec, _groups(parts, inputs)
        origins: set[str | None] = set()
        for table in ("video_manifest", "clips", *spec.inputs):
            origins |= found.get(table, set())
        following = {
            u.item_id
            for group in groups
            for u in group.items
            if {u.item_id, u.video_id, file_of.get(u.video_id or "")} & origins
            or (origins and spec.item in ("shard", "lake"))
        }
        found |= {table: set() for table in spec.tables}
        for group in groups:
            if group.items[0].file_id in gone:
                continue  # it cannot be made again: what was made of it stays
            for step in walk(group, spec.tables, inputs.entries, changed=following):
                for entry in step.known if not step.is_over else ():
                    if entry and entry.state in _MADE and entry.fingerprint != step.fingerprint:
                        found[entry.stage].add(entry.item_id)
    return found


def _groups(parts: Sequence[Part], inputs: ShardInputs) -> list[Group]:
    """The takes of a stage, each as it would be made."""
    if parts[0].spec.item != "file":
        return [group for _, groups in share_out(parts, inputs) for group in groups]
    # As it was when it was looked at: no raw file is touched here.
    found = []
    for item, made in inputs.made("video_manifest").items():
        spec = next(p.spec for p in reversed(parts) if not p.items or item in p.items)
        base = spec.digest_of(made.input_hash)
        found.append(Group((WorkItem(item, None, base, made.input_hash, 0.0, 0.0, {}),)))
    return found
