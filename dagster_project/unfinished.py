"""Finds the shards that need a run: those for which it would do something, or of which the UI does
not know that it is done.

Here: what this run would make each table with, and what Dagster has on record. Not here: how a
shard is judged (`ego_assets.upkeep.unfinished`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from ego_assets.catalog import STAGES_OF_A_SHARD
from ego_assets.engine.choices import ChoiceError, Part
from ego_assets.engine.plan import ShardInputs
from ego_assets.graph.backends import Backends
from ego_assets.graph.recipes import Recipes
from ego_assets.graph.spec import choice_of, form_of, stage_spec
from ego_assets.upkeep.recovery.differences import find_differences
from ego_assets.upkeep.unfinished import has_work
from resources.lake import Lake, holdings
from resources.ledger import Ledger
from resources.storage import Storage

_PAGE = 16
"""Shards of which the ledger is asked at a time. Their files are looked at one shard after the
other, when it is their turn: that may take minutes, while the shards before them can run."""
_TABLES = [table for stage in STAGES_OF_A_SHARD.values() for table in stage.tables]


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
    for table in _TABLES:
        recorded -= holdings.fragments(lake, table).keys()  # a run was killed before it was done
    storage = Storage(lake_root=lake.location, ledger_url=ledger.url)
    recipes = Recipes(storage, backends)
    said = _said(storage, backends, settings)

    def is_left(inputs: ShardInputs) -> bool:
        if inputs.shard not in recorded:
            return True
        try:
            made = zip(STAGES_OF_A_SHARD, recipes.of(inputs.shard), strict=True)
        except ChoiceError:
            return True  # its run says what is wrong
        recipe = [said.get(op, parts) for op, parts in made]
        return has_work(inputs, recipe)

    for start in range(0, len(shards), _PAGE):
        page = [ShardInputs(lake, ledger, shard) for shard in shards[start : start + _PAGE]]
        with ledger.joint_reading():
            for inputs in page:
                if inputs.shard in recorded:
                    inputs.read_ledger()
        yield from (inputs.shard for inputs in page if is_left(inputs))


def _recorded(instance: dg.DagsterInstance) -> set[str]:
    """The shards of which Dagster has every table, and whose last run ended well: what a run was
    stopped in, be it a check, is done again."""
    made = [instance.get_materialized_partitions(dg.AssetKey(table)) for table in _TABLES]
    runs = instance.get_run_partition_data(dg.RunsFilter())
    bad = {run.partition for run in runs if run.status is not dg.DagsterRunStatus.SUCCESS}
    return set.intersection(*made) - bad


def _said(
    storage: Storage, backends: Backends, settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Part]]:
    """The stages about which this run says something, as it makes them whatever was chosen."""
    found = {}
    for op, given in settings.items():
        stage = STAGES_OF_A_SHARD[op]
        config = form_of(stage)(**given)
        if choice_of({}, stage, config, backends, {}) is not None:
            found[op] = [Part(stage_spec(stage, config, storage, backends))]
    return found
