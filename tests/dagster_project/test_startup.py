"""`ego` in odd surroundings: right, or a sentence before anything is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dagster_project.startup import pictures_served
from ego_assets.environment import PICTURES, SERVED
from resources.lake import Lake

MAIN = "from dagster_project.cli import main; main(prog_name='ego')"
FIRST_TABLE = "video_manifest"


def ego(*arguments: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", MAIN, *arguments]
    done = subprocess.run(command, capture_output=True, env=os.environ | environment, timeout=500)
    assert done.returncode == status, done.stdout.decode() + done.stderr.decode()[-4000:]
    return done


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("EGO_KEEP_VERSIONS", "abc"),
        ("EGO_LEDGER_URL", "abc"),
        ("EGO_BACKENDS", "/none.yaml"),
        ("EGO_SCRATCH", "s3://b/x"),
        ("EGO_ALLOWED_HOSTS", "https://ui.example.org"),
    ],
)
def test_a_wrong_variable_ends_a_command_before_it_begins(
    tmp_path: Path, name: str, given: str
) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    lake = tmp_path / "lake"
    done = ego("run", str(tmp_path), "--lake", str(lake), status=1, **{name: given})
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"Error: {name}")
    assert not lake.exists()


@pytest.mark.parametrize("name", ["s3://b/x", "file"])
def test_the_demo_has_a_folder_of_this_machine(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    given = name if "://" in name else str(tmp_path / name)
    done = ego("demo", "--lake", given, status=2)
    assert "Error: Invalid value for '--lake'" in done.stderr.decode()


@pytest.mark.parametrize("lake", ["file", "x" * 300])
def test_a_lake_that_cannot_be_one_ends_a_command_before_it_begins(
    tmp_path: Path, lake: str
) -> None:
    (tmp_path / "file").touch()
    done = ego("run", str(tmp_path), "--lake", str(tmp_path / lake), status=2)
    assert "Error: Invalid value for '--lake'" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_help_is_given_and_the_doctor_asked_whatever_the_environment(tmp_path: Path) -> None:
    ego("run", "--help", EGO_KEEP_VERSIONS="abc")
    done = ego("doctor", "--json", "--lake", str(tmp_path), status=1, EGO_KEEP_VERSIONS="abc")
    findings = {f["what"]: f for f in json.loads(done.stdout)}
    assert findings["environment"]["state"] == "missing"
    assert findings["environment"]["facts"].startswith("EGO_KEEP_VERSIONS is 'abc'")


ASCII = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii:strict",
}


@pytest.mark.heavy
def test_everything_odd_at_once(tmp_path: Path) -> None:
    """No UTF-8, an ASCII terminal, a long TMPDIR, hostile neighbours: the good file comes in, the
    others are named once, each with its reason."""
    raw = tmp_path / "rü"
    raw.mkdir()
    long = "x" * 251 + ".mp4"
    (raw / long).write_text("no video")
    (raw / "ü.mp4").write_text("no video, neither")
    (raw / "loop.mp4").symlink_to("loop.mp4")
    (raw / "out.mp4").symlink_to("/etc/hostname")
    temp = tmp_path / ("t" * 100)
    temp.mkdir()
    lake = tmp_path / "lü"
    done = ego(
        "run", str(raw), "--lake", str(lake), status=1, TMPDIR=str(temp), **ASCII
    )  # all are rejected, hence 1
    told = done.stdout.decode("ascii")
    rows = {Path(r["uri"]).name: r for r in Lake(lake).read(FIRST_TABLE, shard(lake)).to_pylist()}
    reasons = {name: row["reject_reason"] for name, row in rows.items()}
    assert reasons == {long: "not_media", "ü.mp4": "not_media"}
    for name, why in {
        long: "not_media: text",
        r"\xfc.mp4": "not_media: text",
        "loop.mp4": "refused: a link that leads in a circle",
        "out.mp4": "refused: a link that leads out of its folder",
    }.items():
        assert f"/{name}: {why}" in told
    assert "videos: 2, accepted 0, rejected 2" in told
    found = json.loads(ego("status", "--lake", str(lake), "--json", **ASCII).stdout)
    assert found["lake"] == str(lake)
    assert found["failures"] == []


def shard(lake: Path) -> Any:
    (found,) = Lake(lake).shards()
    return found


def test_a_run_in_this_process_leaves_no_choice_of_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(PICTURES, raising=False)
    with pictures_served():
        assert os.environ[PICTURES] == SERVED
    assert PICTURES not in os.environ
