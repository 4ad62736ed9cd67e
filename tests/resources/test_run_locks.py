"""A run's lock tells that its process lives, or that it is gone: whatever the boot, the PID
namespace and the host name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from resources.processes import Life, run_locks
from resources.processes.run_locks import FOLDER, RunLocks
from tests.resources.namespaces import needs_namespaces

ROOT = Path(__file__).resolve().parents[2]
HOLD = (
    "import sys; from resources.processes.run_locks import RunLocks\n"
    "lock = RunLocks(sys.argv[1]).take(sys.argv[2])\n"
    "print(bool(lock), flush=True); input()"
)
ASK = (
    "import sys; from resources.processes.run_locks import RunLocks\n"
    "print(RunLocks(sys.argv[1]).life_of(sys.argv[2]).name)"
)
APART = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


@contextmanager
def run_process(home: Path, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of run `r`."""
    command = [*before, sys.executable, "-c", HOLD, str(home), "r"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        try:
            yield process
        finally:
            process.kill()


def other_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_locks, "boot_id", lambda: "0" * 32)


def files(home: Path) -> list[str]:
    return sorted(f.name for f in (home / FOLDER).iterdir())


def test_a_run_lives_while_its_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = RunLocks(tmp_path)
    assert locks.life_of("r") is Life.UNKNOWN, "no file"
    with run_process(tmp_path) as process:
        assert locks.life_of("r") is Life.ALIVE
        locks.forget("r")
        assert files(tmp_path) == ["r.lock"]
        process.kill()
        process.wait()
        assert locks.life_of("r") is Life.GONE
        other_boot(monkeypatch)
        assert locks.life_of("r") is Life.GONE, "after the machine was restarted"
    locks.forget("r")
    assert files(tmp_path) == []


@needs_namespaces
def test_two_pid_namespaces_see_each_others_locks(tmp_path: Path) -> None:
    with run_process(tmp_path, *APART) as process:
        ask = [*APART, sys.executable, "-c", ASK, str(tmp_path), "r"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        for expected in ("ALIVE", "GONE"):
            told = subprocess.run(ask, env=environment, capture_output=True, text=True, check=True)
            assert told.stdout.strip() == expected
            process.kill()
            process.wait()


def test_a_lock_that_another_machine_may_hold_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = RunLocks(tmp_path)
    with run_process(tmp_path) as process:
        process.kill()
        process.wait()
    monkeypatch.setattr(run_locks, "_file_system", lambda folder: "nfs4")
    assert locks.life_of("r") is Life.GONE, "it was taken on this boot"
    other_boot(monkeypatch)
    assert locks.life_of("r") is Life.UNKNOWN
    locks.forget("r")
    assert files(tmp_path) == ["r.lock"]


def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount() -> None:
    assert run_locks._file_system(Path("/proc/self")) == "proc"


def test_a_lock_ends_with_the_run_and_not_with_a_fork_of_its_process(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path)
    with locks.held("r"):
        if (child := os.fork()) == 0:
            os._exit(locks.life_of("r") is not Life.ALIVE)
        assert os.waitpid(child, 0)[1] == 0
        assert locks.life_of("r") is Life.ALIVE
    assert files(tmp_path) == []


def test_a_fork_does_not_keep_the_lock_of_a_dead_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from resources.processes.run_locks import RunLocks\n"
        "lock = RunLocks(sys.argv[1]).take('r')\n"
        "if os.fork(): os._exit(0)\n"
        "print('there', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.wait()
        assert RunLocks(tmp_path).life_of("r") is Life.GONE


def test_a_run_that_is_started_again_takes_the_file_over(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path)
    with run_process(tmp_path) as process:
        process.kill()
        process.wait()
    first = locks.take("r")
    second = locks.take("r")
    assert first is not None
    assert second is not None
    first.release()
    first.release()
    assert locks.life_of("r") is Life.ALIVE
    second.release()
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_written_gives_no_sign(tmp_path: Path) -> None:
    (tmp_path / FOLDER).touch()
    locks = RunLocks(tmp_path)
    assert locks.take("r") is None
    assert locks.life_of("r") is Life.UNKNOWN
    assert locks.run_ids() == []
    locks.sweep()
    assert RunLocks(tmp_path / "lake").take("no/such/folder") is None


def test_what_a_killed_process_left_half_made_is_swept(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path)
    with locks.held("r"):
        (tmp_path / FOLDER / ".half.lock").touch()
        locks.sweep()
        assert files(tmp_path) == ["r.lock"]
