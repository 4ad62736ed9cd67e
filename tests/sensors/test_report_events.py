"""Runs and checks of a span, from a real instance."""

import time
from pathlib import Path

import dagster as dg
import pytest

from sensors import report_events as module
from sensors.report_events import DRIFT_CHECK, events_between
from tests.support.instances import dagster_instance

parts = dg.DynamicPartitionsDefinition(name="toy")


@dg.asset(partitions_def=parts)
def poses() -> None:
    pass


@dg.asset_check(asset=poses, name=DRIFT_CHECK)
def drift(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    value = {"s1": 0.5, "s2": 3.0, "s3": 0.25}[context.run.tags["dagster/partition"]]
    return dg.AssetCheckResult(
        passed=value < 1, description=f"{value} times", metadata={"worst value": value}
    )


def test_the_events_of_a_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 1)
    with dagster_instance(tmp_path) as instance:
        instance.add_dynamic_partitions("toy", ["s1", "s2", "s3"])
        began = time.time()
        for shard in ("s1", "s2", "s3"):
            dg.materialize([poses, drift], partition_key=shard, instance=instance)
        found = events_between(instance, began, time.time() + 1)
        before = events_between(instance, began - 100, began)
        since = time.time()
        instance.add_run_tags(instance.get_runs(limit=1)[0].run_id, {"note": "looked at"})
        later = events_between(instance, since, since + 100)
    assert dict(found.runs) == {"success": 3}
    assert dict(found.failing) == {("poses", DRIFT_CHECK): 1}
    assert found.sentence["poses", DRIFT_CHECK] == "s2: 3.0 times"
    assert sorted(d for _, d in found.drift["poses"]) == [0.25, 0.5, 3.0]
    assert not before.runs
    assert not later.runs
    assert not before.drift
