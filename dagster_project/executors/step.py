"""Does one step of a run in a worker process, and tells the run its events.

Here: the worker's side. Not here: who starts the worker (`worker_pool`), what the run does with the
events (`run_loop`).
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution import compute_logs
from dagster._core.execution.api import create_execution_plan, execute_plan_iterator
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.retries import RetryMode
from dagster._core.log_manager import DagsterLogManager
from dagster._utils.error import SerializableErrorInfo, serializable_error_info_from_exc_info
from dagster._utils.interrupts import capture_interrupts

from dagster_project.executors.storages.sqlite_engines import keep_engines
from dagster_project.executors.worker import pop_early_interrupt
from resources.environment import go_without_gpu

STEP = "dagster_project.executors.step:run_step"
SHOW_TICK_S = 0.1
SHOWING_S = 5.0
"""How long a step waits at its end for whoever reads the run's output."""


@dataclass(frozen=True)
class StepCommand:
    """All that a worker needs to know of a step."""

    step_key: str
    job: Any
    run: Any
    run_config: Mapping[str, object]
    instance_ref: bytes
    retry_mode: RetryMode
    known_state: KnownExecutionState | None
    load_data: Any
    place: str
    without_gpu: str


@dataclass(frozen=True)
class Broke:
    """The step ended outside of what Dagster knows to be a step's failure."""

    error: SerializableErrorInfo


@lru_cache(maxsize=1)
def _instance(pickled_ref: bytes) -> dg.DagsterInstance:
    """Kept open from step to step: opening the storages takes longer than a small step."""
    keep_engines()
    return dg.DagsterInstance.from_ref(pickle.loads(pickled_ref))  # noqa: S301  (our own run's)


def run_step(command: StepCommand, tell: Callable[[Any], None]) -> bool:
    """Do one step in this worker and tell its events; whether the step succeeded."""
    succeeded = False
    go_without_gpu(command.without_gpu)
    show_prints_without_processes()
    with capture_interrupts():
        if pop_early_interrupt():
            signal.raise_signal(signal.SIGINT)
        try:
            for event in _events_of_step(command):
                tell(event)
                succeeded = succeeded or event.is_step_success
        except (Exception, KeyboardInterrupt, DagsterExecutionInterruptedError):
            tell(Broke(serializable_error_info_from_exc_info(sys.exc_info())))
            return False
    return succeeded


@contextmanager
def _mirror(path: str, stream: Any) -> Iterator[tuple[int, None]]:
    """Shows a step's captured prints in the run's own output, as Dagster's function does.

    That starts `tail`, and an interpreter beside it to end it should we die, both twice a step,
    which is most of what a warm step would cost; and if the interpreter is killed, too, `tail`
    stays for ever. A thread costs less, and cannot outlive us.
    """
    output = compute_logs._fileno(stream)
    over = threading.Event()
    try:
        copy = os.dup(1 if output is None else output)
    except OSError:  # closed
        copy = os.open(os.devnull, os.O_WRONLY)
    thread = threading.Thread(target=_show, args=(path, copy, over), name="prints", daemon=True)
    thread.start()
    try:
        yield os.getpid(), None
    finally:
        over.set()
        thread.join(SHOWING_S)


def _show(path: str, output: int, over: threading.Event) -> None:
    """Copy what is written to a file, until it is over and all of it was copied."""
    try:
        with open(path, "rb", buffering=0) as prints:  # noqa: PTH123
            while True:
                is_over = over.wait(SHOW_TICK_S)
                while block := prints.read(65536):
                    while block:
                        block = block[os.write(output, block) :]
                if is_over:
                    return
    except OSError:
        pass  # nobody listens
    finally:
        os.close(output)


def show_prints_without_processes() -> None:
    """Have Dagster show the prints of this process' steps as `_mirror` does."""
    compute_logs.execute_posix_tail = _mirror


def _events_of_step(command: StepCommand) -> Iterator[dg.DagsterEvent]:
    instance = _instance(command.instance_ref)
    yield dg.DagsterEvent.step_worker_started(
        # Into the run's log only: the run says what is shown beside it (its `loggers`).
        DagsterLogManager.create(loggers=[], instance=instance, dagster_run=command.run),
        command.run.job_name,
        message=f'Executing step "{command.step_key}" in worker {os.getpid()} on {command.place}.',
        metadata={
            "pid": dg.MetadataValue.text(str(os.getpid())),
            "devices": dg.MetadataValue.text(command.place),
        },
        step_key=command.step_key,
    )
    plan = create_execution_plan(
        command.job,
        run_config=command.run_config,
        step_keys_to_execute=[command.step_key],
        known_state=command.known_state,
        repository_load_data=command.load_data,
    )
    yield from execute_plan_iterator(
        plan,
        command.job,
        command.run,
        run_config=command.run_config,
        retry_mode=command.retry_mode.for_inner_plan(),
        instance=instance,
    )
