"""What of a lake is stale: done, but by another operator version, settings, weights or inputs than
a run would do it with now.

Here: the fingerprints that a run would plan, compared with those in the ledger; nothing is run and
no raw file is looked at (changed raw files are for `arrivals`). Not here: which settings and
backends hold now (`ego_assets.assets.recipes`), asking for runs (`sensors.stale`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from ego_assets.stages.plan import Group, StageSpec, Unit, chain, digest, plan, probe_base
from resources.lake import Lake, file_unit_id
from resources.ledger import Entry, Ledger, State


@dataclass(frozen=True)
class StaleShard:
    """Units that a run would do again, by table. state: of what they are now, and what they would
    be: equal states need one run."""

    shard: str
    units: Mapping[str, int]
    state: str


def data_versions(ledger: Ledger, tables: Iterable[str], shard: str) -> dict[str, str]:
    """A version of each table's rows of a shard: the same only if every unit was done under the
    same fingerprint."""
    found = {}
    for table in tables:
        done = ledger.entries(stage=table, shard=shard, states=[State.DONE])
        found[table] = digest([(e.unit_id, e.fingerprint) for e in done])[:16]
    return found


def find_stale(
    lake: Lake, ledger: Ledger, specs: Sequence[StageSpec], shards: Iterable[str]
) -> Iterator[StaleShard]:
    """For each shard in turn what is stale in it (often nothing: no units).

    specs: the stages as they would run now, in the order of the graph.
    """
    recipes = [
        [s.task, s.operator, s.backend, s.operator_version, s.weights_hash, s.settings]
        for s in specs
    ]
    for shard in shards:
        entries = ledger.entries(shard=shard)
        once = _LakeOnce(lake.location), _LedgerOnce(ledger.url, entries)
        found = _stale_units(*once, specs, shard)
        now = sorted(
            (e.stage, e.unit_id, e.fingerprint)
            for e in entries
            if e.unit_id in found.get(e.stage, ())
        )
        counts = {table: len(units) for table, units in found.items() if units}
        yield StaleShard(shard, counts, digest(now, recipes)[:16])


def _stale_units(
    lake: Lake, ledger: Ledger, specs: Sequence[StageSpec], shard: str
) -> dict[str, set[str]]:
    """{table: units}. What is made from a stale unit is stale, too: its inputs will change."""
    found: dict[str, set[str]] = {}
    videos = lake.read("video_manifest", shard).to_pylist()
    file_of = {v["video_id"]: file_unit_id(v["uri"]) for v in videos}
    for spec in specs:
        groups = _groups(replace(spec, shard=shard), lake, ledger)
        origins: set[str | None] = set()
        for table in ("video_manifest", "clips", *spec.inputs):
            origins |= found.get(table, set())
        following = {
            u.unit_id
            for group in groups
            for u in group.units
            if {u.unit_id, u.video_id, file_of.get(u.video_id or "")} & origins
        }
        for table in spec.tables:
            entries = {e.unit_id: e for e in ledger.entries(stage=table, shard=shard)}
            found[table] = {u for g in groups for u in _stale_of_group(g, entries, following)}
    return found


def _stale_of_group(
    group: Group, entries: Mapping[str, Entry], following: set[str]
) -> Iterator[str]:
    """As a worker would go through the group (`Lane.run_take`), if all went well."""
    previous: str | None = None
    after_stale = False
    for unit in group.units:
        entry = entries.get(unit.unit_id)
        fingerprint = chain(unit.base_fingerprint, previous)
        is_new = (
            after_stale
            or unit.unit_id in following
            or (entry is not None and entry.fingerprint != fingerprint)
        )
        is_made = entry is not None and entry.state in {State.DONE, State.QUARANTINED}
        is_left_out = entry is not None and (
            entry.state is State.DROPPED or (entry.state is State.QUARANTINED and not is_new)
        )
        if unit.blocked or is_left_out:
            previous, after_stale = None, False
            continue
        if is_made and is_new:
            yield unit.unit_id
        previous, after_stale = fingerprint, is_made and is_new


def _groups(spec: StageSpec, lake: Lake, ledger: Ledger) -> list[Group]:
    if spec.task != "probe":
        return plan(spec, lake, ledger)
    made = lake.provenances("video_manifest", spec.shard)
    return [
        Group((Unit(u, None, probe_base(spec, p.input_hash), p.input_hash, 0.0, 0.0, {}),))
        for u, p in made.items()
    ]


class _LakeOnce(Lake):
    """Reads each table of a shard once, however many stages are planned over it."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._tables: dict[tuple[str, str], pa.Table] = {}
        self._made: dict[tuple[str, str], dict[str, str]] = {}

    def read(self, table: str, shard: str, **chosen: Any) -> pa.Table:
        if chosen:
            return super().read(table, shard, **chosen)
        if (table, shard) not in self._tables:
            self._tables[table, shard] = super().read(table, shard)
        return self._tables[table, shard]

    def fingerprints(self, table: str, shard: str) -> dict[str, str]:
        if (table, shard) not in self._made:
            self._made[table, shard] = super().fingerprints(table, shard)
        return self._made[table, shard]


class _LedgerOnce(Ledger):
    """Answers for one shard from one query."""

    def __init__(self, url: str, rows: Sequence[Entry]) -> None:
        super().__init__(url)
        self._rows = rows

    def entries(
        self,
        *,
        stage: str | None = None,
        shard: str | None = None,
        unit_id: str | None = None,
        states: Iterable[State] | None = None,
        limit: int | None = None,
    ) -> list[Entry]:
        wanted = None if states is None else set(states)
        found = [
            e
            for e in self._rows
            if (stage is None or e.stage == stage)
            and (unit_id is None or e.unit_id == unit_id)
            and (wanted is None or e.state in wanted)
        ]
        return found[:limit]
