"""The executor `gpu`: steps of a run in warm worker processes, each pinned to leased devices.

Here: Dagster's side: the order of events, starting, retries, cancelling. Not here: what steps need
(`step_needs`), their wait for devices (`device_queue`, and below it `resources.gpu_leases`),
processes (`worker_pool`, `worker_server`).

This is the one module that touches `dagster._core`. The version is pinned exactly, and
`tests/dagster_project/test_executor_contract.py` says which private names it leans on.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterSubprocessError
from dagster._core.events import EngineEventData
from dagster._core.execution import compute_logs
from dagster._core.execution.api import create_execution_plan, execute_plan_iterator
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.context_creation_job import create_context_free_log_manager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep, IExecutionStep
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.execution.step_dependency_config import (
    StepDependencyConfig,
    get_step_dependency_config_field,
)
from dagster._core.execution.tags import get_tag_concurrency_limits_config
from dagster._utils.error import SerializableErrorInfo, serializable_error_info_from_exc_info
from dagster._utils.interrupts import capture_interrupts

from dagster_project.executors.device_queue import DeviceQueue, LeaseTimeoutError, Place
from dagster_project.executors.step_devices import steps_without_device
from dagster_project.executors.step_needs import (
    DAGSTER_PRIORITY,
    ImpossibleNeedsError,
    StepNeeds,
    needs_of,
    run_priority,
)
from dagster_project.executors.worker_pool import Died, Worker, WorkerPool, WorkerServerError
from dagster_project.executors.worker_server import Finished, Task, Told, pop_early_interrupt
from ego_assets.operators.temporary import leave_folder_of_program
from resources.gpu import degrade_after_s, find_gpus, go_without_gpu
from resources.processes import RUN_TAG, has_own_proc, machine, run_tag
from resources.processes.run_locks import RunLocks

STEP = "dagster_project.executors.gpu:run_step"
TICK_S = 0.1
QUEUE_TICK_S = 0.05
SHOW_TICK_S = 0.1
SHOWING_S = 5.0
"""How long a step waits at its end for whoever reads the run's output."""
KILLED = "WorkerKilled"
INTERRUPTS = {"DagsterExecutionInterruptedError", "KeyboardInterrupt", KILLED}


@dataclass(frozen=True)
class StepCommand:
    """All that a worker needs to know of a step."""

    step_key: str
    job: Any
    run: Any
    run_config: Mapping[str, object]
    instance_ref: bytes
    retry_mode: RetryMode
    known_state: KnownExecutionState | None
    load_data: Any
    place: str
    without_gpu: str


@dataclass(frozen=True)
class Broke:
    """The step ended outside of what Dagster knows to be a step's failure."""

    error: SerializableErrorInfo


@lru_cache(maxsize=1)
def _instance(pickled_ref: bytes) -> dg.DagsterInstance:
    """Kept open from step to step: opening the storages takes longer than a small step."""
    return dg.DagsterInstance.from_ref(pickle.loads(pickled_ref))  # noqa: S301  (our own run's)


def run_step(command: StepCommand, tell: Callable[[Any], None]) -> bool:
    """Do one step in this worker and tell its events; whether the step succeeded."""
    succeeded = False
    go_without_gpu(command.without_gpu)
    show_prints_without_processes()
    with capture_interrupts():
        if pop_early_interrupt():
            signal.raise_signal(signal.SIGINT)
        try:
            for event in _events_of_step(command):
                tell(event)
                succeeded = succeeded or event.is_step_success
        except (Exception, KeyboardInterrupt, DagsterExecutionInterruptedError):
            tell(Broke(serializable_error_info_from_exc_info(sys.exc_info())))
            return False
    return succeeded


@contextmanager
def _mirror(path: str, stream: Any) -> Iterator[tuple[int, None]]:
    """Shows a step's captured prints in the run's own output, as Dagster's function does.

    That starts `tail`, and an interpreter beside it to end it should we die, both twice a step,
    which is most of what a warm step would cost; and if the interpreter is killed, too, `tail`
    stays for ever. A thread costs less, and cannot outlive us.
    """
    output = compute_logs._fileno(stream)
    over = threading.Event()
    try:
        copy = os.dup(1 if output is None else output)
    except OSError:  # closed
        copy = os.open(os.devnull, os.O_WRONLY)
    thread = threading.Thread(target=_show, args=(path, copy, over), name="prints", daemon=True)
    thread.start()
    try:
        yield os.getpid(), None
    finally:
        over.set()
        thread.join(SHOWING_S)


