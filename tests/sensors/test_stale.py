"""The stale sensor at a real instance: each stale shard is asked for, behind all else, in pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.definitions import build_defs
from ego_assets.engine.choices import Part
from ego_assets.engine.runner import run_stage
from ego_assets.graph.backends import Backends
from resources.storage import Storage
from sensors import stale as module
from sensors.stale import build_stale_sensor
from tests.engine.stage_bench import SHARD, Bench, make_bench
from tests.support.instances import dagster_instance

EMPTY = ["20260101-0001", "20260101-0002"]


@dataclass
class Fixed:
    """The same recipe for every shard."""

    default: list[list[Part]]

    def of(self, shard: str) -> list[list[Part]]:
        return self.default


class Desk:
    """A lake with a shard that is done, and two that have nothing; ticks of the sensor."""

    def __init__(self, bench: Bench, instance: dg.DagsterInstance) -> None:
        self.bench = bench
        self.spec = replace(bench.spec, backend="tests.engine.fake_backends:FakeEstimator")
        run_stage(self.spec, isolate=False)
        for shard in EMPTY:
            bench.lake.write_shard(shard, {"files": []})
        self.instance = instance
        self.storage = Storage(lake_root=bench.lake.location)
        self.repository = build_defs({"storage": self.storage}).get_repository_def()
        self.cursor: str | None = None

    def tick(self, **changes: str) -> dg.SensorResult:
        job = self.repository.get_job("rederive_stale")
        recipes = Fixed([[Part(replace(self.spec, **changes))]])
        sensor = build_stale_sensor(job, lambda *_: recipes)
        with dg.build_sensor_context(
            self.instance,
            cursor=self.cursor,
            repository_def=self.repository,
            resources={"storage": self.storage, "backends": Backends()},
        ) as context:
            found = sensor(context)
        if isinstance(found, dg.SkipReason):
            return dg.SensorResult(skip_reason=found)
        assert isinstance(found, dg.SensorResult)
        self.cursor = found.cursor
        return found

    def after(self) -> str:
        """The shard that the next tick goes on after."""
        return json.loads(self.cursor or "{}").get("after", "")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(module, "REST_S", 0.0)
    with dagster_instance(tmp_path) as instance:
        yield Desk(make_bench(tmp_path), instance)


def test_a_new_version_is_asked_for_once_behind_all_else(desk: Desk) -> None:
    nothing = desk.tick()
    assert not nothing.run_requests
    assert "3 shards looked at" in str(nothing.skip_reason)
    (first,) = desk.tick(operator_version="2").run_requests or ()
    assert first.partition_key == SHARD
    assert first.tags["dagster/priority"] == "-10"
    (again,) = desk.tick(operator_version="2").run_requests or ()
    assert again.run_key == first.run_key  # Dagster runs a key once
    (other,) = desk.tick(operator_version="3").run_requests or ()
    assert other.run_key != first.run_key
    run_stage(replace(desk.spec, operator_version="2", run_id="second"), isolate=False)
    assert not desk.tick(operator_version="2").run_requests
    # Back to the old version: another state, another run.
    (back,) = desk.tick().run_requests or ()
    assert back.run_key not in {first.run_key, other.run_key}


def test_a_shard_with_a_run_is_left_out(desk: Desk) -> None:
    desk.instance.add_dynamic_partitions("shards", [SHARD])
    job = desk.repository.get_job("whole_graph")
    tags = {"dagster/partition": SHARD}
    desk.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert not desk.tick(operator_version="2").run_requests


def test_a_run_that_failed_is_asked_for_again_a_few_times(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.instance.add_dynamic_partitions("shards", [SHARD])
    job = desk.repository.get_job("rederive_stale")
    keys = set()
    for _ in range(module.TRIES):
        (request,) = desk.tick(operator_version="2").run_requests or ()
        keys.add(request.run_key)
        tags = {"dagster/partition": SHARD} | dict(request.tags)
        failed = desk.instance.create_run_for_job(job, tags=tags)
        desk.instance.report_run_failed(failed)
        monkeypatch.setattr(module, "TRY_AGAIN_S", 1000.0)
        assert not desk.tick(operator_version="2").run_requests  # not at once
        monkeypatch.setattr(module, "TRY_AGAIN_S", 0.0)
    assert len(keys) == module.TRIES
    assert not desk.tick(operator_version="2").run_requests
    # Another state of things is another matter.
    (request,) = desk.tick(operator_version="3").run_requests or ()
    tags = {"dagster/partition": SHARD} | dict(request.tags)
    stopped = desk.instance.create_run_for_job(job, tags=tags)
    desk.instance.report_run_canceled(stopped)
    assert not desk.tick(operator_version="3").run_requests


def test_what_waits_is_bounded_and_ticks_go_on_where_they_left_off(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_RUNS", 1)
    assert len(desk.tick(operator_version="2").run_requests or ()) == 1
    assert desk.after() == SHARD
    desk.instance.add_dynamic_partitions("shards", [SHARD])
    job = desk.repository.get_job("rederive_stale")
    tags = {"dagster/partition": SHARD, "ego/reason": "stale"}
    run = desk.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert not desk.tick(operator_version="2").run_requests
    assert desk.after() == SHARD  # as long as its run waits, no further
    desk.instance.delete_run(run.run_id)
    desk.tick(operator_version="2")
    assert desk.after() == ""  # all were looked at: from the start again


def test_it_rests_when_all_is_looked_at_until_something_changes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST_S", 1000.0)
    assert "3 shards" in str(desk.tick().skip_reason)
    assert "nothing has changed" in str(desk.tick().skip_reason)
    assert len(desk.tick(operator_version="2").run_requests or ()) == 1
