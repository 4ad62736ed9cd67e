"""The checks of every table, in one step: it fits the contract (blocking), every clip is in it (a
warning), and the quality probes (`quality`).

Checks are unpartitioned (partitioned ones are a preview in Dagster and break with range runs);
the shards they looked at are in their metadata.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import dagster as dg
from dagster import AssetCheckResult, AssetCheckSeverity, AssetCheckSpec

from ego_assets import catalog
from ego_assets.catalog import TABLES
from ego_assets.feature import LAKE
from ego_assets.graph.check_results import Places, named
from ego_assets.graph.metadata import look_up, text_table
from ego_assets.graph.partitions import (
    fail_for_lost,
    is_last_step,
    is_range,
    lost_shards,
    shards_of_run,
)
from ego_assets.graph.probe_checks import FITS_CONTRACT, quality_results, quality_specs
from ego_assets.quality.finding import Offender
from ego_assets.quality.settings import ProbeSettings
from ego_assets.upkeep.recovery.rebuild import ready
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.storage import Storage

LISTED = 50


@cache
def form_of_probes(settings: type[ProbeSettings]) -> type[dg.Config]:
    """The launchpad form of the checks of a room: its thresholds."""
    name = f"{settings.__name__.removesuffix('Settings')}Config"
    return type(name, (settings, dg.Config), {"__doc__": settings.__doc__})


def fits_contract(
    lake: Lake, table: str, shards: list[str]
) -> tuple[AssetCheckResult, dict[str, str]]:
    """Columns, types, units' ranges, nulls and keys of what lies in the lake.

    Returns the shards that do not fit as well, {shard: why}.
    """
    problems: list[tuple[str, str]] = []
    rows = 0
    for shard in shards:
        try:
            batch = lake.read(table, shard)
        except Exception as error:  # an unreadable file is a finding, not a crash of the check
            problems.append((shard, f"cannot be read: {error}"))
            continue
        rows += batch.num_rows
        problems.extend((shard, p) for p in TABLES[table].violations(batch))
    broken: dict[str, str] = {}
    for shard, problem in problems:
        broken.setdefault(shard, problem[:500])
    words = f"{rows} rows fit the contract" if rows else "not judged: there are no rows"
    if problems:
        words = f"{len(problems)} problems, the first in shard {': '.join(problems[0])}"[:500]
    result = AssetCheckResult(
        asset_key=table,
        check_name=FITS_CONTRACT,
        passed=not problems,
        severity=AssetCheckSeverity.ERROR,
        description=words,
        metadata={
            "shards": named(shards),
            "rows": rows,
            "problems": text_table(
                ("shard", "problem"), [(s, p[:500]) for s, p in problems[:LISTED]]
            ),
            **(look_up("runbook", FITS_CONTRACT) if problems else {}),
        },
    )
    return result, broken


def covers_every_clip(
    lake: Lake, ledger: Ledger, table: str, shards: list[str]
) -> AssetCheckResult:
    """Every clip (or video) of the shard is done: none waits, failed or is in quarantine.

    What a person dropped does not count. A shard with clips of which the ledger knows none has
    nothing done, rather than nothing to do.
    """
    counts = dict.fromkeys(State, 0)
    open_items: list[tuple[str, str, str, str, str, str]] = []
    unknown = 0
    for shard in shards:
        places = Places(lake, [shard])
        entries = ledger.entries(stage=table, shard=shard)
        if not entries and (clips := _clip_count(lake, shard)):
            unknown += clips
            if len(open_items) < LISTED:
                why = f"the ledger knows none of its {clips} clips: run {table} of this shard"
                open_items.append((shard, "", "", "", "unknown", why))
        for entry in entries:
            counts[entry.state] += 1
            if entry.state not in {State.DONE, State.DROPPED} and len(open_items) < LISTED:
                reason = (entry.error or "").split("\n", 1)[0][:300]
                place = places.of(Offender(entry.item_id, None, 0.0))
                open_items.append((shard, entry.item_id, *place, entry.state.value, reason))
    total = sum(counts.values()) - counts[State.DROPPED] + unknown
    done = counts[State.DONE]
    words = f"{done} of {total} done" if total else "not judged: there is nothing to do"
    for _, _, file, time, _, reason in open_items[:1]:
        words += f"; look at {file} at {time}" * bool(file) + f": {reason}" * bool(reason)
    return AssetCheckResult(
        asset_key=table,
        check_name="covers_every_clip",
        passed=done == total,
        severity=AssetCheckSeverity.WARN,
        description=words,
        metadata={
            "shards": named(shards),
            **{state.value: count for state, count in counts.items()},
            "unknown": unknown,
            "not done": text_table(
                ("shard", "work item", "file", "time", "state", "reason"), open_items
            ),
            **(look_up("runbook", "covers_every_clip") if done != total else {}),
        },
    )


def _clip_count(lake: Lake, shard: str) -> int:
    try:
        return len(lake.read("clips", shard, columns=["clip_id"]))
    except Exception:  # the checks of that table say so
        return 0


def table_checks(table: str) -> dg.AssetChecksDefinition:
    """The checks of one table, in one step."""
    form = form_of_probes(catalog.feature_of(table).probe_settings)

    def checks(
        context: dg.AssetCheckExecutionContext, config: Any, storage: Storage
    ) -> Iterator[AssetCheckResult]:
        lake, run = storage.lake(), context.run
        lost = lost_shards(context.instance, run, [table]) if is_range(run.tags) else {}
        if catalog.stage_of(table).item == "lake":
            mine = [LAKE]
        else:
            mine = shards_of_run(context.instance, run.tags) or lake.shards()
        shards = [shard for shard in mine if shard not in lost]
        fits, broken = fits_contract(lake, table, shards)
        yield fits
        ledger = ready(lake, storage.ledger(), context.log.warning)
        yield covers_every_clip(lake, ledger, table, shards)
        yield from quality_results(lake, table, shards, config, ledger, broken)
        if is_last_step(context.op_execution_context):
            fail_for_lost(lost, len(mine))

    checks.__annotations__["config"] = form  # Dagster reads the form from it
    return dg.multi_asset_check(
        name=f"{table}_checks",
        specs=[
            AssetCheckSpec(
                FITS_CONTRACT,
                asset=table,
                blocking=True,
                description=(fits_contract.__doc__ or "").strip().split("\n\n")[0],
            ),
            AssetCheckSpec(
                "covers_every_clip",
                asset=table,
                description=(covers_every_clip.__doc__ or "").strip(),
            ),
            *quality_specs(table),
        ],
        op_tags={"ego/gpus": "0", "ego/gpu_memory_gb": "0", "ego/cpus": "1"},
    )(checks)


TABLE_CHECKS = [table_checks(table) for table in TABLES]
