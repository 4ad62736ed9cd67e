"""What is so of every process that others start: its last words, its end, what it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from resources.processes import fork_server, last_words
from resources.processes.fork_server import (
    MARK_VARIABLE,
    ForkServer,
    ForkServerError,
    fork_from_shared,
)
from resources.processes.last_words import LastWords
from resources.processes.lifetime import cause_of_death, is_running
from resources.processes.program import Program

PATIENCE_S = 120.0
HERE = "tests.resources.test_child_processes"


def wait_until(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.02)


def test_the_last_words_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_words, "MOST_BYTES", 1000)
    words = LastWords()
    talks = "while read line; do printf '%0500d\\n%s\\n' 0 $line; done"
    with subprocess.Popen(["sh", "-c", talks], stdin=subprocess.PIPE, stdout=words) as process:
        assert process.stdin is not None
        for number in range(5):
            process.stdin.write(b"line%d\n" % number)
            process.stdin.flush()
            wait_until(lambda said=f"line{number}": said in words.tail())
            words.trim()
            assert os.fstat(words.fileno()).st_size <= 1000
    assert words.tail().endswith("line4")
    assert "line3" not in words.tail()


def does(connection: Connection, argument: str) -> None:
    if argument == "starts":
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        connection.send(child.pid)
        connection.recv()
    elif argument == "speaks":
        print("my last words", file=sys.stderr)
        os._exit(3)
    elif argument == "daemonises":
        script = "sleep 600 >/dev/null & echo $!"
        connection.send(int(subprocess.check_output(["sh", "-c", script], start_new_session=True)))
        connection.recv()
    elif argument == "ends":
        connection.recv()
    elif argument == "environment":
        connection.send(os.environ.get("ASKED_FOR"))


def does_nothing(connection: Connection, argument: str) -> None: ...


def test_a_process_is_forked_speaks_and_ends() -> None:
    server = ForkServer(f"{HERE}:does")
    speaks = server.fork("speaks", LastWords())
    assert speaks.has_ended(PATIENCE_S)
    assert (speaks.status, speaks.how) == (3, "exited with status 3")
    assert speaks.last_words() == "my last words"
    for given, expected in ((None, None), ({"ASKED_FOR": "1"}, "1")):
        asked = server.fork("environment", environment=given)
        assert asked.connection.recv() == expected
    server.close()


@pytest.mark.parametrize("victim", ["worker", "server"])
def test_what_a_process_has_started_ends_with_it(victim: str) -> None:
    server = ForkServer(f"{HERE}:does")
    forked = server.fork("starts")
    helper = psutil.Process(forked.connection.recv())
    os.kill(forked.pid if victim == "worker" else server.process.pid, signal.SIGKILL)
    assert forked.has_ended(PATIENCE_S)
    if victim == "worker":
        assert forked.how == cause_of_death(-signal.SIGKILL) == "was killed by SIGKILL"
    else:
        assert forked.status is None
        server.kill_strays()
        with pytest.raises(ForkServerError, match="the server of the workers died"):
            server.fork("starts")
        assert server.is_dead
    assert not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE
    server.close()


def test_what_a_living_process_has_daemonised_lives_when_another_ends() -> None:
    server = ForkServer(f"{HERE}:does")
    lives, ends = server.fork("daemonises"), server.fork("ends")
    orphan = psutil.Process(lives.connection.recv())
    assert orphan.ppid() == lives.pid  # its own parent is gone
    ends.say("end")
    assert ends.has_ended(PATIENCE_S)
    assert is_running(orphan)
    lives.kill()
    assert lives.has_ended(PATIENCE_S)
    assert not is_running(orphan)
    server.close()


@pytest.fixture
def main() -> Iterator[str]:
    """What the processes of a shared server do, whose server ends with the test."""
    yield f"{HERE}:does"
    if (server := fork_server._shared.pop(f"{HERE}:does", None)) is not None:
        server.close()


def test_strays_of_a_shared_server_are_killed_before_another_is_started(
    main: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK_VARIABLE, "outer")  # of a server that this process itself is below
    forked = fork_from_shared(main, [], "starts")
    helper = psutil.Process(forked.connection.recv())
    marks = helper.environ()[MARK_VARIABLE].split()
    assert marks == ["outer", fork_server._shared[main].mark]
    fork_server._shared[main].process.kill()
    assert forked.has_ended(PATIENCE_S)
    assert fork_from_shared(main, [], "speaks", LastWords()).has_ended(PATIENCE_S)
    assert not is_running(helper)


@pytest.mark.timeout(120)
def test_a_server_that_dies_at_each_fork_is_not_started_for_ever(
    main: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    (tmp_path / "dies_at_fork.py").write_text(
        f"import os\nopen({str(starts)!r}, 'a').write('x')\n"
        "os.fork = lambda: os.kill(os.getpid(), 9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ForkServerError, match=r"died 3 times in a row.*memory"):
        fork_from_shared(main, ["dies_at_fork"], "speaks")
    assert starts.read_text() == "xxx"


@pytest.mark.timeout(120)
def test_a_server_that_does_not_answer_costs_no_more_than_the_limit() -> None:
    server = ForkServer(f"{HERE}:does")
    assert server.fork("speaks", LastWords()).has_ended(PATIENCE_S)
    server.process.suspend()
    with pytest.raises(ForkServerError, match=r"took more than 0\.1 s"):
        server.fork("speaks", timeout_s=0.1)
    server.close()


def test_a_server_that_was_forked_ahead_is_kept_for_its_purpose_and_knows_what_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fork_server.server_ready(f"{HERE}:does", own_group=True):
        monkeypatch.setenv("ASKED_FOR", "since then")
        (ahead,) = fork_server._ahead
        other = ForkServer(f"{HERE}:does_nothing")
        server = ForkServer(f"{HERE}:does")
    other.close()
    assert server.process == ahead.process
    assert other.process != ahead.process
    assert os.getpgid(server.process.pid) == server.process.pid
    forked = server.fork("environment")
    assert forked.connection.recv() == "since then"
    assert forked.has_ended(PATIENCE_S)
    server.close()
    with fork_server.server_ready(f"{HERE}:does"):
        (unused,) = fork_server._ahead
    assert not unused.process.is_running()


def test_a_module_that_does_not_load_is_told() -> None:
    with pytest.raises(ForkServerError, match=r"(?s)do not load.*'no_such_module'"):
        ForkServer(f"{HERE}:does", ["no_such_module"]).fork("speaks")


def test_a_program_is_killed_with_its_session_when_nobody_has_it() -> None:
    program = Program(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE)
    assert program.process.stdout is not None
    helper = int(program.process.stdout.readline())
    assert program.is_running()
    del program
    wait_until(lambda: not psutil.pid_exists(helper))
