"""Our executor and the stock one, on the same job: the same events for every step."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import executor_jobs
import pytest

from resources.processes.fork_server import server_ready
from tests.support.instances import dagster_instance

PRELOAD = {"preload_modules": ["executor_jobs"]}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpu": PRELOAD,
    "multiprocess": {"start_method": {"forkserver": PRELOAD}},
}
STEPS = [
    *("one", "plus_one", "plus_two", "fails", "after_fails", "fails_once", "fails_always"),
    *("asks_for_retry", "fails_for_good", "leaves_by_exit", "leaves_by_os_exit", "segfaults"),
    *("after_segfaults", "is_killed_once", "lacks_a_resource", "gets_its_resource_later"),
    *("fan", "mapped[0]", "mapped[1]", "mapped[2]", "gather", "branch", "on_yes", "on_no"),
]
CRASHES = {"leaves_by_os_exit", "segfaults", "is_killed_once"}


class Ran:
    """What a run left in the event log, by step."""

    def __init__(self, result: dg.JobExecutionResult, instance: dg.DagsterInstance) -> None:
        self.result = result
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        self.status = run.status
        self.logs = list(instance.all_logs(result.run_id))
        self.types: dict[str | None, list[str]] = {}
        self.errors: dict[str, list[str | None]] = {}
        for entry in self.logs:
            event = entry.dagster_event
            if event is None:
                continue
            self.types.setdefault(event.step_key, []).append(event.event_type_value)
            if event.is_step_failure and event.step_failure_data.error:
                error = event.step_failure_data.error
                cause = error.cause.cls_name if error.cause else None
                self.errors[event.step_key or ""] = [error.cls_name, cause]


@pytest.fixture(scope="module", autouse=True)
def _path_of_fork_servers() -> Iterator[None]:
    """That of Python 3.11 searches modules to preload only where it would without this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield


Both = dict[str, tuple[Ran, dg.DagsterInstance]]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """`everything`, once with each."""
    found: Both = {}
    instances = []
    try:
        for executor, config in CONFIGS.items():
            manager = dagster_instance(tmp_path_factory.mktemp(executor))
            instance = manager.__enter__()
            instances.append(manager)
            result = executor_jobs.execute("everything", instance, executor, config)
            found[executor] = (Ran(result, instance), instance)
        yield found
    finally:
        for manager in instances:
            manager.__exit__(None, None, None)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_has_the_same_events(ran: Both, step: str) -> None:
    (ours, _), (stock, _) = ran["gpu"], ran["multiprocess"]
    assert ours.types.get(step) == stock.types.get(step)
    if step not in CRASHES:  # ours says more of a crash
        assert ours.errors.get(step) == stock.errors.get(step)


def test_the_job_went_where_it_was_meant_to(ran: Both) -> None:
    for executor in CONFIGS:
        run, _ = ran[executor]
        assert set(run.types) - {None} == set(STEPS) - {"after_fails", "after_segfaults"}
        assert run.status is dg.DagsterRunStatus.FAILURE
        failed = {step for step, types in run.types.items() if "STEP_FAILURE" in types}
        assert failed == {
            *("fails", "fails_always", "fails_for_good", "leaves_by_exit", "leaves_by_os_exit"),
            *("segfaults", "lacks_a_resource"),
        }
        assert run.types["asks_for_retry"].count("STEP_UP_FOR_RETRY") == 2
        assert run.types["fails_for_good"].count("STEP_UP_FOR_RETRY") == 0
        assert run.types["is_killed_once"][-1] == "STEP_SUCCESS"
        assert run.types["on_no"] == ["STEP_SKIPPED"]


def test_a_crash_is_named(ran: Both) -> None:
    run, _ = ran["gpu"]
    messages = {
        e.dagster_event.step_key: e.dagster_event.step_failure_data.error.message
        for e in run.logs
        if e.dagster_event and e.dagster_event.is_step_failure
    }
    assert "was killed by SIGSEGV" in messages["segfaults"]
    assert "exited with status 3" in messages["leaves_by_os_exit"]


