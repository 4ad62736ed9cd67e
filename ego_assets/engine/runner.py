"""Runs a stage over a shard: what is to be done, who does it, and the report.

Not here: worker processes (`supervisor`), what a worker does with a take (`lane`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ego_assets.engine import plan as planning
from ego_assets.engine import provisional as without_gpu
from ego_assets.engine.outcome import Failure, StageReport, Tally
from ego_assets.engine.plan import Group, StageSpec, WorkItem
from ego_assets.engine.workers.lane import Lane
from ego_assets.engine.workers.messages import Postponed
from ego_assets.engine.workers.postponed import Postponement
from ego_assets.engine.workers.supervisor import Supervisor
from ego_assets.intake.moves import enter_shard
from ego_assets.intake.sources import Settled, revive, settle
from ego_assets.upkeep.recovery.agreement import agree, note_file
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.ledger.sources import Sources
from resources.ledger.states import RAW_GONE
from resources.processes import process_name


def run_stage(
    spec: StageSpec,
    *,
    workers: int = 1,
    shares_cpus: bool = False,
    isolate: bool = True,
    real: StageSpec | None = None,
    warn: Callable[[str], None] | None = None,
) -> StageReport:
    """Run a stage over its shard until every item is done, quarantined or blocked.

    shares_cpus: has so many workers only while no other stage on the machine needs the CPUs.
    isolate=False runs in this process (for debugging: a crash is then a crash).
    real: the stage for which `spec` stands in, since there is no GPU for it. warn: told, while the
    stage runs, what a person should look at.
    Raises whatever planning raises; an item's failure never does.
    """
    lake, ledger = Lake(spec.lake_root), Ledger(spec.ledger_url)
    inputs = planning.ShardInputs(lake, ledger, spec.shard)
    taken, tokens = agree(inputs, spec.tables, spec.inputs, spec.operator)
    settled = Settled()
    if spec.item == "file":
        settled = settle(lake, ledger, spec.shard)
        inputs = planning.ShardInputs(lake, ledger, spec.shard)
    else:
        # Whose sources are unknown, since the ledger is new: without them nothing tells a file that
        # was read before from one that has taken its place.
        sources = Sources(ledger)
        if {f.item for f in inputs.files} - sources.of_shard(spec.shard).keys():
            enter_shard(lake, sources, spec.shard)
        revive(lake, ledger, spec.shard)
    groups = planning.plan_from(spec, inputs)
    everything = [u for g in groups for u in g.items]
    for table in spec.tables:
        ledger.forget(table, spec.shard, [u.item_id for u in everything])
        left = {u.item_id: tokens[table][u.item_id] for u in everything}
        ledger.expect(table, spec.shard, [(u.item_id, u.video_id) for u in everything], left)
    groups = _chosen(spec, groups)
    report = StageReport("+".join(spec.tables), spec.shard)
    report.taken_over = sum(taken.values())
    report.moved_files, report.gone_files = settled.moved, settled.gone
    report.items = sum(len(g.items) for g in groups)
    began = time.monotonic()
    dropped = {e.item_id: e for e in ledger.entries(shard=spec.shard, states=[State.DROPPED])}
    for item in (u for g in groups for u in g.items):
        if item.blocked and item.item_id in dropped:
            for table in spec.tables:
                above = dropped[item.item_id]
                gone = (above.error or "") if above.error_class == RAW_GONE else ""
                ledger.drop_after(table, item.item_id, above.stage, gone)
        elif item.blocked:
            report.blocked += 1
            report.failures.append(Failure(item.item_id, "blocked", item.blocked))
            for table in spec.tables:
                ledger.block(table, item.item_id, item.blocked)
    if real is not None:
        everyone = _chosen(spec, planning.plan(real, lake, ledger))
        to_make = without_gpu.groups_to_make(spec, groups, everyone, ledger)
        report.skipped += report.items - sum(len(g.items) for g in to_make)
    else:
        to_make = groups
    _run_groups(spec, ledger, report, to_make, workers if isolate else 0, shares_cpus, warn)
    report.seconds = time.monotonic() - began
    _add_known_quarantine(spec, ledger, report, groups)
    if real is not None:
        without_gpu.settle_failures(spec, to_make, ledger)
        waiting = [e for e in ledger.entries(shard=spec.shard) if e.waits_for_gpu]
        report.waiting = len({e.item_id for e in waiting if e.stage in spec.tables})
    lake.must_be_there()
    for table in spec.tables:
        report.rows[table] = _compact(spec, table, lake, ledger, everything)
    return report


def _compact(
    spec: StageSpec, table: str, lake: Lake, ledger: Ledger, planned: Iterable[WorkItem]
) -> int:
    """Merge what there is of a table. Returns the rows."""

    def wanted() -> set[str]:
        # Another run may have planned other items by now; what it has made of them stays.
        known = ledger.entries(stage=table, shard=spec.shard)
        return {u.item_id for u in planned} | {e.item_id for e in known}

    rows = lake.compact(table, spec.shard, wanted)
    note_file(lake, ledger, table, spec.shard)
    return rows


def _run_groups(
    spec: StageSpec,
    ledger: Ledger,
    report: StageReport,
    groups: list[Group],
    workers: int,
    shares_cpus: bool,
    warn: Callable[[str], None] | None,
) -> None:
    """Run groups in this many worker processes; with 0, in this one."""
    slow = spec.settings.get("min_read_megabytes_per_s", 0.0) * 1e6
    tally = Tally(report, (u for g in groups for u in g.items), slow, warn)
    if workers:
        supervisor = Supervisor(spec, ledger, tally, shares_cpus=shares_cpus)
        supervisor.run(groups, min(workers, len(groups)))
        return
    queue, postponed = deque(groups), Postponement()

    def note(message: Any) -> None:
        if isinstance(message, Postponed):
            postponed.add(group)
        tally.note(message)

    lane = Lane(replace(spec, publish_behind=False), process_name(), note)
    while queue or postponed:
        queue.extend(postponed.due())
        if not queue:
            time.sleep(postponed.wait_s(1.0))
            continue
        group = queue.popleft()
        lane.run_group(group)


def _chosen(spec: StageSpec, groups: list[Group]) -> list[Group]:
    """The takes with an item that the run is for."""
    wanted = set(spec.items)
    if not wanted:
        return groups
    return [g for g in groups if any({u.item_id, u.video_id} & wanted for u in g.items)]


def _add_known_quarantine(
    spec: StageSpec, ledger: Ledger, report: StageReport, groups: Iterable[Group]
) -> None:
    """Items that were in quarantine before this run are still failures of the shard."""
    told = {f.item_id for f in report.failures}
    items = {u.item_id for g in groups for u in g.items}
    for entry in ledger.entries(shard=spec.shard, states=[State.QUARANTINED]):
        if entry.stage in spec.tables and entry.item_id in items - told:
            told.add(entry.item_id)
            report.quarantined += 1
            reason = (entry.error or "").split("\n", 1)[0]
            report.failures.append(Failure(entry.item_id, "quarantined", reason))
