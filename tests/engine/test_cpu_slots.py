"""Stages that run side by side share the CPUs of the machine: workers are not multiplied."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from ego_assets.engine.outcome import StageReport
from ego_assets.engine.runner import run_stage
from ego_assets.engine.workers import supervisor
from resources.processes import machine
from resources.processes.fork_server import ForkServerError
from resources.processes.slots import take_cpu
from tests.engine.stage_bench import SHARD, Bench, make_bench

CPUS = 3
PATIENCE_S = 120.0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Six takes, whose clips wait for the file `on`, on a machine with three CPUs."""
    monkeypatch.setenv("EGO_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setattr(machine, "cpus", lambda: CPUS)
    made = make_bench(tmp_path, {f"v{n}": 1 for n in range(6)})
    for clip in clips_of(made):
        made.behave(clip, until=str(tmp_path / "on"), hang=99)
    return made


def clips_of(bench: Bench) -> list[str]:
    return bench.lake.read("clips", SHARD)["clip_id"].to_pylist()


def at_work(bench: Bench) -> int:
    return sum(bench.attempts(clip) for clip in clips_of(bench))


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stage_takes_the_cpus_that_others_leave(bench: Bench) -> None:
    others = [take_cpu() for _ in range(CPUS)]
    reports: list[StageReport] = []
    stage = threading.Thread(
        target=lambda: reports.append(run_stage(bench.spec, workers=5, shares_cpus=True))
    )
    stage.start()
    wait_until(lambda: at_work(bench) == 1)  # one goes on, whatever others have
    for number, other in enumerate(others[:2], start=2):
        assert other is not None
        os.close(other)
        wait_until(lambda number=number: at_work(bench) == number)  # type: ignore[misc]
    time.sleep(2.5)  # it looks twice
    assert at_work(bench) == 3, "the third CPU is another's"
    assert take_cpu() is None
    (bench.folder / "on").touch()
    stage.join(PATIENCE_S)
    assert (reports[0].done, reports[0].failed) == (6, 0)
    mine = take_cpu()
    assert mine is not None, "it gives back what it took"
    for descriptor in (mine, others[2]):
        assert descriptor is not None
        os.close(descriptor)


def test_a_worker_that_cannot_be_started_keeps_no_cpu(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = Mock(side_effect=ForkServerError("no memory"))
    monkeypatch.setattr(supervisor, "fork_from_shared", fork)
    with pytest.raises(ForkServerError):
        run_stage(bench.spec, workers=5, shares_cpus=True)
    free = [cpu for _ in range(CPUS) if (cpu := take_cpu()) is not None]
    for descriptor in free:
        os.close(descriptor)
    assert len(free) == CPUS


def test_a_number_of_workers_that_a_person_gives_holds(bench: Bench) -> None:
    others = [take_cpu() for _ in range(CPUS)]
    stage = threading.Thread(target=run_stage, args=(bench.spec,), kwargs={"workers": 5})
    stage.start()
    wait_until(lambda: at_work(bench) == 5)
    (bench.folder / "on").touch()
    stage.join(PATIENCE_S)
    for other in others:
        assert other is not None
        os.close(other)