@pytest.mark.parametrize("executor", CONFIGS)
def test_logs_and_prints_of_a_step(ran: Both, executor: str) -> None:
    run, instance = ran[executor]
    assert [e.step_key for e in run.logs if e.user_message == "logged by one"] == ["one"]
    (captured,) = [
        e.dagster_event.logs_captured_data
        for e in run.logs
        if e.dagster_event
        and e.dagster_event.event_type_value == "LOGS_CAPTURED"
        and e.dagster_event.logs_captured_data.step_keys == ["one"]
    ]
    key = instance.compute_log_manager.build_log_key_for_run(run.result.run_id, captured.file_key)
    data = instance.compute_log_manager.get_log_data(key)
    assert data.stdout == b"printed by one\n"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with server_ready(), dagster_instance(tmp_path) as found:
        yield found


@pytest.mark.parametrize("executor", CONFIGS)
def test_retries_can_be_disabled(instance: dg.DagsterInstance, executor: str) -> None:
    config = CONFIGS[executor] | {"retries": {"disabled": {}}}
    result = executor_jobs.execute(
        "everything",
        instance,
        executor,
        config,
        op_selection=["one", "fails_once", "is_killed_once"],
    )
    run = Ran(result, instance)
    assert not result.success
    for step in ("fails_once", "is_killed_once"):
        assert run.types[step].count("STEP_FAILURE") == 1
        assert "STEP_UP_FOR_RETRY" not in run.types[step]


@pytest.mark.parametrize("executor", CONFIGS)
def test_a_failed_run_goes_on_from_its_failure(
    instance: dg.DagsterInstance, executor: str, tmp_path: Path
) -> None:
    mark = {"ops": {"fails_until_marked": {"config": {"mark": str(tmp_path / "mark")}}}}
    config = CONFIGS[executor]
    first = executor_jobs.execute("repairable", instance, executor, config, run_config=mark)
    assert not first.success
    options = dg.ReexecutionOptions.from_failure(first.run_id, instance)
    with server_ready():
        again = executor_jobs.execute(
            "repairable", instance, executor, config, run_config=mark, reexecution_options=options
        )
    assert again.success
    assert set(Ran(again, instance).types) - {None} == {"fails_until_marked", "after"}


@pytest.mark.parametrize("executor", CONFIGS)
def test_an_interrupt_stops_the_run(
    instance: dg.DagsterInstance, executor: str, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    interrupter = Interrupter(mark.exists)
    config = {"ops": {"never_ends": {"config": {"mark": str(mark), "how": "python"}}}}
    with interrupter:
        result = executor_jobs.execute(
            "endless", instance, executor, CONFIGS[executor], run_config=config
        )
    run = Ran(result, instance)
    assert run.types["never_ends"][-1] == "STEP_FAILURE"
    assert run.errors["never_ends"] == ["DagsterExecutionInterruptedError", None]
    assert "never_reached" not in run.types
    assert run.types[None][-1] == "PIPELINE_FAILURE"
    (last,) = [
        e.dagster_event.job_failure_data.error
        for e in run.logs
        if e.dagster_event and e.dagster_event.is_job_failure
    ]
    assert last.cls_name == "DagsterExecutionInterruptedError"


def taking(mark: str) -> dict[str, Any]:
    return {"ops": {f"taker{n}": {"config": {"mark": mark}} for n in range(3)}}


@pytest.mark.parametrize("executor", CONFIGS)
def test_a_slot_of_a_pool_is_taken_by_a_step_that_runs(
    instance: dg.DagsterInstance, executor: str
) -> None:
    instance.event_log_storage.set_concurrency_slots("scarce", 3)
    config = CONFIGS[executor] | {"max_concurrent": 1}
    result = executor_jobs.execute("pooled", instance, executor, config, run_config=taking(""))
    assert result.success
    with result:
        assert [result.output_for_node(f"taker{n}") for n in range(3)] == [1, 1, 1]


def test_an_interrupted_run_leaves_no_slot_of_a_pool_taken(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """The stock executor may leave one, if it is interrupted while it starts a step."""
    instance.event_log_storage.set_concurrency_slots("scarce", 3)
    mark = tmp_path / "mark"
    # One step has the device, another waits for it.
    config = CONFIGS["gpu"] | {"max_concurrent": 2, "gpus": 1}
    with Interrupter(mark.exists):
        executor_jobs.execute("pooled", instance, "gpu", config, run_config=taking(str(mark)))
    found = instance.event_log_storage.get_concurrency_info("scarce")
    assert [c.step_key for c in found.claimed_slots] == []


class Interrupter:
    """Sends this process a SIGINT, as cancelling does, once something is so."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self.ready = ready
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._wait, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _wait(self) -> None:
        while not self.over.wait(0.05):
            if self.ready():
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGINT)
                return
