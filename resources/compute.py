"""Dagster resource for how stages run: workers, memory, retries. Not here: devices (`gpu`)."""

from __future__ import annotations

import os

import dagster as dg
from pydantic import Field


class Compute(dg.ConfigurableResource):
    """Worker processes of a stage and what they may use. Nothing here changes a result."""

    workers: int = Field(
        default=0, ge=0, description="worker processes; 0: one a CPU, or one for a model"
    )
    isolate: bool = Field(
        default=True, description="false: run in the step's own process, for a debugger"
    )
    megabytes_in_flight: int = Field(
        default=64,
        ge=1,
        description="decoded pictures that wait for an operator; of each worker, whose lanes share "
        "it. A stage so holds workers x this much, whatever its videos",
    )
    hardware_decoding: bool = Field(
        default=False,
        description="let a step's GPU decode, too (NVDEC), where it gives the same frames; else "
        "software does, and the step's metadata say why",
    )
    max_attempts: int = Field(default=3, ge=1, description="tries of a clip before quarantine")
    max_deaths: int = Field(default=2, ge=1, description="workers a clip may kill")
    max_lost: int = Field(
        default=10, ge=1, description="tries of a clip that may vanish with their whole run"
    )
    backoff_s: float = Field(default=0.5, ge=0, description="first wait before another try")

    def worker_count(self, *, on_device: bool = False) -> int:
        """Workers of a stage. A model has its device to itself; each worker would load one."""
        return self.workers or (1 if on_device else len(os.sched_getaffinity(0)))
