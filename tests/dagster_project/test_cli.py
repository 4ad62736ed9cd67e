"""`ego` as a person or a script uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from ego_assets.catalog import TABLES
from resources.lake import Lake
from tests.support.rendered import small_sample

EGO = str(Path(sys.executable).with_name("ego"))


def ego(*arguments: str, status: int = 0) -> str:
    done = subprocess.run([EGO, *arguments], capture_output=True, text=True, timeout=500)
    assert done.returncode == status, f"{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


def ego_here(*arguments: str, status: int = 0) -> str:
    """As `ego`, without a process of its own: for what computes nothing."""
    done = CliRunner().invoke(main, list(arguments), prog_name="ego")
    assert done.exit_code == status, done.output
    return done.stdout


def ego_json(*arguments: str, status: int = 0) -> Any:
    return json.loads(ego(*arguments, "--json", status=status))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good sample, its renamed copy, and a file of text."""
    folder = tmp_path_factory.mktemp("raw")
    video = small_sample(folder)
    (folder / "a_copy.mp4").write_bytes(video.read_bytes())
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    return folder


@pytest.fixture(scope="module")
def first(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    lake = tmp_path_factory.mktemp("run") / "lake"
    return lake, ego_json("run", str(raw), "--lake", str(lake))


@pytest.mark.slow
def test_run_makes_every_table(first: tuple[Path, dict[str, Any]]) -> None:
    lake, summary = first
    assert summary["videos"] == {"total": 3, "accepted": 1, "rejected": 2}
    assert summary["clips"] == {"total": 1, "done": 1, "failed": 0, "quarantined": 0}
    assert summary["ok"] is True
    assert set(summary["rows"]) == set(TABLES)
    assert summary["rows"]["scene_reconstruction"] == 30
    assert summary["rows"]["hand_poses"] == summary["rows"]["hand_masks"] > 0
    assert summary["lake"] == str(lake)
    assert {"clips", "segmentation", "robot_mappings"} <= set(summary["seconds"])
    reasons = {Path(r["uri"]).name: r["reason"] for r in summary["rejected"]}
    assert "text.mp4" in reasons
    assert "duplicate" in reasons.values()
    shard = summary["shards"][0]
    for table, model in TABLES.items():
        assert model.violations(Lake(lake).read(table, shard)) == []


@pytest.mark.slow
def test_run_again_changes_nothing(first: tuple[Path, dict[str, Any]], raw: Path) -> None:
    lake, summary = first
    files = {p: p.read_bytes() for p in lake.rglob("*.parquet")}
    again = json.loads(ego_here("run", str(raw), "--lake", str(lake), "--json"))
    assert again["rows"] == summary["rows"]
    assert again["shards"] == summary["shards"]
    assert {p: p.read_bytes() for p in lake.rglob("*.parquet")} == files


@pytest.mark.slow
def test_status_tells_what_is_done(first: tuple[Path, dict[str, Any]]) -> None:
    lake, _ = first
    found = ego_json("status", "--lake", str(lake))
    assert found["stages"]["robot_mappings"]["done"] == 1
    assert found["failures"] == []
    assert "robot_mappings" in ego_here("status", "--lake", str(lake))


@pytest.mark.slow
def test_if_every_video_is_rejected_the_run_failed(tmp_path: Path) -> None:
    """And a setting that is given goes before the file of EGO_BACKENDS, also as the default."""
    raw, lake = tmp_path / "raw", Lake(tmp_path / "lake")
    raw.mkdir()
    (raw / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    backends = tmp_path / "backends.yaml"
    backends.write_text("settings: {probe: {max_duration_s: 5, min_duration_s: 1}}\n")
    given = ["--backends", str(backends), "--set", "video_manifest.max_duration_s=3600"]
    summary = ego_json("run", str(raw), "--lake", lake.location, *given, status=1)
    assert summary["videos"] == {"total": 1, "accepted": 0, "rejected": 1}
    assert summary["ok"] is False
    (made,) = lake.provenances("video_manifest", summary["shards"][0]).values()
    settings = json.loads(made.settings)
    assert (settings["max_duration_s"], settings["min_duration_s"]) == (3600, 1)


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    ego_here("run", str(tmp_path / "nothing"), "--lake", str(tmp_path / "lake"), status=2)
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("command", ["demo", "run", "up", "status", "doctor"])
def test_every_command_has_help(command: str) -> None:
    assert f"Usage: ego {command}" in ego_here(command, "--help")


def test_doctor_lists_backends_and_codecs(tmp_path: Path) -> None:
    findings = json.loads(ego_here("doctor", "--lake", str(tmp_path / "lake"), "--json"))
    found = {f["what"]: f for f in findings}
    assert found["codecs"]["state"] == "ok"
    assert "segmenter: landmarks (chosen)" in found
    assert all(f["state"] != "missing" for f in findings)


def test_commands_that_need_no_dagster_do_not_wait_for_it() -> None:
    """`ego status` answers in under a second; Dagster alone takes that long to import."""
    look = "import sys, dagster_project.cli; print([m for m in sys.modules if m == 'dagster'])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
