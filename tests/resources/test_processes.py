"""A process is known by its boot, PID namespace, number and first tick; what cannot be told is not
guessed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from resources import processes
from resources.processes import Life, is_gone, life_of, life_of_run, process_name, run_tag
from tests.resources.namespaces import needs_namespaces

ROOT = Path(__file__).resolve().parents[2]
TELL = "import resources.processes as p; print(p.process_name(), flush=True); input()"
ASK = "import sys, resources.processes as p; print(p.life_of(sys.argv[1]).name)"


@contextmanager
def child(*before: str, code: str = TELL) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process, started by the words before, and the first line that it says."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def ask(name: str, *before: str) -> str:
    """What a process that is started by the words before says of a name."""
    command = [*before, sys.executable, "-c", ASK, name]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_a_process_lives_until_it_is_dead() -> None:
    with child() as (process, name):
        assert len(name) <= 128
        assert life_of(name) is Life.ALIVE
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert life_of(name) is Life.GONE, "though its number is not free yet"
        process.wait()
        assert is_gone(name)


def test_a_number_may_go_to_another_process() -> None:
    where, pid, began = process_name().rsplit(":", 2)
    assert life_of(process_name()) is Life.ALIVE
    assert is_gone(f"{where}:{pid}:{int(began) - 1}")


def test_a_process_of_somebody_else_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert life_of(process_name()) is Life.ALIVE


def test_a_process_whose_first_thread_has_ended_lives() -> None:
    code = (
        "import ctypes, threading, time, resources.processes as p\n"
        "def stay(): print(p.process_name(), flush=True); time.sleep(600)\n"
        "threading.Thread(target=stay).start(); time.sleep(0.2)\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    with child(code=code) as (process, name):
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert life_of(name) is Life.ALIVE


def test_the_name_is_the_same_in_every_thread_and_after_the_clock_was_stepped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [process_name()]
    thread = threading.Thread(target=lambda: names.append(process_name()))
    thread.start()
    thread.join()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
    assert {*names, process_name()} == {names[0]}


@pytest.mark.parametrize(
    "name",
    [
        None,
        "w",
        "",
        f"{os.uname().nodename}:1:1700000000000",  # as the release before named itself
        f"{os.uname().nodename}:{os.getpid()}:1",
        f"x@{'0' * 16}-1-1:{os.getpid()}:1",  # another boot
    ],
    ids=["none", "no name", "empty", "earlier release", "no time", "another boot"],
)
def test_what_cannot_be_told_is_not_guessed(name: str | None) -> None:
    assert life_of(name) is Life.UNKNOWN


def test_a_number_that_is_no_process_id_is_nobodys() -> None:
    where = process_name().rsplit(":", 2)[0]
    assert life_of(f"{where}:0:1") is Life.UNKNOWN
    assert life_of(f"{where}:9999999999:1") is Life.UNKNOWN


def test_without_proc_a_name_is_only_unique(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = process_name()
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    assert life_of(known) is Life.UNKNOWN
    mine = process_name()
    assert mine == process_name()
    assert life_of(mine) is Life.UNKNOWN
    processes._random.cache_clear()
    assert mine != process_name()


def test_a_process_that_is_hidden_may_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """hidepid: it can be signalled, or not, and cannot be looked at."""

    def hide(pid: str) -> None:
        raise FileNotFoundError

    name = process_name()
    monkeypatch.setattr(processes, "_look_at", hide)
    assert life_of(name) is Life.UNKNOWN


def test_a_run_is_known_by_its_own_tag() -> None:
    tag = run_tag("r")
    assert life_of_run("r", tag) is Life.ALIVE
    assert life_of_run("another", tag) is Life.UNKNOWN, "inherited from the run before"
    assert life_of_run("r", "") is Life.UNKNOWN


@needs_namespaces
@pytest.mark.parametrize("proc", [["--mount-proc"], []])
def test_two_namespaces_know_nothing_of_each_other(proc: list[str]) -> None:
    apart = ["unshare", "--pid", "--fork", "--kill-child", *proc]
    with child(*apart) as (_, name):
        assert life_of(name) is Life.UNKNOWN
        assert ask(name, *apart).strip() == "UNKNOWN"
        assert ask(process_name(), *apart).strip() == "UNKNOWN"


@needs_namespaces
def test_with_the_proc_of_another_namespace_only_the_dead_are_known() -> None:
    """The number of a live one is shown as that of somebody else there."""
    code = (
        "import os, subprocess, sys, resources.processes as p\n"
        f"other = subprocess.Popen([sys.executable, '-c', {TELL!r}], "
        "stdin=-1, stdout=-1, text=True)\n"
        "name = other.stdout.readline().strip()\n"
        "print(p.life_of(name).name, end=' '); other.kill(); other.wait()\n"
        "print(p.life_of(name).name, flush=True)"
    )
    with child("unshare", "--pid", "--fork", "--kill-child", code=code) as (_, said):
        assert said == "UNKNOWN GONE"
    with child("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", code=code) as found:
        assert found[1] == "ALIVE GONE"


@needs_namespaces
def test_ticks_of_another_time_namespace_are_not_compared() -> None:
    """They are shown as of who reads them."""
    with child() as (process, name):
        assert ask(name).strip() == "ALIVE"
        shifted = ["unshare", "--time", "--fork", "--boottime", "1000"]
        assert ask(name, *shifted).strip() == "UNKNOWN"
        process.send_signal(signal.SIGKILL)