def _show(path: str, output: int, over: threading.Event) -> None:
    """Copy what is written to a file, until it is over and all of it was copied."""
    try:
        with open(path, "rb", buffering=0) as prints:  # noqa: PTH123
            while True:
                is_over = over.wait(SHOW_TICK_S)
                while block := prints.read(65536):
                    while block:
                        block = block[os.write(output, block) :]
                if is_over:
                    return
    except OSError:
        pass  # nobody listens
    finally:
        os.close(output)


def show_prints_without_processes() -> None:
    """Have Dagster show the prints of this process' steps as `_mirror` does."""
    compute_logs.execute_posix_tail = _mirror


def _events_of_step(command: StepCommand) -> Iterator[dg.DagsterEvent]:
    instance = _instance(command.instance_ref)
    yield dg.DagsterEvent.step_worker_started(
        create_context_free_log_manager(instance, command.run),
        command.run.job_name,
        message=f'Executing step "{command.step_key}" in worker {os.getpid()} on {command.place}.',
        metadata={
            "pid": dg.MetadataValue.text(str(os.getpid())),
            "devices": dg.MetadataValue.text(command.place),
        },
        step_key=command.step_key,
    )
    plan = create_execution_plan(
        command.job,
        run_config=command.run_config,
        step_keys_to_execute=[command.step_key],
        known_state=command.known_state,
        repository_load_data=command.load_data,
    )
    yield from execute_plan_iterator(
        plan,
        command.job,
        command.run,
        run_config=command.run_config,
        retry_mode=command.retry_mode.for_inner_plan(),
        instance=instance,
    )


@dataclass
class _Step:
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
        yield from _Run(self, plan_context, execution_plan).events()


class _Pools(InstanceConcurrencyContext):
    """Dagster's pools, of which a step takes a slot only when the run could start it at once."""

    room = 0

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        if self.room <= 0 or not super().claim(concurrency_key, step_key, step_priority):
            return False
        self.room -= 1
        return True


