"""Executes a run in a process of its own, as Dagster's launcher does, but forked with everything
loaded: for those who submit runs without a daemon.

Here: the process of one run. Not here: which runs, and how many at a time (`dagster_project.runs`).
"""

from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.interrupts import capture_interrupts

from dagster_project.executors.worker import PINS, pop_early_interrupt
from resources.processes.fork_server import server_ready
from resources.processes.owned_folders import leave_folder_of_program
from resources.processes.run_locks import RunLocks

STEP = "dagster_project.executors.run_process:execute"
STOPPED = "Interrupted by Ctrl-C or SIGTERM; the same command goes on from here."
DEFINITIONS = ("dagster_project.definitions", "deployed")
LOCATION = "ego"
"""Name of the code location, as workspace.yaml has it."""


@dataclass(frozen=True)
class RunCommand:
    """A run that is to be made and executed. visible: the variables of `PINS`, as they were for
    who submits it; None: not set."""

    run_id: str
    shard: str
    job: ReconstructableJob
    run_config: Mapping[str, Any]
    instance_ref: bytes
    visible: Mapping[str, str | None]


def visible_devices() -> dict[str, str | None]:
    """Return what pins this process to devices, for the runs that it submits."""
    return {name: os.environ.get(name) for name in PINS}


def deployed_job(name: str) -> ReconstructableJob:
    """Return the job as the UI, its sensors and backfills run it."""
    module, attribute = DEFINITIONS
    repository = ReconstructableRepository(ModuleCodePointer(module, attribute, str(Path.cwd())))
    return repository.get_reconstructable_job(name)


def execute(command: RunCommand, tell: Callable[[Any], None]) -> bool:
    """Make the run, and execute it to its end; tell why that could not be done, if so."""
    for name, value in command.visible.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    leave_folder_of_program()
    try:
        job = command.job.get_definition()  # so that each worker that is forked has it
        with server_ready(), capture_interrupts():
            if pop_early_interrupt():
                signal.raise_signal(signal.SIGINT)
            ref = pickle.loads(command.instance_ref)  # noqa: S301  (of the process above us)
            with dg.DagsterInstance.from_ref(ref) as instance:
                _execute(command, job, instance)
    except (Exception, KeyboardInterrupt) as error:
        tell(f"{type(error).__name__}: {error}")
        return False
    return True


def _execute(command: RunCommand, job: dg.JobDefinition, instance: dg.DagsterInstance) -> None:
    # Before the run is made: one whose process was killed is known to be gone.
    with RunLocks(instance.root_directory).held(command.run_id):
        run = instance.create_run_for_job(
            job,
            run_id=command.run_id,
            run_config=command.run_config,
            tags={**job.run_tags, **job.get_tags_for_partition_key(command.shard, None)},
            remote_job_origin=_origin(job.name),
            job_code_origin=command.job.get_python_origin(),
        )
        with event_files_open(instance, run.run_id):
            execute_run(command.job, run, instance)


@contextmanager
def event_files_open(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Keep the files open that SQLite has for the events of a run, if it is SQLite that has them.

    Dagster opens and closes them for every event, and whoever is the last to close one copies the
    write-ahead log into it and deletes the log.
    """
    storage = instance.event_log_storage
    with ExitStack() as stack:
        if isinstance(storage, SqliteEventLogStorage):
            for name in (run_id, INDEX_SHARD_NAME):
                file = Path(storage.path_for_shard(name)).as_uri()
                with suppress(sqlite3.Error):  # it is only slower
                    connection = sqlite3.connect(f"{file}?mode=rw", uri=True)
                    stack.enter_context(closing(connection))
                    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        yield


def _origin(job_name: str) -> RemoteJobOrigin:
    """Say of which job of which code location a run is, for the UI and its sensors."""
    module, attribute = DEFINITIONS
    target = LoadableTargetOrigin(
        executable_path=sys.executable, module_name=module, attribute=attribute
    )
    location = InProcessCodeLocationOrigin(target, location_name=LOCATION)
    return RemoteRepositoryOrigin(location, "__repository__").get_job_origin(job_name)
