"""Dagster resource for how stages run: workers, memory, retries. Not here: devices (`gpu`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from resources.processes import machine
from resources.raw.limits import BYTES_IN_FLIGHT


@dataclass(frozen=True)
class Preset:
    """What suits a machine on which `runs` runs go at a time, as the queue allows; their stages
    share its CPUs.

    A worker takes 0.7 GB, one of segmentation's baseline up to 2.5 GB (docs/performance.md).
    """

    runs: int
    workers: int
    megabytes_in_flight: int


PRESETS = {
    "small_cpu": Preset(runs=1, workers=2, megabytes_in_flight=32),
    "cpu_32": Preset(runs=8, workers=30, megabytes_in_flight=64),
    "cpu_32_gpu_2": Preset(runs=3, workers=10, megabytes_in_flight=128),
    "cpu_128_h100_4": Preset(runs=5, workers=24, megabytes_in_flight=256),
}
DEFAULT_MEGABYTES = BYTES_IN_FLIGHT // 2**20


class Compute(dg.ConfigurableResource[Any]):
    """Worker processes of a stage and what they may use. Nothing here changes a result."""

    preset: Literal["", "small_cpu", "cpu_32", "cpu_32_gpu_2", "cpu_128_h100_4"] = Field(
        default="", description="a kind of machine: what is 0 below is as suits it"
    )
    workers: int = Field(
        default=0,
        ge=0,
        description="worker processes; 0: the preset's, else one a CPU, or one for a model",
    )
    takes_per_device: int = Field(
        default=0,
        ge=0,
        le=64,
        description="takes that a leased device works on at a time: lanes of one model, or workers "
        "with a model each; 0: as many as fit by `ego doctor --tune`, else as the backend says",
    )
    isolate: bool = Field(
        default=True, description="false: run in the step's own process, for a debugger"
    )
    megabytes_in_flight: int = Field(
        default=0,
        ge=0,
        description="decoded pictures that wait for an operator and, of a model on a device, "
        "results that wait to be published (half of it); of each worker, whose lanes share it; 0: "
        f"the preset's, else {DEFAULT_MEGABYTES}. A stage so holds workers x this much, whatever "
        "its videos",
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
        if self.workers or on_device:
            return self.workers or 1
        cpus = machine.cpus()
        return min(PRESETS[self.preset].workers, cpus) if self.preset else cpus

    @property
    def bytes_in_flight(self) -> int:
        """Decoded pictures, and results, that may wait in a worker."""
        of_preset = PRESETS[self.preset].megabytes_in_flight if self.preset else DEFAULT_MEGABYTES
        return (self.megabytes_in_flight or of_preset) * 2**20
