"""`ego verify`, `quarantine`, `retry`, `trace`, `sql`, as a person or a script calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from ego_assets.catalog import TABLES
from ego_assets.quality.baselines import remember_good
from resources.lake import Lake
from resources.ledger import Ledger, State
from resources.ledger.adoption import Adoption
from tests.engine.stage_bench import make_bench
from tests.support.rendered import small_sample
from tests.upkeep.test_audit import ITEMS, SHARD, TABLE, Bench, flip


def ego(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == status, done.output
    return done.output if status else done.stdout


@pytest.fixture(autouse=True)
def _own_dagster_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ego` sets it to a folder of its lake: here, for the length of a test."""
    monkeypatch.setenv("DAGSTER_HOME", "")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_verify_tells_and_repairs(bench: Bench) -> None:
    lake = str(bench.lake.root)
    assert "0 problems" in ego("verify", "--lake", lake)
    flip(bench.file, 60)
    told = ego("verify", "--lake", lake, status=1)
    assert f"damaged: {TABLE}/{SHARD}.parquet" in told
    assert "--repair" in told
    assert "requeued 4 units" in ego("verify", "--lake", lake, "--repair")
    assert bench.work() == 4
    assert json.loads(ego("verify", "--lake", lake, "--json"))["problems"] == []


def test_stale_shards_are_listed(tmp_path: Path) -> None:
    work = make_bench(tmp_path)
    Adoption(work.ledger).set_whole("the tables above are none of its work")
    clips = work.lake.read("clips", SHARD)["clip_id"].to_pylist()
    work.ledger.expect("hand_masks", SHARD, [(c, c[:16]) for c in clips])
    for clip in clips:
        attempt = work.ledger.start("hand_masks", clip, fingerprint="f", worker="w", run_id="r")
        work.ledger.finish("hand_masks", clip, attempt)
    lake = work.lake.location
    expected = {SHARD: {"hand_masks": 4}}
    assert json.loads(ego("stale", "--lake", lake, "--json")) == expected
    assert f"{SHARD}: 4 hand_masks" in ego("stale", "--lake", lake)
    other = ego("stale", "--lake", lake, "--shard", "20990101-0000", status=2)
    assert f"did you mean {SHARD}" in other
    work.lake.write_shard("20250101-0000", {"files": []})
    work.lake.storage.write("video_manifest/20250101-0000.parquet", b"damaged")
    done = CliRunner().invoke(main, ["stale", "--lake", lake, "--json"])
    assert json.loads(done.stdout) == expected
    assert "20250101-0000 cannot be judged" in done.stderr


def test_a_report_is_written_into_the_lake(bench: Bench) -> None:
    lake = str(bench.lake.root)
    said = json.loads(ego("report", "--lake", lake, "--days", "2", "--json"))
    assert said["facts"]["runs"] == "none"
    assert "2-day report" in Path(said["html"]).read_text()
    assert "2-day report" in Path(said["markdown"]).read_text().replace("\\", "")
    assert f"{lake}/reports/" in ego("report", "--lake", lake, "--days", "2")


def test_a_meant_drift_is_accepted(bench: Bench) -> None:
    lake = str(bench.lake.root)
    assert "there was no baseline" in ego("accept-drift", "all", "--lake", lake)
    remember_good(bench.lake, "clips", SHARD, {"duration_s": [3, 1]}, 50)
    assert "starts over: clips" in ego("accept-drift", "clips", "--lake", lake)
    kept = json.loads(bench.lake.storage.read("_baselines/clips.before.json"))
    assert kept == {SHARD: {"duration_s": [3, 1]}}
    ego("accept-drift", "clip", "--lake", lake, status=2)


def test_quarantine_is_seen_and_released(bench: Bench) -> None:
    lake, ledger = str(bench.lake.root), bench.ledger
    attempt = ledger.start(TABLE, ITEMS[1], fingerprint="g", worker="w", run_id="r")
    error = "the file ends early\n\nTraceback: line 1"
    ledger.fail(TABLE, ITEMS[1], attempt, error_class="Bad", error=error, quarantine=True)
    assert "the file ends early" in ego("quarantine", "ls", "--lake", lake)
    (listed,) = json.loads(ego("quarantine", "ls", "--lake", lake, "--json"))
    assert (listed["unit_id"], listed["state"]) == (ITEMS[1], "quarantined")
    assert "Traceback: line 1" in ego("quarantine", "show", ITEMS[1], "--lake", lake)
    ego("quarantine", "show", ITEMS[0], "--lake", lake, status=1)
    ego("quarantine", "release", "--lake", lake, status=2)
    assert "1 released" in ego("quarantine", "release", "--unit", ITEMS[1], "--lake", lake)
    assert ledger.entries(item_id=ITEMS[1])[0].state is State.PENDING


