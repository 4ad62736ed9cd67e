"""Ctrl-C is taken where nothing is half done, and is never lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulated_graph import simulated_backends
from benchmarks.whole_graph import make_lake
from dagster_project.executors.worker import Task
from dagster_project.executors.worker_pool import Worker
from dagster_project.interrupts import Interrupts
from dagster_project.runs import run_shards

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def _in_the_foreground() -> Iterator[None]:
    """A background job of a shell inherits an ignored SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupt_is_raised_at_once_or_at_the_end_of_what_is_held(number: int) -> None:
    handlers = [signal.getsignal(n) for n in NUMBERS]
    done: list[str] = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            signal.raise_signal(number)
            done.append("the rest of it")
        assert done == ["the rest of it"]
        with interrupts.held():
            pass  # it was raised once
        with pytest.raises(KeyboardInterrupt), interrupts.held():  # what is held hangs
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append("not reached")
        assert done == ["the rest of it"]
    assert [signal.getsignal(n) for n in NUMBERS] == handlers


@pytest.mark.timeout(150)
def test_a_run_that_is_interrupted_as_it_is_given_its_command_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EGO_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.setenv("EGO_SIMULATED_SCALE", "0")
    give = Worker.give

    def interrupted(worker: Worker, task: Task) -> None:
        signal.raise_signal(signal.SIGINT)
        give(worker, task)

    monkeypatch.setattr(Worker, "give", interrupted)
    lake = make_lake(tmp_path, shards=1)
    overrides: dict[str, Any] = {"backends": simulated_backends()}
    with pytest.raises(KeyboardInterrupt):
        run_shards(lake.location, lake.shards(), overrides=overrides)
