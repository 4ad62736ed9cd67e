"""At night what is unfinished is run again, once, and the upkeep finds damage."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.definitions import build_defs
from ego_assets.graph.partitions import RANGE_TAGS
from ego_assets.intake import absence, sources
from ego_assets.intake.shards import RawFile, write_shard
from ego_assets.quality.baselines import good_shards, remember_good
from resources.compute import Compute
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.storage import Storage
from sensors import schedules
from tests.engine.stage_bench import write_video
from tests.support.instances import dagster_instance

NIGHT = datetime.now(UTC)


class Night:
    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.lake = Lake(root / "lake")
        self.ledger = Ledger.beside(root / "lake")
        self.instance = instance
        self.resources = {
            "storage": Storage(lake_root=str(root / "lake")),
            "compute": Compute(isolate=False),
        }
        self.repository = build_defs(self.resources).get_repository_def()
        self.shards = [write_shard(self.lake, [RawFile(f"/{n}.mp4", 1, 1.0)]) for n in range(5)]

    def fail(self, shard: str, item: str, *, quarantine: bool = False) -> None:
        self.ledger.expect("clips", shard, [(item, item)])
        attempt = self.ledger.start("clips", item, fingerprint="f", worker="w", run_id="r")
        self.ledger.fail(
            "clips", item, attempt, error_class="E", error="bad luck", quarantine=quarantine
        )

    def retried(self) -> list[str]:
        return [str(r.partition_key) for r in self.requested()]

    def requested(self, night: datetime = NIGHT) -> list[dg.RunRequest]:
        schedule = self.repository.get_schedule_def("nightly_retry_schedule")
        with dg.build_schedule_context(
            self.instance,
            scheduled_execution_time=night,
            repository_def=self.repository,
            resources=self.resources,
        ) as context:
            found: Any = schedule(context)
        return [] if isinstance(found, dg.SkipReason) else list(found)

    def run(self, job: str, **config: Any) -> dg.ExecuteInProcessResult:
        return self.repository.get_job(job).execute_in_process(
            instance=self.instance, run_config=config, raise_on_error=False
        )


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    with dagster_instance(tmp_path) as instance:
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
    over_all = dict(zip(RANGE_TAGS, (done, busy), strict=True))  # a backfill as a single run
    night.instance.create_run_for_job(job, tags=over_all, status=dg.DagsterRunStatus.STARTED)
    assert night.retried() == []


def test_the_retry_finishes_a_shard_that_failed(night: Night, tmp_path: Path) -> None:
    video = tmp_path / "late.mp4"
    shard = write_shard(night.lake, [RawFile(str(video), 1, 1.0)])
    night.instance.add_dynamic_partitions("shards", [shard])
    tables = [dg.AssetKey("video_manifest"), dg.AssetKey("clips")]

    def run(job: str, **tags: str) -> bool:
        return (
            night.repository.get_job(job)
            .execute_in_process(
                instance=night.instance,
                partition_key=shard,
                tags=tags,
                asset_selection=tables,
                raise_on_error=False,
            )
            .success
        )

    (night.lake.root / "shards" / f"{shard}.json").rename(tmp_path / "kept.json")
    assert not run("whole_graph")  # before anything was planned: the ledger knows of nothing
    (tmp_path / "kept.json").rename(night.lake.root / "shards" / f"{shard}.json")
    write_video(video)
    (request,) = night.requested()
    assert request.partition_key == shard
    assert run("retry_unfinished", **request.tags)
    (clip,) = night.ledger.entries(stage="clips", shard=shard)
    assert clip.state is State.DONE
    assert night.requested() == []
    # One that failed later, by itself: what is done of it stays.
    attempt = night.ledger.start("clips", clip.item_id, fingerprint="f", worker="w", run_id="r")
    night.ledger.fail(
        "clips", clip.item_id, attempt, error_class="E", error="bad luck", quarantine=False
    )
    (request,) = night.requested()
    assert run("retry_unfinished", **request.tags)
    assert night.ledger.entries(stage="clips", shard=shard)[0].state is State.DONE
    last = night.instance.get_runs(limit=1)[0]
    assert last.run_config["ops"]["clips"]["config"]["redo_stale"] is False


def test_a_run_that_fails_again_is_left_to_a_person(night: Night) -> None:
    shard = night.shards[0]
    night.instance.add_dynamic_partitions("shards", night.shards)
    job = night.repository.get_job("whole_graph")
    for reason, expected in (("new", [shard]), ("retry", [])):
        tags = {"dagster/partition": shard, "ego/reason": reason}
        night.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.FAILURE)
        assert sorted(night.retried()) == expected


def test_the_shards_that_a_run_over_several_has_lost_are_retried(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files are not there, which the first step of the run finds."""
    for module in (absence, sources):
        monkeypatch.setattr(module, "UNSEEN_S", 0.1)
    lost = night.shards[1:3]
    night.instance.add_dynamic_partitions("shards", night.shards)
    tags = dict(zip(RANGE_TAGS, lost, strict=True))
    job = night.repository.get_job("group_videos")
    job.execute_in_process(instance=night.instance, tags=tags, raise_on_error=False)
    assert sorted(night.retried()) == lost
    running = night.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert night.retried() == []
    night.instance.delete_run(running.run_id)
    for reason, expected in (("new", lost), ("retry", lost[1:])):
        alone = {"dagster/partition": lost[0], "ego/reason": reason}
        night.instance.create_run_for_job(job, tags=alone, status=dg.DagsterRunStatus.FAILURE)
        assert sorted(night.retried()) == expected


