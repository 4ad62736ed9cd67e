"""Making what an earlier run made current again: tables from the lake's history, and the ledger.

Here: the change itself, table by table. Not here: which versions are kept (`resources.lake`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ego_assets.catalog import TABLES
from ego_assets.engine.choices import Choices
from ego_assets.engine.plan import ShardInputs
from ego_assets.upkeep.recovery.agreement import agree, note_file
from resources.lake import Lake, Provenance, compaction, history
from resources.ledger import Ledger, State


class RollbackError(ValueError):
    """It cannot be done, or not now; nothing has been changed. The message says why."""


@dataclass(frozen=True)
class Change:
    """One table of one shard that is as `run_id` left it: brought back, or as it was already."""

    table: str
    shard: str
    run_id: str
    units: int
    requeued: int
    was_current: bool


def rollback(
    lake: Lake,
    ledger: Ledger,
    run_id: str,
    *,
    tables: Iterable[str] | None = None,
    shards: Iterable[str] | None = None,
) -> list[Change]:
    """Bring back, of every table and shard, the version that holds most of what a run made.

    Units that are not in it are requeued. Later attempts that are still on their way can no more
    replace it; what is run from now on can. Raises RollbackError.
    """
    found = []
    chosen = list(shards) if shards is not None else lake.shards()
    for table in tables or TABLES:
        for shard in chosen:
            known = history.versions(lake, table, shard)
            version = history.left_by(known, run_id)
            if version is not None:
                found.append((table, shard, version))
    if not found:
        raise RollbackError(
            f"no version that is kept holds anything that run {run_id} made: `ego history` lists "
            "them"
        )
    for table, shard, _ in found:
        at_work = ledger.entries(stage=table, shard=shard, states=[State.RUNNING])
        if at_work:
            raise RollbackError(
                f"{table} of shard {shard} is being made by run {at_work[0].run_id}: wait for it, "
                "or terminate it"
            )
    changes = [_bring_back(lake, ledger, *each, run_id) for each in found]
    for shard in {shard: None for _, shard, _ in found}:
        _choose_again(lake, shard, {table for table, s, _ in found if s == shard})
    return changes


def _choose_again(lake: Lake, shard: str, tables: set[str]) -> None:
    """What was chosen in the launchpad after the newest rows of a stage were made is forgotten: the
    next run would make them that way again. `tables`: that were brought back."""
    newest: dict[str, str] = {}
    changed: set[str] = set()
    for table in TABLES:
        for made in lake.provenances(table, shard).values():
            stage = made.operator.partition(":")[0]
            newest[stage] = max(made.created_at, newest.get(stage, ""))
            if table in tables:
                changed.add(stage)
    for stage in sorted(changed):
        Choices(lake).go_back(stage, shard, newest[stage])


def _bring_back(
    lake: Lake, ledger: Ledger, table: str, shard: str, version: history.Version, run_id: str
) -> Change:
    # The ledger may be older than what is to be replaced, or brought back.
    agree(ShardInputs(lake, ledger, shard), [table])
    entries = {e.unit_id: e for e in ledger.entries(stage=table, shard=shard)}
    why = f"rolled back to run {run_id}"
    if version.name == history.CURRENT:
        # Somebody may have been killed who had brought it back and not yet told the ledger.
        done = _done_under(lake.provenances(table, shard))
        is_told = all(
            entries[u].fingerprint == fingerprint
            for u, (fingerprint, _) in done.items()
            if u in entries and entries[u].state is State.DONE
        )
        requeued = 0 if is_told else ledger.restore(table, shard, done, why)
        return Change(table, shard, run_id, version.runs[run_id], requeued, was_current=True)
    with lake.storage.lock(f"{table}.{shard}"):
        if version.name not in history.kept(lake, table, shard):
            raise RollbackError(
                f"{table} of shard {shard} was made again meanwhile, and the version that run "
                f"{run_id} left is not kept any more (EGO_KEEP_VERSIONS)"
            )
        compaction.compact(lake, table, shard, None, spare=version.name)
        current = lake.compacted_units(table, shard)
        tokens = {e.unit_id: e.token for e in ledger.entries(stage=table, shard=shard)}
        for unit, made in current.items():
            tokens[unit] = max(tokens.get(unit, 0), made.get("token", 0))
        history.bring_back(lake, table, shard, version, tokens)
        # With the lock still: else `ego verify` would find rows that the ledger does not mean.
        requeued = ledger.restore(table, shard, _done_under(version.units), why)
    note_file(lake, ledger, table, shard)
    return Change(table, shard, run_id, version.runs[run_id], requeued, was_current=False)


def _done_under(units: Mapping[str, Provenance]) -> dict[str, tuple[str, str]]:
    """{unit: (fingerprint, run id)}, as the ledger takes it."""
    return {u: (p.fingerprint, p.run_id) for u, p in units.items()}