def test_sql_prints_rows_and_refuses_to_write(bench: Bench) -> None:
    lake = str(bench.lake.root)
    query = "SELECT count(*) AS n FROM clips"
    assert "12" in ego("sql", query, "--lake", lake)
    assert json.loads(ego("sql", query, "--lake", lake, "--json")) == [{"n": 12}]
    assert "only SELECT" in ego("sql", "DROP VIEW clips", "--lake", lake, status=1)


def test_trace_of_what_is_not_there(bench: Bench) -> None:
    assert "called nothing" in ego("trace", "nothing", "--lake", str(bench.lake.root), status=2)
    named = ego("trace", str(bench.file), "--lake", str(bench.lake.root), "--json")
    assert set(json.loads(named)["units"]) == set(ITEMS)


def test_history_diff_and_rollback(bench: Bench) -> None:
    lake = ["--lake", str(bench.lake.root)]
    bench.work_again("run-two", "g")
    listed = json.loads(ego("history", *lake, "--json"))
    assert [(v["table"], v["runs"]) for v in listed] == [
        ("clips", {"run-two": 4}),
        ("clips", {"r": 4}),
    ]
    assert "run-two: 4" in ego("history", *lake)
    (compared,) = json.loads(ego("diff", "r", "run", *lake, "--json"))
    assert (compared["table"], compared["equal"], compared["changed"]) == ("clips", 12, 0)
    assert "clips" in ego("diff", "r", "run-two", *lake)
    assert "nothing that a run zzz made" in ego("diff", "r", "zzz", *lake, status=2)
    assert "is current again (4 units)" in ego("rollback", "r", *lake)
    assert "was current already" in ego("rollback", "r", *lake)
    assert ego("verify", *lake).startswith("0 problems")
    assert "`ego history`" in ego("rollback", "zzz", *lake, status=2)


def test_without_a_lake_each_says_so(tmp_path: Path) -> None:
    commands = [["verify"], ["quarantine", "ls"], ["retry"], ["trace", "x"], ["sql", "SELECT"]]
    for command in (*commands, ["history"], ["diff", "a", "b"], ["rollback", "a"]):
        assert "ego run" in ego(*command, "--lake", str(tmp_path / "none"), status=1)


@pytest.mark.heavy
def test_a_damaged_lake_is_verified_repaired_and_retried(tmp_path: Path) -> None:
    """The whole graph: damage, repair, retry, and each row traced to its video."""
    video = small_sample(tmp_path / "raw")
    lake_root = str(tmp_path / "lake")
    ran: dict[str, Any] = json.loads(ego("run", str(video), "--lake", lake_root, "--json"))
    lake, ledger = Lake(lake_root), Ledger.beside(Path(lake_root))
    (shard,) = ran["shards"]
    assert "0 problems" in ego("verify", "--lake", lake_root)
    before = {t: lake.read(t, shard) for t in TABLES}
    flip(lake.root / "object_masks" / f"{shard}.parquet", 500)
    (lake.root / "robot_mappings" / f"{shard}.parquet").unlink()
    ego("verify", "--lake", lake_root, status=1)
    ego("verify", "--lake", lake_root, "--repair")
    again = json.loads(ego("retry", "--lake", lake_root, "--json"))
    assert again["ok"] is True
    assert "0 problems" in ego("verify", "--lake", lake_root)
    for table in TABLES:
        changing = [c for c in before[table].column_names if c == "points_uri"]
        assert lake.read(table, shard).drop_columns(changing) == before[table].drop_columns(
            changing
        ), table
    assert ego("retry", "--lake", lake_root).strip() == "nothing to do"
    clip = lake.read("clips", shard)["clip_id"][0].as_py()
    traced = json.loads(ego("trace", clip, "--lake", lake_root, "--json"))
    assert traced["video"]["uri"] == str(video)
    assert set(traced["tables"]) == set(TABLES)
    for table, known in traced["tables"].items():
        assert known["rows"] == before[table].num_rows, table
        assert known["provenance"]["fingerprint"] == known["ledger"]["fingerprint"]
    (entry,) = ledger.entries(stage="object_masks")
    assert entry.run_id == traced["tables"]["object_masks"]["provenance"]["run_id"]
    assert f"hand_poses ({before['hand_poses'].num_rows} rows)" in ego(
        "trace", f"hand_poses/{clip}", "--lake", lake_root
    )