class _Run:
    """One run: steps that wait, steps that run, and the loop between them."""

    def __init__(
        self, executor: GpuExecutor, context: PlanOrchestrationContext, plan: ExecutionPlan
    ) -> None:
        self.executor = executor
        self.settings = executor.settings
        self.context = context
        self.plan = plan
        self.instance_ref = pickle.dumps(context.instance.get_ref())
        self.slots = self.settings.max_concurrent or machine.cpus()
        self.cpus = float(machine.cpus())
        self.devices = DeviceQueue(
            context.run_id,
            run_priority(context.dagster_run.tags),
            simulated=self.settings.gpus,
            timeout_s=self.settings.lease_timeout_s,
            degrade_after_s=self.settings.degrade_after_s,
        )
        self.waiting: list[_Step] = []
        self.running: dict[int, _Step] = {}  # by the worker's process id
        self.errors: list[SerializableErrorInfo] = []
        self.stopping_since: float | None = None
        self.without_device: dict[str, str] = {}

    def events(self) -> Iterator[dg.DagsterEvent]:
        """Everything from the first look at the machine to the last worker's end."""
        began = time.monotonic()
        run_id = self.context.dagster_run.run_id
        leave_folder_of_program()
        if lock := RunLocks(self.context.instance.root_directory).take(run_id):
            # Dagster has yet to write how the run ended when the last event is out.
            weakref.finalize(self.context, lock.release)
        self.context.instance.add_run_tags(run_id, {RUN_TAG: run_tag(run_id)})
        yield dg.DagsterEvent.engine_event(
            self.context,
            f"Executing steps in warm workers (run process {os.getpid()})",
            EngineEventData.multiprocess(os.getpid(), self.plan.step_keys_to_execute),
        )
        keys = self.plan.step_keys_to_execute
        for words in self._look_at_choices():
            yield self._say(words)
        needs = {key: self._needs(self.plan.get_step_by_key(key)) for key in keys}
        for words in self.devices.look_around(needs):
            yield self._say(words)
        with ExitStack() as stack:
            self.pools = stack.enter_context(
                _Pools(self.context.instance, self.context.dagster_run)
            )
            self.active = stack.enter_context(
                ActiveExecution(
                    self.plan,
                    retry_mode=self.executor.retries,
                    tag_concurrency_limits=self.executor.tag_concurrency_limits,
                    instance_concurrency_context=self.pools,
                    step_dependency_config=self.executor.step_dependency_config,
                )
            )
            stack.callback(self._free_everything)
            self.pool = stack.enter_context(self._make_pool())
            try:
                yield from self._loop()
            except Exception:
                if self.running:
                    error = serializable_error_info_from_exc_info(sys.exc_info())
                    running = ", ".join(s.key for s in self.running.values())
                    yield dg.DagsterEvent.engine_event(
                        self.context,
                        f"The run cannot go on, so the steps that run are killed: {running}",
                        EngineEventData.engine_error(error),
                    )
                raise
            yield from self._end()
        yield dg.DagsterEvent.engine_event(
            self.context,
            f"Run process {os.getpid()} exits after {time.monotonic() - began:.1f} s",
            EngineEventData.multiprocess(os.getpid()),
        )

    def _loop(self) -> Iterator[dg.DagsterEvent]:
        while (self.stopping_since is None and not self.active.is_complete) or self.running:
            yield from self._watch_for_stop()
            yield from self._launch()
            for worker, message in self.pool.wait(self._patience_s()):
                yield from self._handle(worker, message)
            yield from self.active.plan_events_iterator(self.context)

    def _needs(self, step: IExecutionStep) -> StepNeeds:
        found = needs_of(step.key, step.tags or {}, self.settings.default_needs)
        if step.key in self.without_device:
            return replace(found, gpus=0.0, gpu_memory_gb=0.0, degrades=False)
        return found

    def _look_at_choices(self) -> list[str]:
        """Find the steps that ask for a device and whose backends have no use of one."""
        asking = [k for k in self.plan.step_keys_to_execute if self._asks_for_device(k)]
        if not asking or not find_gpus(self.settings.gpus):
            return []
        job, run = self.context.reconstructable_job.get_definition(), self.context.dagster_run
        try:
            self.without_device = steps_without_device(job, run, self.context.instance, asking)
        except Exception as error:  # the step itself says what is wrong, and better
            return [f"What computes on a device cannot be told ({error}): all tags hold"]
        return [
            f"{key} takes no device: {names} computes on the CPU"
            for key, names in self.without_device.items()
        ]

    def _asks_for_device(self, key: str) -> bool:
        return self._needs(self.plan.get_step_by_key(key)).gpus > 0

    def _make_pool(self) -> WorkerPool:
        pointer = self.context.reconstructable_job.get_python_origin().get_repo_pointer()
        modules = self.settings.preload_modules
        if modules is None:
            modules = [pointer.module] if isinstance(pointer, ModuleCodePointer) else []
        folder = getattr(pointer, "working_directory", None)
        return WorkerPool(
            STEP,
            modules,
            path=[folder] if folder else [],
            size=self.slots,
            steps_per_worker=self.settings.steps_per_worker,
            growth_mb=self.settings.worker_growth_mb,
        )

    def _say(self, words: str) -> dg.DagsterEvent:
        return dg.DagsterEvent.engine_event(self.context, words, EngineEventData())

    # The end: wanted, or after the last step.

    def _watch_for_stop(self) -> Iterator[dg.DagsterEvent]:
        """Interrupt the steps when the run is to stop, and kill them when that does not help."""
        grace_s = self.settings.cancel_grace_s
        if self.active.check_for_interrupts() and self.stopping_since is None:
            self.stopping_since = time.monotonic()
            self.active.mark_interrupted()
            self._leave_the_queue()
            yield dg.DagsterEvent.engine_event(
                self.context,
                "Received a termination signal: interrupting the steps that run, which have "
                f"{grace_s:g} s to end",
                EngineEventData.interrupted([s.key for s in self.running.values()]),
            )
            for step in self.running.values():
                _worker(step).interrupt()
        if self.stopping_since is not None and time.monotonic() - self.stopping_since > grace_s:
            for step in self.running.values():
                if not step.killed:
                    step.killed = True
                    _worker(step).kill()

    def _leave_the_queue(self) -> None:
        for step in self.waiting:
            self.pools.free_step(step.key)
            self.devices.leave(step.place)
        self.waiting.clear()

    def _free_everything(self) -> None:
        """After the last worker's end, whatever the end of the run."""
        for step in self.running.values():
            self.pools.free_step(step.key)
        self._leave_the_queue()

    def _end(self) -> Iterator[dg.DagsterEvent]:
        """Raises what the stock executor would."""
        if self.stopping_since is not None and all(e.cls_name in INTERRUPTS for e in self.errors):
            yield self._say("Every step that ran has ended after the interrupt")
            raise DagsterExecutionInterruptedError
        if self.errors:
            raise DagsterSubprocessError(
                "Errors in workers:\n" + "\n".join(e.to_string() for e in self.errors),
                subprocess_error_infos=self.errors,
            )

    # Starting steps.

    def _patience_s(self) -> float:
        """How long the loop may sleep if no worker says anything."""
        if self.devices.waiting:
            return QUEUE_TICK_S
        until_retry = self.active.sleep_interval()
        return min(TICK_S, until_retry) if until_retry > 0 else TICK_S

    def _launch(self) -> Iterator[dg.DagsterEvent]:
        """Start what can be started. A step that waits for a device takes no slot from others."""
        if self.stopping_since is not None or not self.pool.ready:
            return
        while self.pool.unloaded:
            module, why = self.pool.unloaded.popitem()
            yield self._say(f"{module} is not preloaded, which makes workers start late: {why}")
        yield from self._take_in()
        if any(self.devices.serves(s.place.needs) for s in self.waiting):
            for words in self.devices.look_again():
                yield self._say(words)
        for worker in self.pool.resting():
            if worker.lease and self.devices.wants_back(worker.lease):
                self.pool.retire(worker)
        can_start = True
        for step in list(self.waiting):
            # Smaller ones do not pass the first in line, or it might wait for ever.
            can_start = can_start and self._has_room_for(step)
            if not can_start:
                self.devices.look_away(step.place)
            elif self.devices.serves(step.place.needs):
                yield from self._start_on_gpu(step)
            else:
                yield from self._start(step)

    def _take_in(self) -> Iterator[dg.DagsterEvent]:
        """The steps that are ready, to those that wait; by their priority."""
        claimed = sum(s.key in self.pools._claims for s in self.waiting)
        self.pools.room = self.slots - len(self.running) - claimed
        for step in self.active.get_steps_to_execute():
            place = Place(step.key, self._needs(step))
            self.waiting.append(_Step(step, self.context.for_step(step), place))
        self.waiting.sort(key=lambda s: -int(s.step.tags.get(DAGSTER_PRIORITY, 0)))
        yield from self.active.concurrency_event_iterator(self.context)

    def _has_room_for(self, step: _Step) -> bool:
        free_cpus = self.cpus - sum(self._cpus(s) for s in self.running.values())
        return len(self.running) < self.slots and self._cpus(step) <= free_cpus

    def _cpus(self, step: _Step) -> float:
        """A step that wants more CPUs than there are gets all."""
        return min(step.place.needs.cpus, self.cpus)

    def _start_on_gpu(self, step: _Step) -> Iterator[dg.DagsterEvent]:
        """If it is its turn; it may also have waited long enough."""
        if not self.devices.may_ask(step.place, self.slots - len(self.running)):
            return
        try:
            turn = self.devices.turn(
                step.place,
                resting=self.pool.resting(),
                warm=self.pool.idle_devices(),
                at_work=any(s.place.lease for s in self.running.values()),
            )
        except (ImpossibleNeedsError, LeaseTimeoutError) as error:
            self.waiting.remove(step)
            name = type(error).__name__.removesuffix("Error")
            yield from self._fail_or_retry(step, _error(name, str(error)))
            return
        if turn.say:
            yield dg.DagsterEvent.engine_event(step.context, turn.say, EngineEventData())
        if turn.go:
            yield from self._start(step)

    def _start(self, step: _Step) -> Iterator[dg.DagsterEvent]:
        self.waiting.remove(step)
        place = step.place
        yield dg.DagsterEvent.step_worker_starting(
            step.context,
            f'Launching step "{step.key}" on {place}.',
            metadata={"devices": dg.MetadataValue.text(str(place))},
        )
        try:
            worker = place.worker or self.pool.take(place.visible_devices)
        except WorkerServerError as error:
            place.leave()
            yield from self._fail_or_retry(step, _error("WorkerDied", str(error)))
            return
        step.worker, worker.lease = worker, place.lease
        self.running[worker.pid] = step
        if place.lease:
            place.lease.note(worker.pid)
        command = StepCommand(
            step_key=step.key,
            job=self.context.reconstructable_job,
            run=step.context.dagster_run,
            run_config=step.context.run_config,
            instance_ref=self.instance_ref,
            retry_mode=self.executor.retries,
            known_state=self.active.get_known_state(),
            load_data=self.plan.repository_load_data,
            place=str(place),
            without_gpu=place.without_gpu,
        )
        worker.give(Task(command, place.lease.path if place.lease else None))

    # What workers say.

    def _handle(self, worker: Worker, message: Any) -> Iterator[dg.DagsterEvent]:
        step = self.running.get(worker.pid)
        if step is None:
            return  # an idle worker ended
        if isinstance(message, Told):
            if isinstance(message.what, Broke):
                self.errors.append(message.what.error)
            else:
                yield from self._pass_on(step, message.what)
            return
        # A step is over when its worker is: before that neither may be used again.
        del self.running[worker.pid]
        if isinstance(message, Finished) and (why := self.pool.put_back(worker, message)):
            self.context.log.debug(f"Worker {worker.pid} is not used again: {why}.")
        if step.outcome is not None:
            self.active.handle_event(step.outcome)
        elif step.init_error is not None:
            yield from self._fail_or_retry(step, step.init_error, breaks_run=False)
        elif isinstance(message, Died):
            yield from self._report_death(step, worker, message.how)
        else:
            self.active.verify_complete(self.context, step.key)

    def _pass_on(self, step: _Step, event: dg.DagsterEvent) -> Iterator[dg.DagsterEvent]:
        yield event
        if event.is_step_success or event.is_step_failure or event.is_step_up_for_retry:
            step.outcome = event
            return
        self.active.handle_event(event)
        if event.is_resource_init_failure:
            assert isinstance(event.event_specific_data, EngineEventData)
            step.init_error = event.event_specific_data.error

    def _report_death(self, step: _Step, worker: Worker, how: str) -> Iterator[dg.DagsterEvent]:
        who = f"the worker {worker.pid} of step {step.key} on {step.place}"
        if step.killed:
            grace_s = self.settings.cancel_grace_s
            error = _error(KILLED, f"{who} did not end within {grace_s:g} s, and was killed")
        else:
            error = _error("WorkerDied", f"{who} {how}")
        yield dg.DagsterEvent.engine_event(
            step.context, error.message, EngineEventData.engine_error(error)
        )
        yield from self._fail_or_retry(step, error)

    def _fail_or_retry(
        self, step: _Step, error: SerializableErrorInfo, *, breaks_run: bool = True
    ) -> Iterator[dg.DagsterEvent]:
        """As the step's retry policy says, but a run that is stopping tries nothing again."""
        if self.stopping_since is None:
            event = self.executor.log_failure_or_retry_event_after_error(
                step.context, error, self.active.get_known_state()
            )
        else:
            data = StepFailureData(error=error, user_failure_data=None)
            event = dg.DagsterEvent.step_failure_event(step.context, data)
        self.active.handle_event(event)
        yield event
        if event.is_step_failure and breaks_run:
            self.errors.append(error)


def _worker(step: _Step) -> Worker:
    assert step.worker is not None
    return step.worker


def _error(name: str, words: str) -> SerializableErrorInfo:
    return SerializableErrorInfo(message=words, stack=[], cls_name=name)


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
        "have one, or it could not start for want of slots or CPUs, it waits. By default it always "
        "does.",
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
