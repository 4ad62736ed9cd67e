"""What our executor does that the stock one does not: devices, warm workers, sure ends."""

from __future__ import annotations

import gc
import json
import multiprocessing as mp
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import executor_jobs
import psutil
import pytest
from test_executor_conformance import Interrupter, Ran, taking

from dagster_project.doctor import examine
from dagster_project.executors import device_queue, gpu
from dagster_project.executors import step as step_module
from dagster_project.executors.gpu import gpu_executor
from dagster_project.executors.worker_pool import Worker, WorkerPool
from resources.devices import leases as gpu_leases
from resources.devices.gpu import Gpu, find_gpus
from resources.devices.leases import LeaseBook, Request
from resources.ledger import Ledger
from resources.processes import RUN_TAG, run_tag
from resources.processes.fork_server import server_ready
from resources.processes.run_locks import RunLocks
from sensors.lost_runs import count_lost_runs, end_lost_runs
from tests.resources.namespaces import needs_namespaces
from tests.support.instances import add_databases, dagster_instance

FOUR = {"gpus": 4}


@pytest.fixture
def imports_all() -> None:
    """The server of a run's workers is started as for the UI, and imports everything itself.

    Without this, it is forked from the test's process, as `ego run` forks it from the run's.
    """


@pytest.fixture
def instance(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    is_forked = "imports_all" not in request.fixturenames
    with server_ready() if is_forked else nullcontext(), dagster_instance(tmp_path) as found:
        yield found


def outputs(result: dg.JobExecutionResult, instance: dg.DagsterInstance) -> dict[str, Any]:
    """What the steps of a run gave, by step."""
    assert result.success
    loaded = {}
    root = Path(instance.storage_directory()) / result.run_id
    for path in root.glob("*/result"):
        loaded[path.parent.name] = pickle.loads(path.read_bytes())  # noqa: S301
    return loaded


def messages(run: Ran) -> str:
    """All that the run said: events, their errors, logs."""
    return "\n".join(e.message + e.to_json() for e in run.logs)


# Needs.


def test_impossible_needs_fail_before_anything_starts(instance: dg.DagsterInstance) -> None:
    run = Ran(executor_jobs.execute("pinned", instance, config={"gpus": 1}), instance)
    assert not run.result.success
    assert set(run.types) == {None}
    assert "step on_two_gpus: tags ego/gpus=2" in messages(run)


@pytest.mark.parametrize(
    "bad",
    [{"max_concurrent": -1}, {"gpus": -1}, {"steps_per_worker": 0}, {"cancel_grace_s": -1.0}],
)
def test_a_setting_that_makes_no_sense(instance: dg.DagsterInstance, bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="of the executor must be"):
        executor_jobs.execute("pinned", instance, config=bad)


# Devices and warm workers.


@pytest.mark.parametrize("preload", [["executor_jobs"], []])
@pytest.mark.usefixtures("imports_all")
def test_steps_are_pinned_and_workers_stay_warm(
    instance: dg.DagsterInstance, preload: list[str]
) -> None:
    config = FOUR | {"preload_modules": preload}
    run = Ran(executor_jobs.execute("pinned", instance, config=config), instance)
    steps = outputs(run.result, instance)
    assert {s: found["devices"] for s, found in steps.items()} == {
        "on_gpu": "0",
        "on_half_gpu": "0",
        "on_cpu": "",
        "on_cpu_again": "",
        "on_two_gpus": "0,1",
    }
    assert {found["order"] for found in steps.values()} == {"PCI_BUS_ID"}
    # User code never loads with devices in sight that are not its own.
    assert all(found["at import"] in ("", found["devices"]) for found in steps.values())
    assert steps["on_two_gpus"]["at import"] == ("" if preload else "0,1")
    assert steps["on_gpu"]["pid"] == steps["on_half_gpu"]["pid"]
    assert steps["on_half_gpu"]["steps"] == 2, "what the first step kept in the process is gone"
    assert steps["on_cpu"]["pid"] != steps["on_gpu"]["pid"]
    assert "on GPU 0 (simulated), GPU 1 (simulated)" in messages(run)
    started = [
        e.dagster_event
        for e in run.logs
        if e.dagster_event and e.dagster_event.event_type_value == "STEP_WORKER_STARTED"
    ]
    said = {e.step_key: e.engine_event_data.metadata["devices"].value for e in started}
    assert said["on_half_gpu"] == "GPU 0 (simulated)"
    assert said["on_cpu"] == "the CPU"
    assert LeaseBook().claims() == []


def test_a_machine_without_gpus_runs_everything(instance: dg.DagsterInstance) -> None:
    run = Ran(executor_jobs.execute("pinned", instance, config={"gpus": 0}), instance)
    assert {s["devices"] for s in outputs(run.result, instance).values()} == {""}
    found = instance.get_run_by_id(run.result.run_id)
    assert found is not None
    assert found.tags[RUN_TAG] == run_tag(run.result.run_id)
    gc.collect()
    assert RunLocks(instance.root_directory).run_ids() == []
    told = [e.message for e in run.logs if "has no GPU" in e.message]
    assert told == ["This machine has no GPU: 3 of 5 steps ask for one and run on the CPU"]


def test_a_sick_device_is_left_out_and_told_of(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick, well = find_gpus(2)
    gpus = [replace(sick, fault="GPU is lost"), well]
    monkeypatch.setattr(device_queue, "find_gpus", lambda simulated: gpus)
    run = Ran(executor_jobs.execute("pinned", instance, op_selection=["on_gpu"]), instance)
    assert outputs(run.result, instance)["on_gpu"]["devices"] == "1"
    assert "GPU 0 is left out: NVML says 'GPU is lost'" in messages(run)


def test_a_device_that_fails_in_mid_run_gets_no_further_step(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def find(simulated: int | None) -> list[Gpu]:
        looks.append(1)
        first, second = find_gpus(2)
        return [first if len(looks) < 3 else replace(first, fault="GPU is lost"), second]

    monkeypatch.setattr(device_queue, "find_gpus", find)
    monkeypatch.setattr(device_queue, "LOOK_AGAIN_S", 0.0)
    run = Ran(executor_jobs.execute("pinned", instance), instance)
    said = {
        e.step_key: e.dagster_event.engine_event_data.metadata["devices"].value
        for e in run.logs
        if e.dagster_event and e.dagster_event.event_type_value == "STEP_WORKER_STARTED"
    }
    assert said["on_gpu"] == "GPU 0 (simulated)"
    assert said["on_half_gpu"] == "GPU 1 (simulated)"
    assert "GPU 0 is left out from now on: NVML says 'GPU is lost'" in messages(run)
    assert run.errors["on_two_gpus"][0] == "ImpossibleNeeds"
    assert LeaseBook().claims() == []


def test_a_device_that_fails_goes_to_no_step_that_waits_for_it(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    book, gpus = LeaseBook(), find_gpus(2)
    both = book.ask(Request(2, run_id="other"), gpus)
    assert both.poll()
    fails, seen = threading.Event(), threading.Event()

    def find(simulated: int | None) -> list[Gpu]:
        if fails.is_set():
            seen.set()
            return [replace(gpus[0], fault="GPU is lost"), gpus[1]]
        return gpus

    def fail_then_let_go() -> None:
        wait_for(lambda: any(not c.devices for c in book.claims()))
        fails.set()
        seen.wait(10)
        both.release()

    monkeypatch.setattr(device_queue, "find_gpus", find)
    monkeypatch.setattr(device_queue, "LOOK_AGAIN_S", 0.0)
    thread = threading.Thread(target=fail_then_let_go)
    thread.start()
    result = executor_jobs.execute("pinned", instance, op_selection=["on_gpu"])
    thread.join()
    assert outputs(result, instance)["on_gpu"]["devices"] == "1"


def test_a_worker_is_replaced_after_so_many_steps(instance: dg.DagsterInstance) -> None:
    config = FOUR | {"steps_per_worker": 1}
    run = Ran(executor_jobs.execute("pinned", instance, config=config), instance)
    steps = outputs(run.result, instance).values()
    assert len({s["pid"] for s in steps}) == len(steps)


def test_a_worker_that_has_grown_is_replaced(instance: dg.DagsterInstance) -> None:
    run = Ran(
        executor_jobs.execute("growing", instance, config={"worker_growth_mb": 100}), instance
    )
    steps = outputs(run.result, instance)
    assert steps["first"] == steps["second"] != steps["third"]
    assert "is not used again: it grew by 1" in messages(run)


def test_a_step_that_wants_more_cpus_than_there_are_gets_all(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    own = {"config": {"lock": str(tmp_path / "lock")}}
    result = executor_jobs.execute(
        "heavy",
        instance,
        config={"max_concurrent": 4},
        run_config={"ops": {"left": own, "right": own}},
    )
    assert result.success, "both ran at once"


@pytest.mark.usefixtures("imports_all")
def test_nothing_leaks_into_the_next_step(instance: dg.DagsterInstance) -> None:
    run = Ran(executor_jobs.execute("messy", instance), instance)
    found = outputs(run.result, instance)["sees_no_mess"]
    pids = {e.dagster_event.pid for e in run.logs if e.dagster_event and e.step_key}
    assert len(pids - {os.getpid()}) == 1, "the steps had different workers: nothing was tested"
    assert found == {
        "pid": found["pid"],
        "environment": (False, "HOME" in os.environ),
        "folder": os.getcwd(),  # noqa: PTH109
        "umask": found["umask"],
        "usr1": True,
        "timer": (0.0, 0.0),
        "handlers": False,
        "level": found["level"],
        "disabled": 0,
        "warnings": False,
        "path": False,
        "stdout": True,
        "hook": True,
        "recursion": False,
        "timeout": None,
        "cpus": len(os.sched_getaffinity(0)),
        "same draw": False,
    }
    assert found["umask"] != 0o077
    assert found["level"] != 1


def test_a_worker_with_something_left_in_it_is_not_used_again(
    instance: dg.DagsterInstance,
) -> None:
    run = Ran(executor_jobs.execute("untidy", instance), instance)
    steps = outputs(run.result, instance)
    first, left = steps["leaves_a_process"]
    assert len({first, steps["leaves_a_thread"], steps["is_somebody_else"]}) == 3
    assert not psutil.pid_exists(left)
    assert "its step left the process" in messages(run)
    assert "its step left the thread 'slow' running" in messages(run)


@pytest.mark.usefixtures("imports_all")
def test_a_step_may_use_multiprocessing_again_and_again(instance: dg.DagsterInstance) -> None:
    steps = outputs(executor_jobs.execute("pools", instance), instance)
    assert steps["first"][:3] == steps["second"][:3] == [0, 1, 4]
    assert steps["first"][3] == steps["second"][3]


def model_config(tmp_path: Path, *steps: str) -> dict[str, Any]:
    device = tmp_path / "device"
    device.touch()
    own = {"config": {"device": str(device)}}
    return {"ops": dict.fromkeys(steps or ("load", "use"), own)}


def test_a_loaded_model_stays_on_its_device(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = executor_jobs.execute(
        "models", instance, config={"gpus": 1}, run_config=model_config(tmp_path)
    )
    steps = outputs(run, instance)
    assert steps["use"] == [steps["load"][0], True]
    assert LeaseBook().claims() == []


def test_steps_that_wait_for_a_device_take_it_with_its_model(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    uses = ["use0", "use1", "use2"]
    run = executor_jobs.execute(
        "fan_of_models",
        instance,
        config={"gpus": 1, "max_concurrent": 2},
        run_config=model_config(tmp_path, *uses),
    )
    steps = outputs(run, instance)
    assert sorted(steps[use][1] for use in uses) == [False, True, True], "loaded more than once"
    assert LeaseBook().claims() == []


def test_a_model_that_is_only_kept_warm_makes_room(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Another run asks for the device between two steps: it goes first."""
    other = []

    def take_the_device() -> None:
        wait_for((tmp_path / "began").exists)
        kept = [(c.step_key, c.idle) for c in LeaseBook().holders()]
        lease = LeaseBook().ask(Request(1, run_id="other"), find_gpus(1))
        with suppress(AssertionError):
            wait_for(lease.poll, 60)
            other.extend(kept)
        lease.release()
        (tmp_path / "told").touch()

    thread = threading.Thread(target=take_the_device)
    thread.start()
    config = model_config(tmp_path)
    config["ops"]["waits_until_told"] = {"config": {"folder": str(tmp_path)}}
    run = executor_jobs.execute("models_apart", instance, config={"gpus": 1}, run_config=config)
    thread.join()
    assert other == [("load", True)], "no room was made, or nothing was kept warm"
    steps = outputs(run, instance)
    assert steps["use"][1] is False
    assert LeaseBook().claims() == []


def test_a_step_that_gets_no_device_in_time_fails_and_says_who_has_it(
    instance: dg.DagsterInstance,
) -> None:
    lease = LeaseBook().ask(Request(1, run_id="greedy", step_key="hoards"), find_gpus(1))
    assert lease.poll()
    run = Ran(
        executor_jobs.execute(
            "pinned",
            instance,
            config={"gpus": 1, "lease_timeout_s": 0.3},
            op_selection=["on_gpu"],
        ),
        instance,
    )
    lease.release()
    assert not run.result.success
    assert "step on_gpu got no GPU within 0.3 s" in messages(run)
    assert f"held by hoards of run greedy, process {os.getpid()}" in messages(run)


def test_a_step_that_could_not_start_anyway_keeps_no_device_from_others(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_leases, "PASSED_OVER_S", 600)
    gpus = find_gpus(1)
    before, other = LeaseBook().ask(Request(1), gpus), []
    assert before.poll()

    def take_the_device_while_the_slot_is_taken() -> None:
        wait_for((tmp_path / "began").exists)
        lease = LeaseBook().ask(Request(1, run_id="other"), gpus)
        before.release()
        with suppress(AssertionError):
            wait_for(lease.poll, 60)
        other.extend(lease.devices)
        lease.release()
        (tmp_path / "told").touch()

    thread = threading.Thread(target=take_the_device_while_the_slot_is_taken)
    thread.start()
    own = {"ops": {"works_until_told": {"config": {"folder": str(tmp_path)}}}}
    result = executor_jobs.execute(
        "crowded_out", instance, config={"gpus": 1, "max_concurrent": 1}, run_config=own
    )
    thread.join()
    assert other == gpus, "it stood idle"
    assert outputs(result, instance)["on_gpu"]["devices"] == "0"


@pytest.fixture
def hoarder() -> Iterator[subprocess.Popen[str]]:
    """Another process that has the only device."""
    code = (
        "from resources.devices.gpu import find_gpus; from resources.devices.leases import *\n"
        "wanted = Request(1, run_id='greedy', step_key='hoards')\n"
        "assert LeaseBook().ask(wanted, find_gpus(1)).poll()\n"
        "print('held', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_WITHOUT_GPU", "left over in the environment of the run")


@pytest.mark.parametrize("how", ["config", "variable"])
def test_a_step_that_may_goes_on_without_a_gpu(
    left_over: None,
    instance: dg.DagsterInstance,
    hoarder: subprocess.Popen[str],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    config: dict[str, Any] = {"gpus": 1}
    if how == "config":
        config["degrade_after_s"] = 0.3
    else:
        monkeypatch.setenv("EGO_DEGRADE_AFTER_S", "0.3")
    run = Ran(executor_jobs.execute("degradable", instance, config=config), instance)
    steps = outputs(run.result, instance)
    assert steps["may_go_without"]["devices"] == ""
    why = steps["may_go_without"]["without"]
    assert why.startswith("no GPU was free within 0.3 s")
    assert f"GPU 0 (simulated) is held by hoards of run greedy, process {hoarder.pid}" in why
    assert f"Goes on without a GPU: {why}" in messages(run)
    assert "on the CPU, degraded" in messages(run)
    assert steps["comes_after"]["without"] == "", "it was told to a step that wanted no GPU"
    assert [c.step_key for c in LeaseBook().claims()] == ["hoards"], "it still waits"


def test_a_step_that_may_not_waits(
    instance: dg.DagsterInstance, hoarder: subprocess.Popen[str]
) -> None:
    config = {"gpus": 1, "degrade_after_s": 0.0, "lease_timeout_s": 0.5}
    run = Ran(
        executor_jobs.execute("pinned", instance, config=config, op_selection=["on_gpu"]), instance
    )
    assert run.errors["on_gpu"][0] == "LeaseTimeout"


# Sure ends.


def endless(mark: Path, how: str) -> dict[str, Any]:
    return {"ops": {"never_ends": {"config": {"mark": str(mark), "how": how}}}}


def start(
    home: Path,
    job: str,
    config: dict[str, Any],
    run_config: dict[str, Any],
    *before: str,
    is_forked: bool = True,
) -> subprocess.Popen[bytes]:
    """A run in a process and a process group of its own, with its own Dagster storage.

    is_forked: the server of its workers is; else it imports everything itself.
    """
    given = json.dumps({"config": config, "run_config": run_config})
    command = [sys.executable, executor_jobs.__file__, str(home), job, given, str(is_forked)]
    with prepare(home).open("ab") as log:
        return subprocess.Popen([*before, *command], stdout=log, stderr=log, start_new_session=True)


def prepare(home: Path) -> Path:
    """Make a folder of Dagster's. Returns the path of a log in it."""
    add_databases(home)
    # Capturing prints starts four processes a step, which is not what is tested here.
    (home / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\n"
        "compute_logs:\n"
        "  module: dagster._core.storage.noop_compute_log_manager\n"
        "  class: NoOpComputeLogManager\n"
    )
    return home / "log"


class ForkedRun(mp.context.ForkProcess):
    """As `start`, without importing everything once more: forked from the test's process."""

    def __init__(self, home: Path, job: str, **given: dict[str, Any]) -> None:
        super().__init__(target=self._execute, args=(prepare(home), home, job, given))
        self.start()

    @staticmethod
    def _execute(log: Path, home: Path, job: str, given: dict[str, Any]) -> None:
        os.setsid()
        sys.stdout = sys.stderr = log.open("a", buffering=1)
        for descriptor in (1, 2):
            os.dup2(sys.stdout.fileno(), descriptor)
        executor_jobs.execute_in(home, job, given, is_forked=True)

    def wait(self, limit_s: float) -> int | None:
        self.join(limit_s)
        return self.exitcode


def wait_for(what: Any, limit_s: float = 300) -> None:
    """The limit is for what never comes about, on however slow a machine."""
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("how", ["stuck", "busy"])
def test_a_step_in_native_code_is_killed_after_the_grace(
    instance: dg.DagsterInstance, tmp_path: Path, how: str
) -> None:
    mark = tmp_path / "mark"
    with Interrupter(mark.exists):
        result = executor_jobs.execute(
            "endless",
            instance,
            config=FOUR | {"cancel_grace_s": 0.5},
            run_config=endless(mark, how),
        )
    run = Ran(result, instance)
    assert run.errors["never_ends"] == ["WorkerKilled", None]
    assert "did not end within 0.5 s, and was killed" in messages(run)
    assert "never_reached" not in run.types
    assert not any(is_running(pid) for pid in json.loads(mark.read_text()))
    assert LeaseBook().claims() == []


def test_a_run_that_cannot_go_on_says_so_and_leaves_nothing_taken(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance.event_log_storage.set_concurrency_slots("scarce", 3)
    mark = tmp_path / "mark"

    def resting(pool: WorkerPool) -> list[Worker]:  # asked for in each round of the run's loop
        if mark.exists():
            raise OSError("no more of this")
        return []

    monkeypatch.setattr(WorkerPool, "resting", resting)
    config = FOUR | {"max_concurrent": 1}
    result = executor_jobs.execute("pooled", instance, config=config, run_config=taking(str(mark)))
    said = messages(Ran(result, instance))
    assert "The run cannot go on, so the steps that run are killed: taker" in said
    assert "no more of this" in said
    found = instance.event_log_storage.get_concurrency_info("scarce")
    assert [c.step_key for c in found.claimed_slots] == []
    assert LeaseBook().claims() == []


def test_without_a_proc_of_its_own_it_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end processes of others, whose numbers its own have in another namespace."""
    monkeypatch.setattr(gpu, "has_own_proc", lambda: False)
    with pytest.raises(dg.DagsterUnmetExecutorRequirementsError, match="--mount-proc"):
        gpu.GpuExecutor(None, None)  # type: ignore[arg-type]


@pytest.mark.chaos
@pytest.mark.parametrize("victim", ["worker", "server", "run", "group"])
def test_nothing_survives_a_sigkill(tmp_path: Path, victim: str) -> None:
    mark = tmp_path / "mark"
    run_config = endless(mark, "stuck")
    run = ForkedRun(tmp_path / "home", "endless", config=FOUR, run_config=run_config)
    wait_for(mark.exists)
    worker, child = json.loads(mark.read_text())
    server = psutil.Process(worker).ppid()
    assert len(LeaseBook().holders()) == 1
    if victim == "group":
        os.killpg(run.pid, signal.SIGKILL)
    else:
        os.kill({"worker": worker, "server": server, "run": run.pid}[victim], signal.SIGKILL)
    assert run.wait(300) != 0
    # A child that left the group goes with the worker, unless run and server are both shot.
    ours = [worker, server] + ([child] if victim != "group" else [])
    wait_for(lambda: not any(is_running(pid) for pid in ours))
    wait_for(lambda: LeaseBook().claims() == [])
    if is_running(child):
        os.kill(child, signal.SIGKILL)


@needs_namespaces
def test_a_run_whose_container_was_killed_is_ended_and_takes_no_place(tmp_path: Path) -> None:
    """No name of its processes says anything out here, and no item has heartbeats."""
    home, mark = tmp_path / "home", tmp_path / "mark"
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    process = start(home, "endless", FOUR, endless(mark, "stuck"), *apart)
    wait_for(mark.exists)
    ledger = Ledger.beside(tmp_path / "lake")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
        assert (end_lost_runs(instance, ledger), count_lost_runs(instance)) == ([], 0)
        process.kill()
        process.wait()
        wait_for(lambda: count_lost_runs(instance) == 1)
        assert end_lost_runs(instance, ledger) == [run.run_id]
        assert end_lost_runs(instance, ledger) == []
        assert RunLocks(home).run_ids() == []


def test_what_shows_a_steps_prints_does_not_outlive_it(tmp_path: Path) -> None:
    context = mp.get_context("fork")
    ours, theirs = context.Pipe()

    def step() -> None:
        with (
            (tmp_path / "shown").open("w") as stream,
            step_module._mirror(str(tmp_path / "prints"), stream) as (tail, _),
        ):
            theirs.send(tail)
            os.kill(os.getpid(), signal.SIGKILL)

    process = context.Process(target=step)
    process.start()
    tail = ours.recv()
    process.join()
    try:
        wait_for(lambda: not is_running(tail))
    finally:
        kill(tail, os.kill)


def crowd(folder: Path, steps: int) -> dict[str, Any]:
    own = {"config": {"folder": str(folder)}}
    return {"ops": {"many": {"config": {"steps": steps}}, "alone": own, "shared": own}}


def runs_at_work(folder: Path) -> set[str]:
    """The runs of a crowd that have had a device."""
    with suppress(FileNotFoundError):
        # The last line may not be whole yet.
        lines = (folder / "intervals").read_text().split("\n")[:-1]
        return {json.loads(line)[4] for line in lines}
    return set()


def check_intervals(folder: Path) -> list[list[Any]]:
    """No moment at which the shares of a device were more than it has."""
    intervals = [json.loads(line) for line in (folder / "intervals").read_text().splitlines()]
    for device in "0123":
        edges = sorted(
            edge
            for name, halves, began, ended, *_ in intervals
            if name == device
            for edge in ((began, halves), (ended, -halves))
        )
        edges.sort(key=lambda e: (e[0], e[1]))
        used = 0
        for _, change in edges:
            used += change
            assert used <= 2
    return intervals


HUNDRED = 50
"""Two GPU steps each: one with a device alone, one with half of one."""


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("runs", "steps"),
    [
        (2, HUNDRED),
        (6, 8),
        pytest.param(6, HUNDRED, marks=[pytest.mark.heavy, pytest.mark.timeout(1800)]),
    ],
)
def test_concurrent_runs_share_the_devices(tmp_path: Path, runs: int, steps: int) -> None:
    given = {"config": FOUR | {"max_concurrent": 3}, "run_config": crowd(tmp_path, steps)}
    started = [ForkedRun(tmp_path / str(n), "crowd", **given) for n in range(runs)]
    for n, run in enumerate(started):
        assert run.wait(1500) == 0, (tmp_path / str(n) / "log").read_text()[-3000:]
    assert not (tmp_path / "overlap").exists()
    intervals = check_intervals(tmp_path)
    assert len(intervals) == runs * steps * 2
    assert LeaseBook().claims() == []
    if steps == HUNDRED:
        check_nobody_was_shut_out(intervals)


def check_nobody_was_shut_out(intervals: list[list[Any]]) -> None:
    """Counted in steps of the others between two of a run's own: the machine may be slow."""
    order = [run_id for *_, run_id, _ in sorted(intervals, key=lambda i: i[2])]
    for run_id in set(order):
        ranks = [rank for rank, other in enumerate(order) if other == run_id]
        assert max(b - a for a, b in pairwise(ranks)) < 0.45 * len(order)


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("runs", "steps", "kills"),
    [
        (4, 8, 8),
        pytest.param(6, HUNDRED, 60, marks=[pytest.mark.heavy, pytest.mark.timeout(1800)]),
    ],
)
def test_concurrent_runs_while_processes_are_killed(
    tmp_path: Path, runs: int, steps: int, kills: int
) -> None:
    rng = random.Random(7)
    config = FOUR | {"max_concurrent": 2}
    # Two are killed themselves, and must not have ended by then.
    sizes = [4 * steps if n < 2 else steps for n in range(runs)]
    started = [
        ForkedRun(tmp_path / str(n), "crowd", config=config, run_config=crowd(tmp_path, size))
        for n, size in enumerate(sizes)
    ]
    survivors = started[2:]
    wait_for(lambda: len(runs_at_work(tmp_path)) == runs)
    for n in range(kills):  # workers, of any run: their steps are tried again
        time.sleep(0.2)
        holders = LeaseBook().holders()
        pids = [c.pid for c in holders if c.pid not in {r.pid for r in started}]
        if pids:
            kill(rng.choice(pids), os.kill)
        if n == kills // 4:
            kill(started[0].pid, os.kill)
            kill(started[1].pid, os.killpg)
    for run in started[:2]:
        assert run.wait(300) != 0
    for n, run in enumerate(survivors, 2):
        assert run.wait(1500) == 0, (tmp_path / str(n) / "log").read_text()[-3000:]
    assert not (tmp_path / "overlap").exists()
    check_intervals(tmp_path)
    wait_for(lambda: LeaseBook().claims() == [])


def kill(pid: int, how: Any) -> None:
    with suppress(ProcessLookupError):
        how(pid, signal.SIGKILL)


def test_the_cancelled_run_of_the_ui_is_cancelled(tmp_path: Path) -> None:
    """As its launcher does it: the run is marked, then its process is interrupted."""
    mark = tmp_path / "mark"
    home = tmp_path / "home"
    config = FOUR | {"cancel_grace_s": 0.5}
    run = start(home, "endless", config, endless(mark, "stuck"), is_forked=False)
    wait_for(mark.exists)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (record,) = instance.get_run_records()
        instance.report_run_canceling(record.dagster_run)
        run.send_signal(signal.SIGTERM)
        assert run.wait(300) == 1
        (record,) = instance.get_run_records()
    assert record.dagster_run.status is dg.DagsterRunStatus.CANCELED
    assert not any(is_running(pid) for pid in json.loads(mark.read_text()))
    assert LeaseBook().claims() == []


def test_the_doctor_says_who_has_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EGO_FAKE_GPUS", "2")
    book, gpus = LeaseBook(), find_gpus(2)
    held = book.ask(Request(1, run_id="0123456789", step_key="hand_poses"), gpus)
    half = book.ask(Request(0.5, run_id="r", step_key="masks"), gpus)
    big = book.ask(Request(2, run_id="r", step_key="big"), gpus)
    assert held.poll()
    assert half.poll()
    assert not big.poll()
    half.rest()
    found = {f.what: f.facts for f in examine(str(tmp_path)) if f.what.startswith("GPU")}
    assert "1 used by hand_poses of run 01234567 (process" in found["GPU 0"]
    assert "0.5 kept warm by masks of run r" in found["GPU 1"]
    assert "1 steps wait for a GPU" in found["GPU queue"]
    assert "next is big of run r" in found["GPU queue"]
    for lease in (held, half, big):
        lease.release()
    found = {f.what: f.facts for f in examine(str(tmp_path)) if f.what.startswith("GPU")}
    assert found == {f"GPU {i}": "simulated, 80 GB; free" for i in range(2)}


def test_it_is_the_default() -> None:
    from dagster_project.definitions import defs

    job = defs.resolve_job_def("whole_graph")
    assert job.executor_def.name == gpu_executor.name == "gpu"
