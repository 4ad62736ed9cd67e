"""A stage that got no GPU in time: what is made without one, and what then waits for one.

The weight-free backend makes rows for the clips that have none; these count as *pending*, with a
result that later stages may build on, until a run with a GPU makes the real one. What the chosen
backend has made before is never replaced by less.
Not here: how long a step waits (`dagster_project.executors.device_queue`), running anything
(`runner`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ego_assets.engine.plan import Group, StageSpec, WorkItem, chain
from ego_assets.models import registry
from resources.ledger import Entry, Ledger, State


def stand_in(real: StageSpec, form: dict[str, Any], why: str) -> StageSpec | None:
    """The stage by its weight-free backend; None if that is what was chosen anyway.

    form: settings of the launchpad, of which it takes those that it knows.
    """
    entry = registry.default(real.operator)
    if entry.name == real.backend:
        return None
    settings = {k: v for k, v in form.items() if k in entry.settings.model_fields}
    version, weights_hash = registry.version(real.operator, entry.name, settings)
    return replace(
        real,
        backend=entry.name,
        settings=settings,
        operator_version=version,
        weights_hash=weights_hash,
        weights_dir="",
        lanes=1,
        publish_behind=False,
        devices=(),
        provisional=why,
    )


def groups_to_make(
    spec: StageSpec, groups: Sequence[Group], real_groups: Sequence[Group], ledger: Ledger
) -> list[Group]:
    """Stretches of takes that lack a result, after the ledger was told which items wait.

    groups, real_groups: the same items as `spec` (the stand-in) and the chosen stage plan them.
    """
    entries = {(e.stage, e.item_id): e for e in ledger.entries(shard=spec.shard)}
    look = _Look(spec, ledger, entries)
    return [
        stretch
        for mine, wanted in zip(groups, real_groups, strict=True)
        for stretch in look.stretches(mine, wanted)
    ]


def settle_failures(spec: StageSpec, tried: Sequence[Group], ledger: Ledger) -> None:
    """What failed without a GPU is no verdict on the chosen backend: it waits like the others.

    Not so what an earlier attempt of the same step did with one.
    """
    ours = {u.item_id for group in tried for u in group.items}
    for entry in ledger.entries(shard=spec.shard, states=[State.QUARANTINED, State.FAILED]):
        mine = entry.run_id == spec.run_id and entry.item_id in ours
        if entry.stage in spec.tables and mine:
            reason = f"{spec.provisional}; without one it failed: {entry.error or 'unknown'}"
            ledger.wait_for_gpu(entry.stage, entry.item_id, reason)


@dataclass(frozen=True)
class _Look:
    spec: StageSpec
    ledger: Ledger
    entries: dict[tuple[str, str], Entry]

    def stretches(self, mine: Group, wanted: Group) -> list[Group]:
        """The items of a take that are to be made, cut where one is to be left alone."""
        found: list[list[WorkItem]] = [[]]
        real_before: str | None = None
        before: str | None = None
        for item, real_item in zip(mine.items, wanted.items, strict=True):
            real_print = chain(real_item.base_fingerprint, real_before)
            fingerprint = chain(item.base_fingerprint, before)
            refused = self._is_refused(item, real_print)
            left_alone = refused or self._is_settled(item, real_print, fingerprint)
            if left_alone:
                found.append([])
            else:
                found[-1].append(item)
            real_before = None if item.blocked or refused else real_print
            before = None if item.blocked or left_alone else fingerprint
        return [Group(tuple(items)) for items in found if items]

    def _is_refused(self, item: WorkItem, real_print: str) -> bool:
        """Dropped, or in quarantine for the chosen backend too."""
        for table in self.spec.tables:
            entry = self.entries.get((table, item.item_id))
            if entry is None:
                continue
            quarantined = entry.state is State.QUARANTINED and entry.fingerprint == real_print
            if entry.state is State.DROPPED or (quarantined and not self.spec.force):
                return True
        return False

    def _is_settled(self, item: WorkItem, real_print: str, fingerprint: str) -> bool:
        """Whether all rows stay as they are. The ledger is told which are not the latest."""
        settled = True
        for table in self.spec.tables:
            entry = self.entries.get((table, item.item_id))
            if entry is None or item.blocked:
                settled = False
            elif entry.state is not State.DONE:
                settled &= entry.waits_for_gpu and not entry.fingerprint
            elif entry.fingerprint != real_print or self.spec.force:
                own = fingerprint if entry.fingerprint == fingerprint else ""
                why = self.spec.provisional + ("" if own else "; the older result is kept")
                self.ledger.wait_for_gpu(table, item.item_id, why, own)
                settled &= not own
        return settled
