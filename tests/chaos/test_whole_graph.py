"""`ego run` over real processes, disturbed: killed as a whole group, twice at a time in PID
namespaces of their own, with a raw folder that comes and goes. The rows are those of a calm run.

EGO_CHAOS_KILLS and EGO_CHAOS_COMINGS set how often it is killed, and how often the folder goes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ego_assets.catalog import TABLES
from resources.lake import Lake
from resources.ledger import Ledger, State
from tests.support.rendered import render_sample

pytestmark = [pytest.mark.heavy, pytest.mark.chaos]
KILLS = int(os.environ.get("EGO_CHAOS_KILLS", "4"))
COMINGS = int(os.environ.get("EGO_CHAOS_COMINGS", "3"))
EGO = "from dagster_project.cli import main; main()"
GIVE_UP_S = 900


def ego_run(raw: Path, lake: Path, *before: str, **options: Any) -> subprocess.Popen[str]:
    """`ego run`, in a process group of its own."""
    command = [*before, sys.executable, "-c", EGO, "run", str(raw), "--lake", str(lake), "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, **(pipes | options))  # type: ignore[call-overload, no-any-return]


def summary_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=GIVE_UP_S)
    assert process.returncode == 0, f"{out}\n{err}"
    return json.loads(out)  # type: ignore[no-any-return]


def rows_of(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Every table's rows over all shards; places of arrays hold the token of an attempt."""
    lake = Lake(root)
    found: dict[str, list[dict[str, Any]]] = {}
    for table in TABLES:
        rows = [r for shard in lake.shards() for r in lake.read(table, shard).to_pylist()]
        for row in rows:
            row.pop("shard")
            if row.get("points_uri"):
                arrays = lake.read_arrays(row["points_uri"])
                row["points_uri"] = {name: a.tolist() for name, a in arrays.items()}
        key = TABLES[table].key
        found[table] = sorted(rows, key=lambda r: [str(r[c]) for c in key])
    return found


def assert_all_done(root: Path) -> None:
    counts = Ledger.beside(root).counts()
    assert set(counts) == set(TABLES)
    assert all(set(states) == {State.DONE} for states in counts.values()), counts


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage") / "raw"
    for seed in range(2):
        render_sample(folder, seed=seed, duration_s=1.5, width=320, height=180)
    shutil.rmtree(folder / "truth")
    return folder


@pytest.fixture(scope="module")
def calm(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The rows of an undisturbed run."""
    lake = tmp_path_factory.mktemp("calm") / "lake"
    summary_of(ego_run(raw, lake))
    return rows_of(lake)


def members(group: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group or os.getsid(process.pid) == group:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def test_a_graph_whose_process_group_is_killed_ends_as_if_it_had_not(
    raw: Path,
    calm: dict[str, list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    lake, dice, kills = tmp_path / "lake", random.Random(5), 0
    for _ in range(3 * KILLS):
        process = ego_run(raw, lake, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(dice.uniform(3, 25))
        except subprocess.TimeoutExpired:
            gone = members(process.pid)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            psutil.wait_procs(gone, timeout=30)
            assert not [p for p in gone if p.is_running()], "somebody outlived the run"
            kills += 1
        if kills == KILLS:
            break
        if process.returncode == 0:  # it got through: there is nothing left to be killed at
            for table in TABLES:
                Ledger.beside(lake).requeue(table, _items(lake, table), "chaos")
    summary = summary_of(ego_run(raw, lake))
    assert summary["ok"], summary
    assert rows_of(lake) == calm
    assert_all_done(lake)
    assert kills == KILLS
    assert list(temporary.iterdir()) == []


def _items(lake: Path, table: str) -> list[str]:
    return [e.item_id for e in Ledger.beside(lake).entries(stage=table)]


def can_unshare() -> bool:
    asked = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return (
        bool(shutil.which("unshare")) and not subprocess.run(asked, capture_output=True).returncode
    )


@pytest.mark.parametrize("options", [["--mount-proc"], []], ids=["own proc", "proc of the host"])
def test_two_runs_in_two_pid_namespaces_share_the_work(
    options: list[str],
    raw: Path,
    calm: dict[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    if not can_unshare():
        pytest.skip("unshare --pid is not permitted here")
    lake = tmp_path / "lake"
    space = ["unshare", "--pid", "--fork", "--kill-child", *options]
    one, two = (ego_run(raw, lake, *space) for _ in range(2))
    for summary in map(summary_of, (one, two)):
        assert summary["ok"], summary
    assert rows_of(lake) == calm
    assert_all_done(lake)
    for table in TABLES:
        for entry in Ledger.beside(lake).entries(stage=table):
            assert (entry.attempts, entry.lost) == (1, 0), entry


@contextmanager
def away(folder: Path, leaves_mount_point: bool) -> Iterator[None]:
    """The folder is not there; or, as of a disk that is not mounted, empty."""
    elsewhere = folder.with_name(f"{folder.name} away")
    folder.rename(elsewhere)
    if leaves_mount_point:
        folder.mkdir()
    yield
    if leaves_mount_point:
        folder.rmdir()
    elsewhere.rename(folder)


def test_a_raw_folder_that_comes_and_goes_changes_nothing(
    raw: Path, calm: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    # The rows name the place of the raw files: it has to be that of the calm run.
    lake, dice, gone = tmp_path / "lake", random.Random(3), 0
    process = ego_run(raw, lake)
    while process.poll() is None and not (lake / "video_manifest").exists():
        time.sleep(0.2)  # a folder that is not there at the start is a mistake
    while process.poll() is None and gone < COMINGS:
        with away(raw, leaves_mount_point=gone % 2 == 1):
            time.sleep(dice.uniform(2, 10))
        gone += 1
        time.sleep(dice.uniform(1, 4))
    summary = summary_of(process)
    assert summary["ok"], summary
    assert gone, "it was through before the folder went away"
    assert rows_of(lake) == calm
    assert_all_done(lake)
