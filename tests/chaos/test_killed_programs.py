"""`ego run` and `ego up`, killed: no process of theirs stays, and no temporary file."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

from dagster_project.home import open_instance
from resources.lake import Lake
from resources.ledger import Ledger, State
from sensors.lost_runs import end_lost_runs
from tests.dagster_project.ui import wait_for
from tests.resources.ports import free_port
from tests.support.rendered import render_sample

pytestmark = [pytest.mark.slow, pytest.mark.chaos]
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 300.0
MARK = "EGO_TEST_MARK"


@dataclass
class Program:
    """`ego …` in a session of its own, with a temporary folder of its own."""

    process: subprocess.Popen[bytes]
    temporary: Path
    mark: str

    def family(self) -> list[psutil.Process]:
        """All that it has started, whoever their parents are by now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                is_dead = process.status() == psutil.STATUS_ZOMBIE
                if process.environ().get(MARK) == self.mark and not is_dead:
                    found.append(process)
        return found

    def tails(self) -> list[str]:
        return [" ".join(p.cmdline()) for p in self.family() if p.name() == "tail"]

    def left(self) -> list[str]:
        return [str(f.relative_to(self.temporary)) for f in self.temporary.rglob("*")]


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Program]:
    temporary, mark = folder / "temporary", secrets.token_hex(8)
    temporary.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
    environment |= {"TMPDIR": str(temporary), MARK: mark, "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from dagster_project.cli import main; main()", *arguments],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    program = Program(process, temporary, mark)
    try:
        yield program
    finally:
        for one in program.family():
            with suppress(psutil.Error):
                one.kill()
        process.kill()
        process.wait()


def until(what: str, is_so: Callable[[], object], program: Program) -> None:
    def probe() -> object:
        assert program.process.poll() is None, (program.temporary.parent / "log").read_text()[
            -3000:
        ]
        return is_so()

    wait_for(what, probe, LIMIT_S)


@pytest.mark.parametrize("victim", [pytest.param("top", marks=pytest.mark.heavy), "group"])
def test_a_killed_run_leaves_nothing(
    tmp_path: Path, victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    video = render_sample(tmp_path / "raw", seed=6, duration_s=1.0)
    lake = Lake(tmp_path / "lake")
    ledger = Ledger.beside(lake.root)
    with started(tmp_path, "run", str(video), "--lake", str(lake.root)) as program:
        until(
            "clip at work",
            lambda: ledger.entries(stage="hand_masks", states=[State.RUNNING]),
            program,
        )
        assert (program.tails(), program.left()) == ([], [])
        assert len(program.family()) > 2
        if victim == "group":
            os.killpg(program.process.pid, signal.SIGKILL)
        else:
            program.process.kill()
        program.process.wait()
        wait_for("end of all", lambda: not program.family(), LIMIT_S)
        assert program.left() == []
    with open_instance(lake.root) as instance:
        (run,) = instance.get_runs()
        wait_for("last heartbeat", lambda: end_lost_runs(instance, ledger) == [run.run_id], 60)


def test_a_killed_ui_leaves_nothing(tmp_path: Path) -> None:
    lake, port = Lake(tmp_path / "lake"), free_port()
    lake.root.mkdir()
    with started(tmp_path, "up", "--lake", str(lake.root), "--port", str(port)) as program:

        def is_up() -> bool:
            with suppress(requests.RequestException):
                return requests.get(f"http://127.0.0.1:{port}/server_info", timeout=5).ok
            return False

        until("server", is_up, program)
        assert len(program.family()) >= 5
        assert len(list(program.temporary.iterdir())) == 1  # Dagster's sockets, and all else
        os.killpg(program.process.pid, signal.SIGKILL)
        program.process.wait()
        wait_for("end of all", lambda: not program.family(), LIMIT_S)
        assert not is_up()
        assert program.left() == []


@pytest.mark.heavy
def test_what_a_ui_left_that_was_killed_with_all_of_its_own_goes_at_the_next_start(
    tmp_path: Path,
) -> None:
    lake = str(tmp_path / "lake")
    Path(lake).mkdir()
    with started(tmp_path, "up", "--lake", lake, "--port", str(free_port())) as program:
        until("socket", lambda: len(program.left()) > 1, program)
    (left,) = program.temporary.iterdir()
    with started(tmp_path, "up", "--lake", lake, "--port", str(free_port())) as again:
        until("sweep", lambda: not left.exists(), again)
