"""Finds the shards that need a run: those for which it would do something, or of which the UI does
not know that it is done.

Here: what this run would make each table with, and what Dagster has on record. Not here: how a
shard is judged (`ego_assets.stages.unfinished`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from ego_assets.assets.recipes import STAGES, Recipes
from ego_assets.assets.spec import stage_spec
from ego_assets.assets.stage import choice_of_run
from ego_assets.schemas import TABLES
from ego_assets.stages.choices import Part
from ego_assets.stages.differences import find_differences
from ego_assets.stages.plan import ShardInputs
from ego_assets.stages.unfinished import has_work
from resources.lake import Lake, holdings
from resources.ledger import Ledger
from resources.models import Backends
from resources.storage import Storage


def find_unfinished(
    lake: Lake,
    ledger: Ledger,
    instance: dg.DagsterInstance,
    shards: Sequence[str],
    backends: Backends,
    settings: Mapping[str, Mapping[str, Any]],
) -> Iterator[str]:
    """Yield those of the shards that need a run. settings: what is said for each stage, by op."""
    recorded = _recorded(instance) - find_differences(lake, ledger).shards
    for table in TABLES:
        recorded -= holdings.fragments(lake, table).keys()  # a run was killed before it was done
    storage = Storage(lake_root=lake.location, ledger_url=ledger.url)
    recipes = Recipes(storage, backends)
    said = _said(storage, backends, settings)
    for shard in shards:
        if shard not in recorded:
            yield shard
            continue
        recipe = [said.get(op, parts) for op, parts in zip(STAGES, recipes.of(shard), strict=True)]
        if has_work(ShardInputs(lake, ledger, shard), recipe):
            yield shard


def _recorded(instance: dg.DagsterInstance) -> set[str]:
    """The shards of which Dagster has every table, and whose last run ended well: what a run was
    stopped in, be it a check, is done again."""
    made = [instance.get_materialized_partitions(dg.AssetKey(table)) for table in TABLES]
    runs = instance.get_run_partition_data(dg.RunsFilter())
    bad = {run.partition for run in runs if run.status is not dg.DagsterRunStatus.SUCCESS}
    return set.intersection(*made) - bad


def _said(
    storage: Storage, backends: Backends, settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Part]]:
    """The stages about which this run says something, as it makes them whatever was chosen."""
    found = {}
    for op, given in settings.items():
        stage, form = STAGES[op]
        config = form(**given)
        if choice_of_run({}, {}, stage, config, None) is not None:
            own = backends if stage.operator else None
            found[op] = [Part(stage_spec(stage, config, storage, own))]
    return found
