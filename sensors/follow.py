"""The follow sensor: what is below a table that was made alone is made after it.

Here: Dagster's automation conditions, as a sensor that a person may start. Not here: which tables
have a condition (`ego_assets.graph.stage`).
"""

from __future__ import annotations

import dagster as dg

from sensors.schedules import REASON_TAG

FOLLOW = "follow"


def build_follow_sensor(assets: dg.AssetSelection) -> dg.AutomationConditionSensorDefinition:
    """The sensor over the conditions of these assets: one run a shard for all that is below."""
    return dg.AutomationConditionSensorDefinition(
        "follow_sensor",
        target=assets,
        minimum_interval_seconds=60,
        run_tags={"dagster/priority": "-5", REASON_TAG: FOLLOW},
        description="When a person has made a table of a shard alone (a group, other settings, a "
        "table from the UI), makes what is below it, with its checks, before stale_sensor would "
        "come to it. Runs over the whole graph are left alone.",
    )
