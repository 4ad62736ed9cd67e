"""A run on a terminal: its progress moves to the end, and Ctrl-C stops it in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from pseudo_terminal import EGO, on_terminal

from dagster_project.home import open_instance
from ego_assets.catalog import TABLES
from resources.ledger import Ledger, State
from tests.support.rendered import small_sample

AS_DAGSTER_DOES = """
import sys
from dagster._core.execution.compute_logs import mirror_stream_to_file
from dagster_project.executors.step import show_prints_without_processes
from dagster_project.run_progress import Progress
from dagster_project.cli.terminal import progress_bar

show_prints_without_processes()
with progress_bar() as tell:
    tell(Progress("shard", "before", 0, 3))
    with mirror_stream_to_file(sys.stderr, sys.argv[1]):
        tell(Progress("shard", "while_a_step_runs", 1, 3))
        print("a step's words", file=sys.stderr)
        sys.stdin.readline()
    tell(Progress("shard", "", 3, 3))
"""


def test_the_bar_moves_while_a_step_has_the_descriptors(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with on_terminal([sys.executable, "-c", AS_DAGSTER_DOES, str(log)]) as terminal:
        terminal.read_until(lambda shown: "while_a_step_runs" in shown and "1/3" in shown)
        assert terminal.process.poll() is None
        terminal.read_until(lambda shown: "a step's words" in shown)
        assert log.read_text() == "a step's words\n", "the bar is no part of a step's log"


def test_without_a_terminal_a_line_is_told_while_a_step_runs(tmp_path: Path) -> None:
    words = AS_DAGSTER_DOES.replace("1, 3)", '1, 3, {"clips": (2, 0, 2)})')
    log = tmp_path / "log"
    command = [sys.executable, "-c", words, str(log)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert "shard clips: 2 done" in done.stderr
    assert "clips" not in log.read_text()


@pytest.mark.slow
def test_ctrl_c_cancels_the_run_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    video = small_sample(tmp_path / "raw")
    lake = tmp_path / "lake"
    command = [*EGO, "run", str(video), "--lake", str(lake)]
    with on_terminal(command) as terminal:
        # The bar has to move for that, long after Dagster took the descriptors.
        terminal.read_until(lambda shown: "hand_poses" in shown)
        terminal.press_ctrl_c()
        status = terminal.end()
        words = terminal.shown
    assert status == 130, words
    assert words.rstrip().endswith("Stopped. Run the same command to go on.")
    for noise in ("Traceback", "Error", "Interrupt", "clips:", "━━┳"):
        assert noise not in words, words
    with open_instance(lake) as instance:
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.CANCELED
        kinds = {event.dagster_event_type for event in instance.all_logs(run.run_id)}
        assert dg.DagsterEventType.RUN_FAILURE not in kinds
    ledger = Ledger.beside(lake)
    assert not ledger.entries(states=[State.FAILED, State.QUARANTINED])
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert set(summary["rows"]) == set(TABLES)
    assert summary["rows"]["hand_poses"] > 0
    assert ledger.entries(stage="clips")[0].attempts == 1
