"""What is killed leaves nothing among the temporary files, and no process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from resources.processes import owned_folders as temporary
from resources.processes.owned_folders import make_temporary_folder, sweep, temporary_folder
from tests.engine.stage_bench import Bench

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0

ASK_THE_SERVER = """
import os, signal, sys
from resources.processes import fork_server

def answer(pipe, number):
    pipe.send((os.getpid(), number))

if __name__ == "__main__":
    for number in range(3):
        process = fork_server.fork_from_shared("ask:answer", [], number)
        assert process.connection.recv() == (process.pid, number)
        assert process.has_ended(None)
        assert process.status == 0
        print(*os.listdir(os.environ["TMPDIR"]), flush=True)
        if number == 1:
            (server,) = fork_server.shared_pids() - {None}
            os.kill(server, signal.SIGKILL)
            os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
"""


@pytest.mark.parametrize("length", [1, 180])
def test_the_fork_server_has_no_file_however_long_the_folders_name(
    tmp_path: Path, length: int
) -> None:
    """And it starts again when it was killed."""
    folder = tmp_path / ("x" * length)
    folder.mkdir()
    (tmp_path / "ask.py").write_text(ASK_THE_SERVER)
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "ask.py")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n" * 3
    assert list(folder.iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of this process."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


def test_a_folder_is_swept_when_its_owner_is_dead_and_not_before(folder: Path) -> None:
    with temporary_folder() as mine:
        (mine / "file").touch()
        theirs, descriptor = make_temporary_folder()
        (theirs / "inside").mkdir()
        assert sweep() == 0
        os.close(descriptor)  # as the kernel does it
        assert sweep() == 1
        assert list(folder.iterdir()) == [mine]
    assert list(folder.iterdir()) == []


def test_only_folders_of_ours_are_swept(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (folder / f"{temporary.PREFIX}link").symlink_to(target)
    (folder / f"{temporary.PREFIX}file").touch()
    (folder / "other").mkdir()
    for name in (
        "ego_videos",
        "ego-lake",
        f"{temporary.PREFIX}lake",
        f"{temporary.PREFIX}12345678",
    ):
        (folder / name).mkdir()
        (folder / name / "a.mp4").touch()  # a person's, whatever it is called
    assert sweep() == 0
    assert len(list(folder.rglob("*"))) == 11
    assert target.is_dir()


def test_a_folder_that_is_swept_while_it_is_made_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = temporary.fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if how == temporary.fcntl.LOCK_SH and not made:
            made.append(descriptor)
            assert sweep() == 1
        real(descriptor, how)

    monkeypatch.setattr(temporary.fcntl, "flock", late)
    with temporary_folder() as mine:
        assert list(folder.iterdir()) == [mine]


def _use_multiprocessing(pipe: multiprocessing.connection.Connection, is_killed: bool) -> None:
    temporary.own_folder_of_multiprocessing()
    with multiprocessing.get_context("spawn").Manager() as manager:
        pipe.send(manager.list([1])[0])
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_multiprocessing_needs_a_folder_for_goes(folder: Path, is_killed: bool) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_use_multiprocessing, args=(theirs, is_killed))
    process.start()
    assert ours.recv() == 1
    process.join()
    wait_until(lambda: sweep() >= 0 and list(folder.iterdir()) == [])


def _run(spec, temporary_files: str) -> None:  # type: ignore[no-untyped-def]
    from ego_assets.engine.runner import run_stage

    os.setpgid(0, 0)
    os.environ["TMPDIR"] = temporary_files
    run_stage(spec, workers=2)


@pytest.mark.parametrize("victim", ["top", "group", "server"])
def test_a_stage_that_is_killed_leaves_nothing(bench: Bench, victim: str) -> None:
    """Not even a folder that a worker needs while it works."""
    folder = bench.folder / "temporary"
    folder.mkdir()
    for clip in bench.lake.read("clips", bench.spec.shard)["clip_id"].to_pylist():
        bench.behave(clip, sleep_s=600, makes_folder=True)
    process = multiprocessing.get_context("spawn").Process(
        target=_run, args=(bench.spec, str(folder))
    )
    process.start()
    wait_until(lambda: len(list(folder.iterdir())) == 2)
    assert process.pid
    family = psutil.Process(process.pid).children(recursive=True)
    if victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    elif victim == "top":
        os.kill(process.pid, signal.SIGKILL)
    else:
        for one in family:
            with suppress(psutil.NoSuchProcess):  # it has ended by itself
                if "forking" in " ".join(one.cmdline()) and one.ppid() == process.pid:
                    one.kill()
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_S)
    assert not alive
    if victim == "top":  # the fork server saw it
        assert list(folder.iterdir()) == []
    os.environ["TMPDIR"], before = str(folder), os.environ.get("TMPDIR")
    tempfile.tempdir = None
    try:
        sweep()  # as the next start does
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before
        tempfile.tempdir = None
    assert list(folder.iterdir()) == []


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
