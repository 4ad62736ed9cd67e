"""What a run knows of each of its steps that waits or runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.step import ExecutionStep
from dagster._utils.error import SerializableErrorInfo

from dagster_project.executors.device_queue import Place
from dagster_project.executors.worker_pool import Worker


@dataclass
class StepState:
    """A step that waits or runs."""

    step: ExecutionStep
    context: Any
    place: Place
    worker: Worker | None = None
    outcome: dg.DagsterEvent | None = None
    init_error: SerializableErrorInfo | None = None
    killed: bool = False

    @property
    def key(self) -> str:
        return self.step.key


class Pools(InstanceConcurrencyContext):
    """Dagster's pools, of which a step takes a slot only when the run could start it at once."""

    room = 0

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        if self.room <= 0 or not super().claim(concurrency_key, step_key, step_priority):
            return False
        self.room -= 1
        return True


def worker_of(step: StepState) -> Worker:
    assert step.worker is not None
    return step.worker


def error_of(name: str, words: str) -> SerializableErrorInfo:
    return SerializableErrorInfo(message=words, stack=[], cls_name=name)
