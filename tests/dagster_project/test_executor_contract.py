"""The private names of Dagster that the executor leans on are as it knows them.

Dagster is pinned exactly; when the pin moves, this says what to look at.
"""

from __future__ import annotations

import inspect
from importlib import metadata
from typing import Any

import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterSubprocessError
from dagster._core.events import EngineEventData
from dagster._core.execution import compute_logs
from dagster._core.execution.api import create_execution_plan, execute_plan_iterator
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.executor.base import Executor
from dagster._core.log_manager import DagsterLogManager
from dagster._core.storage.tags import PRIORITY_TAG
from dagster._utils.error import SerializableErrorInfo
from dagster._utils.interrupts import capture_interrupts

from dagster_project.executors.step_needs import DAGSTER_PRIORITY

PARAMETERS: list[tuple[Any, set[str]]] = [
    (
        ActiveExecution.__init__,
        {
            "execution_plan",
            "retry_mode",
            "tag_concurrency_limits",
            "instance_concurrency_context",
            "step_dependency_config",
        },
    ),
    (ActiveExecution.verify_complete, {"job_context", "step_key"}),
    (ActiveExecution.plan_events_iterator, {"job_context"}),
    (ActiveExecution.concurrency_event_iterator, {"plan_context"}),
    (ActiveExecution.handle_event, {"dagster_event"}),
    (ActiveExecution.get_steps_to_execute, {"limit"}),
    (InstanceConcurrencyContext.__init__, {"instance", "dagster_run"}),
    (InstanceConcurrencyContext.claim, {"concurrency_key", "step_key", "step_priority"}),
    (InstanceConcurrencyContext.free_step, {"step_key"}),
    (
        create_execution_plan,
        {"job", "run_config", "step_keys_to_execute", "known_state", "repository_load_data"},
    ),
    (
        execute_plan_iterator,
        {"execution_plan", "job", "dagster_run", "retry_mode", "run_config", "instance"},
    ),
    (DagsterLogManager.create, {"loggers", "instance", "dagster_run"}),
    (compute_logs.execute_posix_tail, {"path", "stream"}),
    (compute_logs._fileno, {"stream"}),
    (Executor.log_failure_or_retry_event_after_error, {"step_context", "err_info", "known_state"}),
    (dg.DagsterEvent.engine_event, {"plan_context", "message", "event_specific_data"}),
    (dg.DagsterEvent.step_worker_starting, {"step_context", "message", "metadata"}),
    (
        dg.DagsterEvent.step_worker_started,
        {"log_manager", "job_name", "message", "metadata", "step_key"},
    ),
    (dg.DagsterEvent.step_failure_event, {"step_context", "step_failure_data"}),
    (EngineEventData.multiprocess, {"pid", "step_keys_to_execute"}),
    (EngineEventData.interrupted, {"steps_interrupted"}),
    (EngineEventData.engine_error, {"error"}),
    (RetryMode.from_config, {"config_value"}),
    (StepDependencyConfig.from_config, {"config_value"}),
    (capture_interrupts, set()),
]

ATTRIBUTES: list[tuple[type, set[str]]] = [
    (
        ActiveExecution,
        {
            "check_for_interrupts",
            "get_known_state",
            "is_complete",
            "mark_interrupted",
            "sleep_interval",
            "__enter__",
            "__exit__",
        },
    ),
    (
        ExecutionPlan,
        {"step_keys_to_execute", "get_step_by_key", "repository_load_data"},
    ),
    (
        PlanOrchestrationContext,
        {"for_step", "reconstructable_job", "instance", "dagster_run", "run_id", "log"},
    ),
    (ReconstructableJob, {"get_python_origin"}),
    (
        dg.DagsterEvent,
        {
            "is_step_success",
            "is_step_failure",
            "is_step_up_for_retry",
            "is_resource_init_failure",
            "event_specific_data",
        },
    ),
    (RetryMode, {"ENABLED", "for_inner_plan"}),
]


def test_the_version_is_the_one_that_was_read() -> None:
    assert metadata.version("dagster") == "1.13.27"


@pytest.mark.parametrize(
    ("function", "names"), PARAMETERS, ids=lambda v: getattr(v, "__name__", "")
)
def test_parameters(function: Any, names: set[str]) -> None:
    assert names <= set(inspect.signature(function).parameters)


@pytest.mark.parametrize(("owner", "names"), ATTRIBUTES, ids=lambda v: getattr(v, "__name__", ""))
def test_attributes(owner: type, names: set[str]) -> None:
    assert not {n for n in names if not hasattr(owner, n)}


def test_records_and_errors() -> None:
    info = SerializableErrorInfo(message="m", stack=[], cls_name="C")
    assert (info.message, info.cls_name, info.cause) == ("m", "C", None)
    assert StepFailureData(error=info, user_failure_data=None).error == info
    assert issubclass(DagsterExecutionInterruptedError, BaseException)
    assert DagsterSubprocessError("m", subprocess_error_infos=[info]).subprocess_error_infos
    assert {"module", "working_directory"} <= set(ModuleCodePointer.__annotations__)
    assert PRIORITY_TAG == DAGSTER_PRIORITY


def test_slots_that_steps_have_of_pools_are_known() -> None:
    assert "self._claims.add(step_key)" in inspect.getsource(InstanceConcurrencyContext.claim)


def test_prints_are_mirrored_through_the_function_that_is_replaced() -> None:
    source = inspect.getsource(compute_logs.tail_to_stream)
    assert "with execute_posix_tail(path, stream) as" in source
