"""The definitions that Dagster loads. Importing them touches no disk, network, GPU, environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dagster_project.data_sets.assets import DATA_SETS
from dagster_project.executors.gpu import gpu_executor
from dagster_project.galleries.assets import GROUP as GALLERIES
from dagster_project.galleries.assets import galleries
from dagster_project.jobs import (
    JOBS,
    rederive_stale_job,
    reports,
    retry_unfinished_job,
    upkeep,
    whole_graph_job,
    write_report_job,
)
from ego_assets.catalog import GROUPS, TABLES, info
from ego_assets.environment import check_environment, serves_pictures, shards_per_run
from ego_assets.graph.assets import ASSETS as STAGE_ASSETS
from ego_assets.graph.backends import Backends
from ego_assets.graph.checks import TABLE_CHECKS
from ego_assets.graph.recipes import Recipes
from ego_assets.media.pictures import latest_url
from resources.alerts import Alerts
from resources.compute import Compute
from resources.raw_lake import RawLake
from resources.storage import Storage
from sensors.alerts import alert_sensor
from sensors.follow import build_follow_sensor
from sensors.raw_data import build_raw_data_sensor
from sensors.schedules import build_schedules
from sensors.stale import build_stale_sensor

ASSETS = [*STAGE_ASSETS, galleries, *DATA_SETS, reports]
SENSORS = [
    build_raw_data_sensor(whole_graph_job),
    build_stale_sensor(rederive_stale_job, Recipes),
    build_follow_sensor(dg.AssetSelection.groups(*GROUPS, GALLERIES)),
    alert_sensor,
]
SCHEDULES = build_schedules(retry_unfinished_job, upkeep, write_report_job)


def build_defs(
    overrides: Mapping[str, Any] | None = None,
    *,
    shards_per_run: int = 1,
    executor: dg.ExecutorDefinition = gpu_executor,
    shows_pictures: bool = False,
) -> dg.Definitions:
    """Build the whole graph; `overrides` replaces resources by name, as tests do.

    shards_per_run: of a backfill; 0 for all of them in one run. executor: of all jobs; another one
    than ours reads the op tags `ego/...` itself, or leases no device. shows_pictures: the web
    server is that of `ego up`. Raises ValueError.
    """
    resources: dict[str, Any] = {
        "storage": Storage(),
        "compute": Compute(),
        "backends": Backends(),
        "raw_lake": RawLake(),
        "alerts": Alerts(),
    }
    unknown = set(overrides or {}) - set(resources)
    if unknown:
        raise ValueError(f"no resources {sorted(unknown)}: there are {sorted(resources)}")
    assets = list(dg.map_asset_specs(_with_picture, ASSETS)) if shows_pictures else ASSETS
    return dg.Definitions(
        assets=_with_backfill_policy(assets, shards_per_run),
        asset_checks=TABLE_CHECKS,
        jobs=JOBS,
        sensors=SENSORS,
        schedules=SCHEDULES,
        resources=resources | dict(overrides or {}),
        executor=executor,
    )


def _with_backfill_policy(
    assets: list[dg.AssetsDefinition | dg.AssetSpec], shards_per_run: int
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    if shards_per_run < 0:
        raise ValueError(f"shards_per_run is {shards_per_run}: give 1 or more, or 0 for all")
    if shards_per_run == 1:  # a run of one shard by Dagster's own default has that shard's tag
        return assets
    policy = dg.BackfillPolicy(shards_per_run or None)
    return [
        a.with_attributes(backfill_policy=policy) if isinstance(a, dg.AssetsDefinition) else a
        for a in assets
    ]


def _with_picture(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Show the newest picture of a table on the Overview of its asset."""
    table = spec.key.to_user_string()
    if table not in TABLES or not info(table).preview:
        return spec
    url = latest_url(table)
    shown = f"[![the newest picture of {table}, once there is one]({url})]({url})"
    return spec.replace_attributes(description=f"{spec.description}\n\n{shown}")


def deployed() -> dg.Definitions:
    """What workspace.yaml loads: the graph, as the environment wants it. Raises ValueError."""
    check_environment()
    return build_defs(shards_per_run=shards_per_run(), shows_pictures=serves_pictures())


defs = build_defs()
