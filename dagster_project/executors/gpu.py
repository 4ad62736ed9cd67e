"""The executor `gpu`: steps of a run in warm worker processes, each pinned to leased devices.

Here: the executor. Not here: its configuration (`settings`), how it runs steps (`run_loop`).

This package is the one place that touches `dagster._core`. The version is pinned exactly, and
`tests/dagster_project/test_executor_contract.py` says which private names it leans on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig

from dagster_project.executors.run_loop import RunLoop
from dagster_project.executors.settings import CONFIG, Settings
from dagster_project.executors.storages.sqlite_engines import keep_engines
from resources.environment import degrade_after_s
from resources.processes import has_own_proc


class GpuExecutor(dg.Executor):
    """Runs steps in warm workers, on devices that it leases machine-wide."""

    def __init__(
        self,
        settings: Settings,
        retries: RetryMode,
        tag_concurrency_limits: list[dict[str, Any]] | None = None,
        step_dependency_config: StepDependencyConfig = StepDependencyConfig.default(),  # noqa: B008
    ) -> None:
        if sys.platform != "linux":
            raise dg.DagsterUnmetExecutorRequirementsError(
                "the executor `gpu` needs Linux (process descriptors, parent-death signals): "
                "choose dagster.multiprocess_executor in dagster_project/definitions.py"
            )
        if not has_own_proc():
            raise dg.DagsterUnmetExecutorRequirementsError(
                "the executor `gpu` finds and ends processes by /proc, which is not that of this "
                "PID namespace: mount it (unshare --pid --fork --mount-proc), or use `ego run`"
            )
        self.settings = settings
        self._retries = retries
        self.tag_concurrency_limits = tag_concurrency_limits
        self._step_dependency_config = step_dependency_config

    @property
    def retries(self) -> RetryMode:
        return self._retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        return self._step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        keep_engines()
        yield from RunLoop(self, plan_context, execution_plan).events()


@dg.executor(
    name="gpu",
    config_schema=CONFIG,
    requirements=dg.multiple_process_executor_requirements(),
)
def gpu_executor(init_context: dg.InitExecutorContext) -> GpuExecutor:
    """Runs steps in warm worker processes, each pinned to GPUs that it leases machine-wide.

    What a step needs is in its tags `ego/gpus`, `ego/gpu_memory_gb` and `ego/cpus`.
    """
    config: dict[str, Any] = dict(init_context.executor_config)
    retries = RetryMode.from_config(config.pop("retries")) or RetryMode.ENABLED
    limits = config.pop("tag_concurrency_limits", None)
    if config["degrade_after_s"] is None:
        config["degrade_after_s"] = degrade_after_s()
    dependency = StepDependencyConfig.from_config(config.pop("step_dependency_config", None))
    return GpuExecutor(Settings(**config), retries, limits, dependency)
