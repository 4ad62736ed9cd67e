"""Two runs on one shard that cannot see each other's processes, or whose clocks disagree: each
clip is done once, none is held for lost, none is quarantined."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ego_assets.engine.plan import StageSpec
from resources.ledger import State
from tests.engine.stage_bench import SHARD, Bench, make_bench
from tests.resources.namespaces import needs_namespaces

pytestmark = [pytest.mark.slow, pytest.mark.chaos]
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 240.0
BUSY_LOOKS = 14
"""Each after half a second: longer than a claim is watched before it is taken over."""
VIDEOS = {"v0": 2, "v1": 2}

STEPPED_CLOCK = """
import os, time
import resources.processes.silence as silence
silence.BEAT_S, silence.GRACE_S, silence.WATCH_S = 1.0, 3.0, 5.0
_clock, _sleep = time.time, time.sleep

def _step():
    try:
        with open(os.environ["TEST_CLOCK"]) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0

def sleep(seconds):
    if seconds == 0.5:  # another run has the clip
        with open(os.environ["TEST_LOOKS"], "a") as file:
            file.write(".")
    _sleep(seconds)

time.time, time.sleep = lambda: _clock() + _step(), sleep
import psutil._pslinux as linux
_boot_time = linux.boot_time
linux.boot_time = lambda *a, **k: _boot_time(*a, **k) + _step()  # as /proc/stat says after a step
"""
"""As sitecustomize: clocks of a run, of which a file says how wrong they are."""
RUN = "import pickle, sys; from ego_assets.engine.runner import run_stage; " + (
    "run_stage(pickle.loads(bytes.fromhex(sys.argv[1])), workers=2)"
)


@dataclass
class Run:
    """A run of the stage in a process of its own, with a clock of its own."""

    folder: Path
    process: subprocess.Popen[str]

    def step_clock(self, seconds: float) -> None:
        (self.folder / "clock").write_text(str(seconds))

    @property
    def looks(self) -> int:
        """How often it found that another run has a clip."""
        path = self.folder / "looks"
        return path.stat().st_size if path.exists() else 0


@contextmanager
def started(bench: Bench, name: str, *before: str, ahead_s: float = 0.0) -> Iterator[Run]:
    folder = bench.folder / name
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(STEPPED_CLOCK)
    (folder / "clock").write_text(str(ahead_s))
    spec: StageSpec = replace(bench.spec, run_id=name)
    path = [str(folder), str(ROOT)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "TEST_CLOCK": str(folder / "clock"),
        "TEST_LOOKS": str(folder / "looks"),
    }
    process = subprocess.Popen(
        [*before, sys.executable, "-c", RUN, pickle.dumps(spec).hex()],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Run(folder, process)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.wait()


def wait_until(is_so: object) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Whose clips wait for the file `on`."""
    made = make_bench(tmp_path, VIDEOS)
    for clip in clips_of(made):
        made.behave(clip, until=str(tmp_path / "on"), hang=99)
    return made


def clips_of(bench: Bench) -> list[str]:
    return bench.lake.read("clips", SHARD)["clip_id"].to_pylist()


def let_go(bench: Bench, *others: Run) -> None:
    """The first run has all takes until the others have looked at its claims for long."""
    wait_until(lambda: all(o.looks >= BUSY_LOOKS for o in others) or done_twice(bench))
    (bench.folder / "on").touch()


def done_twice(bench: Bench) -> list[str]:
    return [clip for clip in clips_of(bench) if bench.attempts(clip) > 1]


def check(bench: Bench) -> None:
    assert done_twice(bench) == []
    entries = bench.ledger.entries(stage="object_movements")
    assert {(e.state, e.attempts, e.lost) for e in entries} == {(State.DONE, 1, 0)}
    assert bench.lake.read("object_movements", SHARD).num_rows == 4


def begun(bench: Bench) -> bool:
    """Whether a run is at the first clip of each take."""
    return sum(bench.attempts(c) for c in clips_of(bench)) == len(VIDEOS)


@needs_namespaces
def test_runs_in_containers_with_one_host_name_share_the_work(bench: Bench) -> None:
    """One of them even has the /proc of another namespace, as of a container that is badly made."""
    apart = ("unshare", "--pid", "--fork", "--kill-child")
    with started(bench, "first", *apart, "--mount-proc"):
        wait_until(lambda: begun(bench))
        with (
            started(bench, "second", *apart, "--mount-proc") as second,
            started(bench, "third", *apart) as third,
        ):
            let_go(bench, second, third)
    check(bench)


def test_no_wrong_clock_takes_anything_from_a_run(bench: Bench) -> None:
    """That of the machine is put forward, and others are an hour off."""
    with started(bench, "first") as first:
        wait_until(lambda: begun(bench))
        first.step_clock(1800)
        with (
            started(bench, "second", ahead_s=3600) as second,
            started(bench, "third", ahead_s=-3600) as third,
        ):
            let_go(bench, second, third)
    check(bench)
