"""Describes the configuration of the executor `gpu`: its form, and what is read from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg
from dagster._core.execution.retries import get_retries_config
from dagster._core.execution.step_dependency_config import get_step_dependency_config_field
from dagster._core.execution.tags import get_tag_concurrency_limits_config


@dataclass(frozen=True)
class Settings:
    """The executor's configuration; `CONFIG` describes it."""

    max_concurrent: int | None
    gpus: int | None
    default_needs: Mapping[str, float]
    preload_modules: list[str] | None
    steps_per_worker: int
    worker_growth_mb: int
    lease_timeout_s: float | None
    degrade_after_s: float | None
    cancel_grace_s: float

    def __post_init__(self) -> None:
        least = {"max_concurrent": 0, "gpus": 0, "steps_per_worker": 1, "worker_growth_mb": 1}
        least |= dict.fromkeys(("degrade_after_s", "lease_timeout_s", "cancel_grace_s"), 0)
        for name, value in least.items():
            given = getattr(self, name)
            if given is not None and given < value:
                raise ValueError(f"{name}={given} of the executor must be {value} or more")


CONFIG = {
    "max_concurrent": dg.Field(
        dg.Noneable(int),
        default_value=None,
        description="Steps of this run at a time; those that wait for a GPU do not count. By "
        "default the number of CPUs.",
    ),
    "gpus": dg.Field(
        dg.Noneable(int),
        default_value=None,
        description="Pretend that the machine has so many GPUs (for tests, and for machines "
        "without): no way to use fewer, which is CUDA_VISIBLE_DEVICES. By default "
        "$EGO_FAKE_GPUS, else what NVML finds.",
    ),
    "default_needs": dg.Field(
        {
            name: dg.Field(float, default_value=0.0, description=f"for steps without ego/{name}")
            for name in ("gpus", "gpu_memory_gb", "cpus")
        },
        description="What steps need that have no such tag. A step's tags always win.",
    ),
    "preload_modules": dg.Field(
        dg.Noneable([str]),
        default_value=None,
        description="Modules to import once, before workers are forked; they must not touch "
        "CUDA. By default the job's module. With [] each worker imports it for itself, after it "
        "is pinned to its devices.",
    ),
    "steps_per_worker": dg.Field(
        int,
        default_value=100,
        description="Steps that a worker does before it is replaced; 1: a process for each step.",
    ),
    "worker_growth_mb": dg.Field(
        int,
        default_value=4096,
        description="A worker that has grown by so much since its first step is replaced.",
    ),
    "lease_timeout_s": dg.Field(
        dg.Noneable(float),
        default_value=None,
        description="A step that gets no GPU within this time fails; while other steps of its run "
        "have one, or no slot or CPU is free for it, it waits. By default it always does.",
    ),
    "degrade_after_s": dg.Field(
        dg.Noneable(float),
        default_value=None,
        description="A step with the tag ego/degrades that gets no GPU within this time goes on "
        "without: its CPU-only results are written, the rest stays pending in the ledger for a "
        "later run. By default $EGO_DEGRADE_AFTER_S; without that it waits.",
    ),
    "cancel_grace_s": dg.Field(
        float,
        default_value=20.0,
        description="Time that interrupted steps have before they are killed.",
    ),
    "retries": get_retries_config(),
    "tag_concurrency_limits": get_tag_concurrency_limits_config(),
    "step_dependency_config": get_step_dependency_config_field(),
}