def test_a_released_clip_is_retried(night: Night) -> None:
    shard = night.shards[0]
    night.fail(shard, "u1", quarantine=True)
    assert night.retried() == []
    config = {"release_units": {"config": {"unit": "u1"}}}
    assert night.run("release_quarantine", ops=config).success
    assert night.retried() == [shard]
    assert night.ledger.entries(item_id="u1")[0].state is State.PENDING


def test_a_release_of_nothing_in_particular_is_refused(night: Night) -> None:
    night.fail(night.shards[0], "u1", quarantine=True)
    assert not night.run("release_quarantine").success
    assert night.ledger.entries(item_id="u1")[0].state is State.QUARANTINED


def test_the_upkeep_fails_when_rows_are_missing(night: Night) -> None:
    assert night.run("upkeep").success
    night.ledger.expect("clips", night.shards[0], [("u1", "u1")])
    attempt = night.ledger.start("clips", "u1", fingerprint="f", worker="w", run_id="r")
    night.ledger.finish("clips", "u1", attempt)
    broken = night.run("upkeep")
    assert not broken.success
    failures = [e for e in broken.all_events if e.event_type is dg.DagsterEventType.STEP_FAILURE]
    assert [e.step_key for e in failures] == ["verify_lake"]


def test_the_report_is_shown_at_its_asset_and_lies_in_the_lake(night: Night) -> None:
    night.fail(night.shards[0], "u1", quarantine=True)
    job = night.repository.get_job("whole_graph")
    night.instance.create_run_for_job(job, status=dg.DagsterRunStatus.FAILURE)
    schedule = night.repository.get_schedule_def("weekly_report_schedule")
    due = datetime.now(UTC) + timedelta(minutes=1)
    with dg.build_schedule_context(night.instance, scheduled_execution_time=due) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or ()
    assert night.run("write_report", **request.run_config).success
    event = night.instance.get_latest_materialization_event(dg.AssetKey("reports"))
    assert event is not None
    assert event.asset_materialization is not None
    said = {k: v.value for k, v in event.asset_materialization.metadata.items()}
    assert said["in quarantine now"] == "1"
    assert "Weekly report" in said["report"]
    assert "bad luck" in said["report"]
    assert "1 failure" in said["runs"]
    assert "bad luck" in Path(said["page"]).read_text()
    # However late its run begins, it ends when it was due.
    assert f"to {due:%Y-%m-%d %H:%M} UTC" in said["span"]
    wrong = {"gather_report": {"config": {"until": "yesterday"}}}
    assert not night.run("write_report", ops=wrong).success


def test_what_stays_unfinished_keeps_nobody_from_a_turn(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "RETRIES_A_NIGHT", 1)
    for shard in night.shards[:2]:
        night.fail(shard, shard)
    nights = [NIGHT + timedelta(days=n) for n in range(20)]
    turns = {r.partition_key for at in nights for r in night.requested(at)}
    assert turns == set(night.shards[:2])


def test_a_drift_that_was_meant_begins_the_baseline_anew(night: Night) -> None:
    for shard in night.shards:
        remember_good(night.lake, "clips", shard, {"duration_s": [1, 2]}, 100)
        remember_good(night.lake, "hand_poses", shard, {"valid": [1, 2]}, 100)
    assert not night.run("accept_drift").success
    wrong = {"forget_baselines": {"config": {"tables": ["clip"]}}}
    assert not night.run("accept_drift", ops=wrong).success
    right = {"forget_baselines": {"config": {"tables": ["clips"]}}}
    assert night.run("accept_drift", ops=right).success
    assert good_shards(night.lake, "clips", but="") == []
    assert len(good_shards(night.lake, "hand_poses", but="")) == 5


def test_work_on_a_file_that_was_gone_is_retried_when_it_is_back(
    night: Night, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    for name in ("a", "b"):
        write_video(tmp_path / "raw" / f"{name}.mp4", frames=12 if name == "a" else 15)
    files = [RawFile(str(p), 1, 1.0) for p in sorted((tmp_path / "raw").iterdir())]
    shard = write_shard(night.lake, files)
    away = (tmp_path / "raw" / "b.mp4").rename(tmp_path / "b.mp4")
    night.instance.add_dynamic_partitions("shards", [shard])
    done = night.repository.get_job("group_videos").execute_in_process(
        instance=night.instance, partition_key=shard, raise_on_error=False
    )
    assert done.success
    (event,) = [
        e for e in done.get_asset_materialization_events() if str(e.asset_key.path[0])[:2] == "vi"
    ]
    metadata = event.materialization.metadata
    (record,) = metadata["files that are gone"].value.records  # type: ignore[union-attr]
    assert record.data["file"] == str(tmp_path / "raw" / "b.mp4")
    assert night.requested() == []
    away.rename(tmp_path / "raw" / "b.mp4")
    assert night.retried() == [shard]
