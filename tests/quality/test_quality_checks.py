"""The probes as asset checks: results, crashes, the baseline of good shards in the lake."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from botocore.exceptions import ClientError

from benchmarks.planted_faults import FAULTS, Shard, planted, render_good_shard
from ego_assets import catalog
from ego_assets.catalog import TABLES, all_probes, feature_of
from ego_assets.graph import probe_checks as quality
from ego_assets.graph.check_results import FAILS_HERE, Places
from ego_assets.graph.checks import covers_every_clip, fits_contract
from ego_assets.graph.probe_checks import quality_results, quality_specs
from ego_assets.hands.settings import HandProbeSettings
from ego_assets.quality import baselines
from ego_assets.quality.drift import Run, things_keep_appearing
from ego_assets.quality.failed import failed_checks
from ego_assets.quality.finding import Offender
from ego_assets.quality.settings import ProbeSettings
from ego_assets.robots.settings import RobotProbeSettings
from resources.lake import Lake
from resources.lake.provenance import Provenance
from resources.ledger import Ledger
from tests.contracts.test_schema_evolution import golden_rows

SHARDS = [f"20260101-{i:04d}" for i in range(4)]
PROVENANCE = Provenance(
    **dict.fromkeys(Provenance.__dataclass_fields__, "x") | {"attempt": 1, "token": 1}
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shard, Path]:
    return render_good_shard(tmp_path_factory.mktemp("checks"), seed=6)


def lake_with(folder: Path, shard: Shard, name: str = SHARDS[0]) -> Lake:
    lake = Lake(folder)
    lake.write_shard(name, {"files": []})
    put(lake, shard, name)
    return lake


def put(lake: Lake, shard: Shard, name: str, token: int = 1) -> None:
    provenance = replace(PROVENANCE, token=token)
    for table, rows in shard.items():
        batch = TABLES[table].from_rows([row | {"shard": name} for row in rows])
        lake.publish(table, name, "unit", batch, provenance)


def check(lake: Lake, table: str, *shards: str, **settings: Any) -> dict[str, dg.AssetCheckResult]:
    results = quality_results(
        lake, table, list(shards) or SHARDS[:1], feature_of(table).probe_settings(**settings)
    )
    return {r.check_name: r for r in results if r.check_name}


def fault(name: str) -> Any:
    return next(f for f in FAULTS if f.name == name)


def test_every_spec_has_one_result_and_good_tables_pass(
    tmp_path: Path, sample: tuple[Shard, Path]
) -> None:
    lake = lake_with(tmp_path, sample[0])
    for table in TABLES:
        results = check(lake, table)
        assert list(results) == [s.name for s in quality_specs(table)]
        assert all(s.description for s in quality_specs(table))
        assert all(r.passed for r in results.values()), [
            r.description for r in results.values() if not r.passed
        ]


def test_a_failed_check_lists_the_worst_and_survives_dagster(
    tmp_path: Path, sample: tuple[Shard, Path]
) -> None:
    bad = planted(sample[0], fault("a solver that fails"), seed=1)
    lake = lake_with(tmp_path, bad)

    @dg.asset(name="robot_mappings")
    def table() -> None: ...

    @dg.multi_asset_check(specs=quality_specs("robot_mappings"))
    def checks() -> Any:
        yield from quality_results(lake, "robot_mappings", SHARDS[:1], RobotProbeSettings())

    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(
            assets=[table], asset_checks=[checks]
        ).resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance).success
        records = instance.get_event_records(
            dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        )
    found = {}
    for record in records:
        assert record.event_log_entry.dagster_event is not None
        data = record.event_log_entry.dagster_event.asset_check_evaluation_data
        found[data.check_name] = data
    assert {name for name, data in found.items() if not data.passed} == {"solver_finds_a_solution"}
    metadata = found["solver_finds_a_solution"].metadata
    assert metadata["worst value"].value == pytest.approx(0.2, abs=0.1)
    assert metadata["worst"].records[0].data["where"].startswith(sample[0]["clips"][0]["video_id"])
    assert metadata["distribution of the values"].value.startswith(
        "![solver_finds_a_solution](data:image/png"
    )
    assert len(metadata["distribution of the values"].value) < 40_000


def test_a_frozen_camera_is_compared_with_the_raw_video(
    tmp_path: Path, sample: tuple[Shard, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, video = sample
    lake = lake_with(tmp_path / "lake", planted(shard, fault("a frozen camera"), seed=1))
    found = check(lake, "scene_reconstruction")["cameras_move_with_the_image"]
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    # Without the video there is nothing to compare with, and that is no finding.
    gone = planted(shard, fault("a frozen camera"), seed=1)
    gone["video_manifest"][0]["uri"] = str(tmp_path / "gone.mp4")
    put(lake, gone, SHARDS[0], token=2)
    waits: list[float] = []
    monkeypatch.setattr(quality.time, "sleep", waits.append)
    assert check(lake, "scene_reconstruction")["cameras_move_with_the_image"].passed
    assert sum(waits) == quality.AWAY_S, "its folder may come back"
    assert video.exists()


def test_a_probe_that_crashes_is_a_failed_check(
    tmp_path: Path, sample: tuple[Shard, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = lake_with(tmp_path, sample[0])

    def crash(*_: object) -> None:
        raise ZeroDivisionError("planted")

    probes = catalog.probes("hand_poses")
    broken = [replace(p, measure=crash) if p.name == "hands_do_not_jitter" else p for p in probes]
    monkeypatch.setattr(catalog, "probes", lambda table: broken)
    results = check(lake, "hand_poses")
    failed = [name for name, r in results.items() if not r.passed]
    assert failed == ["hands_do_not_jitter"]
    assert "ZeroDivisionError: planted" in str(results[failed[0]].description)
    assert not baselines.good_shards(lake, "hand_poses", but="")


def test_an_unreadable_table_fails_every_check_and_no_step(
    tmp_path: Path, sample: tuple[Shard, Path]
) -> None:
    lake = lake_with(tmp_path, sample[0])
    (fragment,) = (tmp_path / "hand_poses" / "_fragments" / SHARDS[0]).glob("*.parquet")
    fragment.write_bytes(b"PAR1 no more")
    results = check(lake, "hand_poses")
    assert list(results) == [s.name for s in quality_specs("hand_poses")]
    assert not any(r.passed for r in results.values())


def test_only_good_shards_make_the_baseline(tmp_path: Path, sample: tuple[Shard, Path]) -> None:
    shard, _ = sample
    lake = lake_with(tmp_path, shard)
    for name in SHARDS[1:]:
        put(lake, shard, name)
    check(lake, "hand_poses", *SHARDS)
    first = (tmp_path / "_baselines" / "hand_poses.json").read_bytes()
    assert sorted(json.loads(first)) == SHARDS
    check(lake, "hand_poses", *SHARDS)
    assert (tmp_path / "_baselines" / "hand_poses.json").read_bytes() == first
    put(lake, planted(shard, fault("joints that shake"), seed=1), SHARDS[2], token=2)
    check(lake, "hand_poses", SHARDS[2])
    assert len(baselines.good_shards(lake, "hand_poses", but="")) == 3
    assert len(baselines.good_shards(lake, "hand_poses", but=SHARDS[0])) == 2
    check(lake, "hand_poses", SHARDS[3], baseline_window=2)
    assert len(baselines.good_shards(lake, "hand_poses", but="")) == 2


def test_what_every_shard_is_warned_of_does_not_keep_the_baseline_empty(
    tmp_path: Path, sample: tuple[Shard, Path]
) -> None:
    def baseline(shard: Shard, table: str) -> list[str]:
        lake = lake_with(tmp_path / table, shard)
        for name in SHARDS[1:]:
            put(lake, shard, name)
        for name in SHARDS:
            check(lake, table, name, min_baseline_shards=3)
        found = tmp_path / table / "_baselines" / f"{table}.json"
        return sorted(json.loads(found.read_bytes())) if found.exists() else []

    shaking = planted(sample[0], fault("joints that shake"), seed=1)
    assert baseline(shaking, "hand_poses") == SHARDS[2:]
    beyond = planted(sample[0], fault("a robot out of its limits"), seed=1)
    assert baseline(beyond, "robot_mappings") == []  # an error is never usual


def test_a_raw_video_that_may_not_be_read_is_no_crash_of_a_probe(
    tmp_path: Path, sample: tuple[Shard, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = lake_with(tmp_path, planted(sample[0], fault("a frozen camera"), seed=1))

    def refuse(*_: object) -> None:
        raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")

    monkeypatch.setattr(quality.RawReader, "hold", refuse)
    found = check(lake, "scene_reconstruction")["cameras_move_with_the_image"]
    assert found.passed
    assert found.metadata["frozen stretches without pictures"].value == 2


def test_a_streak_of_empty_videos_is_an_error(tmp_path: Path, sample: tuple[Shard, Path]) -> None:
    blind = planted(sample[0], fault("a segmenter gone blind"), seed=1)
    lake = lake_with(tmp_path, blind)
    for name in SHARDS[1:]:
        put(lake, blind, name)

    def ask(*shards: str) -> dg.AssetCheckResult:
        return check(lake, "object_masks", *shards, max_streak_videos=3)["things_keep_appearing"]

    assert ask(SHARDS[0]).passed
    assert ask(SHARDS[1]).passed
    third = ask(SHARDS[2])
    assert not third.passed
    assert third.severity == dg.AssetCheckSeverity.ERROR
    assert not ask(*SHARDS).passed
    put(lake, sample[0], SHARDS[1], token=2)
    assert ask(SHARDS[1]).passed
    assert ask(SHARDS[3]).passed


def test_shards_that_come_late_take_their_place_in_a_streak(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    empty, full = Run(5, 5, 5), Run(5, 0, 0)
    assert baselines.streak(lake, "hand_masks", "b", empty) == ([empty], 0)
    assert baselines.streak(lake, "hand_masks", "c", full) == ([empty, full], 1)
    assert baselines.streak(lake, "hand_masks", "a", full) == ([full, empty, full], 0)
    assert baselines.streak(lake, "hand_masks", "b", full) == ([full, full, full], 1)


def test_a_streak_is_noticed_in_whatever_order_its_shards_come(tmp_path: Path) -> None:
    failed = {}
    for name, order in (("up", range(8)), ("down", range(7, -1, -1))):
        lake, failed[name] = Lake(tmp_path / name), 0
        for i in order:
            asked = baselines.streak(lake, "hand_masks", f"20261121-{i:04d}", Run(50, 50, 50))
            settings = ProbeSettings(max_streak_videos=200)
            failed[name] += not things_keep_appearing(*asked, settings).passed
    assert failed == {"up": 5, "down": 5}


def test_clips_that_the_ledger_does_not_know_are_not_covered(
    tmp_path: Path, sample: tuple[Shard, Path]
) -> None:
    lake = lake_with(tmp_path / "lake", sample[0])
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    found = covers_every_clip(lake, ledger, "hand_poses", SHARDS[:1])
    assert not found.passed
    assert str(found.description).startswith("0 of 2 done: the ledger knows none of its 2 clips")
    assert found.metadata["unknown"].value == 2
    assert covers_every_clip(lake, ledger, "hand_poses", ["20260101-0009"]).passed  # no clips


def test_the_launchpad_takes_thresholds() -> None:
    from dagster_project.definitions import build_defs

    job = build_defs().resolve_job_def("whole_graph")

    def config(**thresholds: float) -> dict[str, Any]:
        return {"ops": {"hand_poses_checks": {"config": thresholds}}}

    assert dg.validate_run_config(job, config(max_jitter_px=5.0))
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(job, config(max_jiter_px=5.0))


def test_a_shard_that_passes_does_not_hide_one_that_fails(
    tmp_path: Path, sample: tuple[Shard, Path]
) -> None:
    name = "solver_finds_a_solution"
    bad = planted(sample[0], fault("a solver that fails"), seed=1)
    lake = lake_with(tmp_path, bad)
    put(lake, sample[0], SHARDS[1])
    for shard in SHARDS[:2]:
        lake.write_shard(shard, {"files": []})
    assert not check(lake, "robot_mappings", SHARDS[0])[name].passed
    second = check(lake, "robot_mappings", SHARDS[1])[name]
    assert not second.passed
    assert str(second.description).endswith(f"; still fails in {SHARDS[0]}")
    assert second.metadata[FAILS_HERE].value is False
    (row,) = second.metadata["failing shards"].records
    assert row.data["shard"] == SHARDS[0]
    put(lake, sample[0], SHARDS[0], token=2)
    mended = check(lake, "robot_mappings", SHARDS[0])[name]
    assert mended.passed
    assert "failing shards" not in mended.metadata


def test_a_failed_check_says_in_which_file_and_when(
    tmp_path: Path, sample: tuple[Shard, Path]
) -> None:
    bad = planted(sample[0], fault("a solver that fails"), seed=1)
    lake = lake_with(tmp_path, bad)
    result = check(lake, "robot_mappings")["solver_finds_a_solution"]
    (uri,) = {row["uri"] for row in sample[0]["video_manifest"]}
    for record in result.metadata["worst"].records:
        assert record.data["file"] == Path(str(uri)).name
        minutes, seconds = str(record.data["time"]).split(":")
        assert 0 <= int(minutes) * 60 + float(seconds) <= sample[0]["clips"][-1]["end_pts_s"]
    assert "docs/probes.md" in result.metadata["what to do"].value
    (noted,) = failed_checks(lake, ["robot_mappings"])
    for told in (str(result.description), noted["reason"]):
        assert re.search(rf'; look at "{re.escape(Path(str(uri)).name)}" at \d:\d\d\.\d$', told)


def test_every_check_that_fails_names_file_and_time(
    tmp_path: Path, sample: tuple[Shard, Path]
) -> None:
    """Whatever its offenders are: clips, tracks, videos, files, columns, episodes, sources."""
    end_s = sample[0]["video_manifest"][0]["duration_s"]
    seen = set()
    for number, one in enumerate(FAULTS):
        shard = planted(sample[0], one, seed=1)
        (file,) = {Path(str(row["uri"])).name for row in shard["video_manifest"]}
        lake = lake_with(tmp_path / str(number), shard)
        for table, name in sorted(one.must):
            result = check(lake, table)[name]
            assert not result.passed, (one.name, name)
            seen.add(name)
            for record in result.metadata["worst"].records:
                assert record.data["file"] == file, (one.name, name, record)
                minutes, seconds = str(record.data["time"]).split(":")
                assert 0 <= int(minutes) * 60 + float(seconds) <= end_s + 0.1, (one.name, name)
            assert file in str(result.description), (one.name, name)
    assert seen == {p.name for p in all_probes()}, "each check fails by some fault"


def test_a_check_with_nothing_to_look_at_says_so(
    tmp_path: Path, sample: tuple[Shard, Path]
) -> None:
    """Every check of every table, in a shard that has no row at all."""
    lake = lake_with(tmp_path, {name: [] for name in sample[0]})
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    for table in TABLES:
        fits, broken = fits_contract(lake, table, SHARDS[:1])
        covers = covers_every_clip(lake, ledger, table, SHARDS[:1])
        for result in (*check(lake, table).values(), fits, covers):
            assert result.passed
            assert str(result.description).startswith("not judged"), (table, result.check_name)
        assert not broken


def test_no_shard_is_nothing_to_look_at(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for result in quality_results(lake, "hand_poses", [], HandProbeSettings()):
        assert str(result.description).startswith("not judged")


def test_a_mask_alone_says_nothing_of_flicker(tmp_path: Path, sample: tuple[Shard, Path]) -> None:
    lake = lake_with(tmp_path, sample[0] | {"hand_masks": sample[0]["hand_masks"][:1]})
    told = str(check(lake, "hand_masks")["masks_do_not_flicker"].description)
    assert told.startswith("not judged")


def test_a_broken_contract_reaches_status(tmp_path: Path, sample: tuple[Shard, Path]) -> None:
    lake = lake_with(tmp_path, sample[0])
    (fragment,) = (tmp_path / "hand_poses" / "_fragments" / SHARDS[0]).glob("*.parquet")
    fragment.write_bytes(b"PAR1 no more")
    result, broken = fits_contract(lake, "hand_poses", SHARDS[:1])
    assert not result.passed
    assert f"in shard {SHARDS[0]}: cannot be read" in str(result.description)
    list(quality_results(lake, "hand_poses", SHARDS[:1], HandProbeSettings(), broken=broken))
    first = failed_checks(lake, ["hand_poses"])[0]
    assert (first["check"], first["severity"]) == ("fits_contract", "error")
    assert "cannot be read" in first["reason"]


def test_what_is_not_done_has_a_file_and_a_time(tmp_path: Path, sample: tuple[Shard, Path]) -> None:
    lake = lake_with(tmp_path / "lake", sample[0])
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    clips = [clip["clip_id"] for clip in sample[0]["clips"]]
    ledger.expect("hand_poses", SHARDS[0], [(clip, None) for clip in clips])
    result = covers_every_clip(lake, ledger, "hand_poses", SHARDS[:1])
    rows = result.metadata["not done"].records
    (uri,) = {str(row["uri"]) for row in sample[0]["video_manifest"]}
    first = f"0:{sample[0]['clips'][0]['start_pts_s']:04.1f}"
    assert result.description == f"0 of {len(clips)} done; look at {Path(uri).name} at {first}"
    assert [r.data["file"] for r in rows] == [Path(uri).name] * len(clips)
    assert [r.data["time"] for r in rows] == [
        f"0:{clip['start_pts_s']:04.1f}" for clip in sample[0]["clips"]
    ]


def test_a_video_that_is_not_accepted_is_named_as_well(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write_shard(SHARDS[0], {"files": []})
    (row, _) = golden_rows("video_manifest")
    row |= {"frame_count": None, "duration_s": None}
    rejected = row | {"video_id": "b" * 16, "uri": "/raw/tiny.mp4", "accepted": False}
    duplicate = row | {"uri": "/raw/again.mp4", "accepted": False}
    accepted = row | {"uri": "/raw/once.mp4", "accepted": True}
    put(lake, {"video_manifest": [rejected, accepted, duplicate]}, SHARDS[0])
    places = Places(lake, SHARDS[:1])
    assert places.of(Offender("width_px", None, 1.0, "b" * 16)) == ("tiny.mp4", "0:00.0")
    assert places.of(Offender("width_px", None, 1.0, row["video_id"])) == ("once.mp4", "0:00.0")


def test_a_minute_has_sixty_seconds(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.write_shard(SHARDS[0], {"files": []})
    (row, _) = golden_rows("video_manifest")
    row |= {"frame_count": 1000, "duration_s": 59.98, "accepted": True, "uri": "/raw/a.mp4"}
    put(lake, {"video_manifest": [row]}, SHARDS[0])
    last = Offender("uri", 1000, 1.0, row["video_id"])
    assert Places(lake, SHARDS[:1]).of(last) == ("a.mp4", "1:00.0")
