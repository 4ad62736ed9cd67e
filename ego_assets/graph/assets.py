"""The assets of the graph: a step for each stage of the catalogue, an asset for each table.

Not here: what a step does (`stage`), checks (`checks`).
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ego_assets.catalog import FEATURES, STAGES, TABLES, feature_of
from ego_assets.engine import plan
from ego_assets.feature import Needs, Stage
from ego_assets.graph.backends import Backends
from ego_assets.graph.lineage import column_lineage
from ego_assets.graph.metadata import table_schema
from ego_assets.graph.partitions import shards_partitions
from ego_assets.graph.spec import form_of
from ego_assets.graph.stage import GPUS_TAG, materialize_stage
from ego_assets.models import registry
from resources.compute import Compute
from resources.storage import Storage

_condition = dg.AutomationCondition
FOLLOWS = (
    _condition.any_deps_updated().since_last_handled()
    & ~_condition.any_deps_missing()
    & ~_condition.any_deps_in_progress()
    & ~_condition.in_progress()
).with_label("follows what it is made from")
"""Of what comes after the clips: what `follow_sensor` goes by, if a person has started it. As
`eager()`, which also keeps a list of every shard that is missing: a cursor of 1.5 MB with 10,000
shards."""


def tags_of(needs: Needs) -> dict[str, str]:
    """What a step takes of a machine, as op tags that executors read."""
    return {
        **({"ego/degrades": "true"} if needs.degrades else {}),
        GPUS_TAG: f"{needs.gpus:g}",
        "ego/gpu_memory_gb": f"{needs.gpu_memory_gb:g}",
        "ego/cpus": str(needs.cpus),
    }


def _code_version(stage: Stage) -> str:
    """Version of a stage's default operator and of its default settings, as the UI shows it."""
    entry = registry.default(stage.operator)
    version, _ = registry.version(entry.operator, entry.name)
    return f"{version}-{plan.digest(entry.settings().model_dump())[:6]}"


def asset_spec(table: str, stage: Stage) -> dg.AssetSpec:
    """The asset of a table, described by the contract. What comes after the clips follows them."""
    follows = stage.item != "lake" and "clips" in stage.upstream
    return dg.AssetSpec(
        table,
        deps=list(stage.upstream),
        description=(TABLES[table].__doc__ or "").strip(),
        group_name=feature_of(table).name,
        kinds={"python", "parquet"},
        code_version=_code_version(stage),
        metadata={
            "dagster/column_schema": table_schema(table),
            "dagster/column_lineage": column_lineage(table),
        },
        partitions_def=None if stage.item == "lake" else shards_partitions,
        automation_condition=FOLLOWS if follows else None,
        skippable=False,
    )


def stage_asset(stage: Stage) -> dg.AssetsDefinition:
    """The step of a stage; a subset of its tables can be made alone."""

    def step(
        context: dg.AssetExecutionContext,
        config: Any,
        storage: Storage,
        compute: Compute,
        backends: Backends,
    ) -> Iterator[dg.MaterializeResult[None]]:
        yield from materialize_stage(context, stage, config, storage, compute, backends)

    step.__annotations__["config"] = form_of(stage)  # Dagster reads the form from it
    return dg.multi_asset(
        name=stage.name,
        specs=[asset_spec(table, stage) for table in stage.tables],
        can_subset=len(stage.tables) > 1,
        op_tags=tags_of(stage.needs),
    )(step)


ASSETS: list[dg.AssetsDefinition | dg.AssetSpec] = [
    *(
        dg.AssetSpec(
            each.name,
            description=each.description,
            group_name=feature.name,
            kinds=set(each.kinds),
            partitions_def=shards_partitions,
        )
        for feature in FEATURES
        for each in feature.external
    ),
    *(stage_asset(stage) for stage in STAGES.values()),
]
