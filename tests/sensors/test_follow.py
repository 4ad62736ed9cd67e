"""What is below a table that was made alone is asked for once; runs of the whole graph are left
alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.automation_tick_evaluation_context import build_run_requests
from dagster._core.events import StepMaterializationData

from dagster_project.definitions import build_defs
from ego_assets.catalog import TABLES, tables_of_items
from ego_assets.graph.partitions import SHARDS

EARLY = {"video_manifest", "clips"}


class Follow:
    """Ticks of the sensor over a few shards. asked: {shard: tables} of the last tick."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.defs = build_defs()
        self.cursor: Any = None
        instance.add_dynamic_partitions(SHARDS, ["a", "b", "c"])

    def make(self, shard: str, *tables: str) -> None:
        for table in tables:
            event = dg.AssetMaterialization(table, partition=shard)
            self.instance.report_runless_asset_event(event)

    def tick(self) -> dict[str, set[str]]:
        found = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = found.cursor
        asked: dict[str, set[str]] = {}
        for table in (*TABLES, *SHOWN):
            for shard in found.get_requested_partitions(dg.AssetKey(table)):
                asked.setdefault(str(shard), set()).add(table)
        return asked


EPISODES = set(tables_of_items("shard"))
SHOWN = {"galleries"}
"""What is no table, and follows."""


@pytest.fixture
def follow() -> Iterator[Follow]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = Follow(instance)
        for shard in "ab":
            made.make(shard, *TABLES)
        assert made.tick() == {}  # what is there, or is not, when the sensor is started
        yield made


def test_what_is_below_is_asked_for_once_and_together(follow: Follow) -> None:
    follow.make("a", "hand_masks")
    below = {"hand_poses", "scene_reconstruction", "object_poses", "object_movements"}
    assert follow.tick() == {"a": below | {"robot_mappings"} | EPISODES | SHOWN}
    assert follow.tick() == {}
    follow.make("b", "robot_mappings")  # no table is below it
    assert follow.tick() == {"b": SHOWN}


def test_a_shard_of_which_a_group_was_made_goes_on(follow: Follow) -> None:
    follow.make("c", "video_manifest")
    assert follow.tick() == {}
    follow.make("c", "clips")
    assert follow.tick() == {"c": {*TABLES, *SHOWN} - EARLY}


def test_a_run_over_the_whole_graph_is_left_alone(follow: Follow) -> None:
    """It has planned all of them: nobody else makes them while it is at work, nor afterwards."""
    job = follow.defs.resolve_job_def("whole_graph")
    run = follow.instance.create_run_for_job(
        job,
        tags={"dagster/partition": "c"},
        status=dg.DagsterRunStatus.STARTED,
    )
    for number, table in enumerate((*TABLES, *SHOWN)):
        event = dg.AssetMaterialization(table, partition="c")
        follow.instance.report_dagster_event(
            dg.DagsterEvent(
                event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
                job_name=job.name,
                step_key=table,
                event_specific_data=StepMaterializationData(event, []),
            ),
            run_id=run.run_id,
        )
        if number % 3 == 2:
            assert follow.tick() == {}
    follow.instance.report_run_failed(run)
    assert follow.tick() == {}


def test_the_checks_of_a_table_go_along(follow: Follow) -> None:
    graph = follow.defs.get_repository_def().asset_graph
    follow.make("a", "object_poses")
    found = dg.evaluate_automation_conditions(follow.defs, follow.instance, cursor=follow.cursor)
    subsets = [r.true_subset for r in found.results if not r.true_subset.is_empty]
    (run,) = build_run_requests(subsets, graph, {}, emit_backfills=True)
    assert run.partition_key == "a"
    below = {"object_movements"} | EPISODES - {"gravity"} | SHOWN
    assert {k.to_user_string() for k in run.asset_selection} == below
    assert run.asset_check_keys is None  # which to Dagster means: all of these assets


def test_it_is_off_until_a_person_starts_it(follow: Follow) -> None:
    (sensor,) = [
        s
        for s in follow.defs.get_repository_def().sensor_defs
        if isinstance(s, dg.AutomationConditionSensorDefinition)
    ]
    assert sensor.name == "follow_sensor"
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
