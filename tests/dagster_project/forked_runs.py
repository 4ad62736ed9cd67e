"""Starts runs in processes of their own, forked from one that has imported everything: for tests
with many short runs, where Dagster's own launcher would import for seconds each time."""

from __future__ import annotations

import multiprocessing
from typing import Any

import dagster as dg
from dagster._core.execution.api import execute_run
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._serdes import ConfigurableClass
from dagster._serdes.config_class import ConfigurableClassData
from dagster._utils.hosted_user_process import recon_job_from_origin

PRELOADED = ["dagster_project.definitions", "scipy.ndimage", "av", "cv2", "PIL.Image"]


class ForkedRunLauncher(RunLauncher, ConfigurableClass):
    """For `run_launcher` in a dagster.yaml. A run cannot be cancelled."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._processes: list[Any] = []
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> ForkedRunLauncher:
        return cls(inst_data=inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload(PRELOADED)
        process = server.Process(target=_execute, args=(context.dagster_run.run_id,))
        process.start()
        self._processes = [p for p in self._processes if p.is_alive()] + [process]

    def terminate(self, run_id: str) -> bool:
        raise NotImplementedError


def _execute(run_id: str) -> None:
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.job_code_origin is not None
        execute_run(recon_job_from_origin(run.job_code_origin), run, instance)
