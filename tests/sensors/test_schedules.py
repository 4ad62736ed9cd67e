"""At night what is unfinished is run again, once, and the upkeep finds damage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.definitions import build_defs
from ego_assets.stages.shards import RawFile, write_shard
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.storage import Storage

NIGHT = datetime(2026, 1, 2, 1, tzinfo=UTC)


class Night:
    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.lake = Lake(root / "lake")
        self.ledger = Ledger.beside(root / "lake")
        self.instance = instance
        self.resources = {"storage": Storage(lake_root=str(root / "lake"))}
        self.repository = build_defs(self.resources).get_repository_def()
        self.shards = [write_shard(self.lake, [RawFile(f"/{n}.mp4", 1, 1.0)]) for n in range(5)]

    def fail(self, shard: str, unit: str, *, quarantine: bool = False) -> None:
        self.ledger.expect("clips", shard, [(unit, unit)])
        attempt = self.ledger.start("clips", unit, fingerprint="f", worker="w", run_id="r")
        self.ledger.fail(
            "clips", unit, attempt, error_class="E", error="bad luck", quarantine=quarantine
        )

    def retried(self) -> list[str]:
        schedule = self.repository.get_schedule_def("nightly_retry_schedule")
        context = dg.build_schedule_context(
            self.instance,
            scheduled_execution_time=NIGHT,
            repository_def=self.repository,
            resources=self.resources,
        )
        found: Any = schedule(context)
        return [] if isinstance(found, dg.SkipReason) else [r.partition_key for r in found]

    def run(self, job: str, **config: Any) -> dg.ExecuteInProcessResult:
        return self.repository.get_job(job).execute_in_process(
            instance=self.instance, run_config=config, raise_on_error=False
        )


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield Night(tmp_path, instance)


def test_only_what_another_run_may_finish_is_retried(night: Night) -> None:
    done, failed, quarantined, blocked, busy = night.shards
    night.ledger.expect("clips", done, [("u1", "u1")])
    attempt = night.ledger.start("clips", "u1", fingerprint="f", worker="w", run_id="r")
    night.ledger.finish("clips", "u1", attempt)
    night.fail(failed, "u2")
    night.fail(quarantined, "u3", quarantine=True)
    night.ledger.expect("hand_poses", blocked, [("u4", "u4")])
    night.ledger.block("hand_poses", "u4", "waits for hand_masks")
    night.fail(busy, "u5")
    job = night.repository.get_job("whole_graph")
    tags = {"dagster/partition": busy}
    night.instance.add_dynamic_partitions("shards", night.shards)
    night.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert night.retried() == [failed]


def test_a_released_clip_is_retried(night: Night) -> None:
    shard = night.shards[0]
    night.fail(shard, "u1", quarantine=True)
    assert night.retried() == []
    config = {"release_units": {"config": {"unit": "u1"}}}
    assert night.run("release_quarantine", ops=config).success
    assert night.retried() == [shard]
    assert night.ledger.entries(unit_id="u1")[0].state is State.PENDING


def test_a_release_of_nothing_in_particular_is_refused(night: Night) -> None:
    night.fail(night.shards[0], "u1", quarantine=True)
    assert not night.run("release_quarantine").success
    assert night.ledger.entries(unit_id="u1")[0].state is State.QUARANTINED


def test_the_upkeep_fails_when_rows_are_missing(night: Night) -> None:
    assert night.run("upkeep").success
    night.ledger.expect("clips", night.shards[0], [("u1", "u1")])
    attempt = night.ledger.start("clips", "u1", fingerprint="f", worker="w", run_id="r")
    night.ledger.finish("clips", "u1", attempt)
    broken = night.run("upkeep")
    assert not broken.success
    failures = [e for e in broken.all_events if e.event_type is dg.DagsterEventType.STEP_FAILURE]
    assert [e.step_key for e in failures] == ["verify_lake"]
