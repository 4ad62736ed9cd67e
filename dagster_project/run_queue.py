"""How many runs go on at a time, unless a person says otherwise: as many as the machine has room
for. Dagster's own default is ten, whatever the machine.

`dagster.yaml` names the class here as its run coordinator, so that the limit follows the machine
that the daemon is on, and not the one where the file was made.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import dagster as dg

from dagster_project.executors.storages.sqlite_engines import keep_engines
from ego_assets.environment import max_runs
from resources.devices.gpu import find_gpus
from resources.processes import machine
from sensors.lost_runs import count_lost_runs

CPUS_A_RUN = 4
MEMORY_A_RUN = 4 * 2**30
"""Its processes, and one worker that works: 1.5 GB, and up to 2.5 GB (docs/performance.md)."""
MEMORY_BESIDE = 2 * 2**30
"""For the UI, the daemon, and the system."""


def runs_at_once() -> tuple[int, str]:
    """Return the limit, and why it is that. Raises EnvironmentVariableError."""
    if given := max_runs():
        return given, "as EGO_MAX_RUNS says"
    cpus, memory, gpus = machine.cpus(), machine.memory_bytes(), find_gpus()
    well = sum(not gpu.fault for gpu in gpus)
    found = {
        _count(cpus, "CPU"): max(cpus // CPUS_A_RUN, well),  # each device has a run
        f"{memory / 2**30:.0f} GiB of memory": (memory - MEMORY_BESIDE) // MEMORY_A_RUN,
    }
    if well:
        found[_count(well, "GPU")] = well + 1  # one run decodes while the others compute
    why = min(found, key=lambda name: found[name])
    return max(1, found[why]), f"for {why}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class MachineRunCoordinator(dg.QueuedRunCoordinator):
    """Dagster's queue, with a limit that follows from the machine where none is configured."""

    def __init__(self, max_concurrent_runs: int | None = None, **more: Any) -> None:
        super().__init__(max_concurrent_runs=max_concurrent_runs, **more)
        keep_engines()  # also in the UI and the daemon
        self._is_given = max_concurrent_runs is not None

    def get_run_queue_config(self) -> Any:
        """As Dagster asks for it, every few seconds.

        A run that was killed is in progress for Dagster until somebody ends it. Where there is one
        place, it would be taken for ever: so that run has one of its own.
        """
        config = super().get_run_queue_config()
        if self._is_given:
            return config
        lost = count_lost_runs(self._instance) if self.has_instance else 0
        return config._replace(max_concurrent_runs=self._limit + lost)

    @cached_property
    def _limit(self) -> int:
        return runs_at_once()[0]
