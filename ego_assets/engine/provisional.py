"""A stage that got no GPU in time: what is made without one, and what then waits for one.

The backend that runs out of the box, which needs no GPU, makes rows for the clips that have none;
these count as *pending*, with a result that later stages may build on, until a run with a GPU makes
the real one. What the chosen backend has made before is never replaced by less.
Not here: how long a step waits (`dagster_project.executors.device_queue`), running anything
(`runner`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ego_assets.engine.plan import Group, StageSpec, WorkItem, entries_of
from ego_assets.engine.todo import Step, is_given_up, walk
from ego_assets.models import registry
from resources.ledger import Entry, Ledger, State


def stand_in(real: StageSpec, form: dict[str, Any], why: str) -> StageSpec | None:
    """The stage by the backend that runs out of the box; None if that is what was chosen anyway.

    form: settings of the launchpad, of which it takes those that it knows.
    """
    entry = registry.default(real.operator)
    if entry.name == real.backend:
        return None
    settings = {k: v for k, v in form.items() if k in entry.settings.model_fields}
    version, weights_hash = registry.version(real.operator, entry.name, settings, real.weights_dir)
    return replace(
        real,
        backend=entry.name,
        settings=settings,
        operator_version=version,
        weights_hash=weights_hash,
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
    look = _Look(spec, ledger, entries_of(ledger, spec.shard))
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
    entries: dict[str, dict[str, Entry]]

    def stretches(self, mine: Group, wanted: Group) -> list[Group]:
        """The items of a take that are to be made, cut where one is to be left alone."""
        tables = self.spec.tables
        real = {
            step.item.item_id: step
            for step in walk(wanted, tables, self.entries, leaves_out=self._is_refused)
        }

        def leaves_out(step: Step) -> bool:
            chosen = real[step.item.item_id]
            return chosen.is_left_out or self._is_settled(step, chosen.fingerprint)

        found: list[list[WorkItem]] = [[]]
        for step in walk(mine, tables, self.entries, leaves_out=leaves_out):
            if step.is_left_out:
                found.append([])
            else:
                found[-1].append(step.item)
        return [Group(tuple(items)) for items in found if items]

    def _is_refused(self, step: Step) -> bool:
        """Dropped, or in quarantine for the chosen backend too."""
        return any(is_given_up(e, step.fingerprint, force=self.spec.force) for e in step.known)

    def _is_settled(self, step: Step, real_print: str | None) -> bool:
        """Whether all rows stay as they are. The ledger is told which are not the latest."""
        settled = True
        for table, entry in zip(self.spec.tables, step.known, strict=True):
            if entry is None or step.item.blocked:
                settled = False
            elif entry.state is not State.DONE:
                settled &= entry.waits_for_gpu and not entry.fingerprint
            elif entry.fingerprint != real_print or self.spec.force:
                own = entry.fingerprint if entry.fingerprint == step.fingerprint else ""
                why = self.spec.provisional + ("" if own else "; the older result is kept")
                self.ledger.wait_for_gpu(table, step.item.item_id, why, own)
                settled &= not own
        return settled
