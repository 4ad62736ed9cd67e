"""Runs the steps of one run: the order of events, starting, retries, cancelling.

Here: Dagster's side of a run. Not here: what steps need (`step_needs`), their wait for devices
(`device_queue`, and below it `resources.devices.leases`), processes (`worker_pool`,
`worker`), configuration (`gpu`).
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.errors import DagsterExecutionInterruptedError, DagsterSubprocessError
from dagster._core.events import EngineEventData
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.step import IExecutionStep
from dagster._utils.error import SerializableErrorInfo, serializable_error_info_from_exc_info

from dagster_project.executors.device_queue import DeviceQueue, LeaseTimeoutError, Place
from dagster_project.executors.step import STEP, Broke, StepCommand
from dagster_project.executors.step_devices import steps_without_device
from dagster_project.executors.step_needs import (
    DAGSTER_PRIORITY,
    ImpossibleNeedsError,
    StepNeeds,
    needs_of,
    run_priority,
)
from dagster_project.executors.step_state import Pools, StepState, error_of, worker_of
from dagster_project.executors.worker import Finished, Task, Told
from dagster_project.executors.worker_pool import Died, Worker, WorkerPool
from resources.devices.gpu import find_gpus
from resources.processes import RUN_TAG, machine, run_tag
from resources.processes.fork_server import ForkServerError
from resources.processes.owned_folders import leave_folder_of_program
from resources.processes.run_locks import RunLocks

if TYPE_CHECKING:
    from dagster_project.executors.gpu import GpuExecutor

TICK_S = 0.1
QUEUE_TICK_S = 0.05
KILLED = "WorkerKilled"
INTERRUPTS = {"DagsterExecutionInterruptedError", "KeyboardInterrupt", KILLED}


class RunLoop:
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
        self.waiting: list[StepState] = []
        self.running: dict[int, StepState] = {}  # by the worker's process id
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
            self.pools = stack.enter_context(Pools(self.context.instance, self.context.dagster_run))
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
                worker_of(step).interrupt()
        if self.stopping_since is not None and time.monotonic() - self.stopping_since > grace_s:
            for step in self.running.values():
                if not step.killed:
                    step.killed = True
                    worker_of(step).kill()

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
        while self.pool.server.unloaded:
            module, why = self.pool.server.unloaded.popitem()
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
            self.waiting.append(StepState(step, self.context.for_step(step), place))
        self.waiting.sort(key=lambda s: -int(s.step.tags.get(DAGSTER_PRIORITY, 0)))
        yield from self.active.concurrency_event_iterator(self.context)

    def _has_room_for(self, step: StepState) -> bool:
        free_cpus = self.cpus - sum(self._cpus(s) for s in self.running.values())
        return len(self.running) < self.slots and self._cpus(step) <= free_cpus

    def _cpus(self, step: StepState) -> float:
        """A step that wants more CPUs than there are gets all."""
        return min(step.place.needs.cpus, self.cpus)

    def _start_on_gpu(self, step: StepState) -> Iterator[dg.DagsterEvent]:
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
            yield from self._fail_or_retry(step, error_of(name, str(error)))
            return
        if turn.say:
            yield dg.DagsterEvent.engine_event(step.context, turn.say, EngineEventData())
        if turn.go:
            yield from self._start(step)

    def _start(self, step: StepState) -> Iterator[dg.DagsterEvent]:
        self.waiting.remove(step)
        place = step.place
        yield dg.DagsterEvent.step_worker_starting(
            step.context,
            f'Launching step "{step.key}" on {place}.',
            metadata={"devices": dg.MetadataValue.text(str(place))},
        )
        try:
            worker = place.worker or self.pool.take(place.visible_devices)
        except ForkServerError as error:
            place.leave()
            yield from self._fail_or_retry(step, error_of("WorkerDied", str(error)))
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

    def _pass_on(self, step: StepState, event: dg.DagsterEvent) -> Iterator[dg.DagsterEvent]:
        yield event
        if event.is_step_success or event.is_step_failure or event.is_step_up_for_retry:
            step.outcome = event
            return
        self.active.handle_event(event)
        if event.is_resource_init_failure:
            assert isinstance(event.event_specific_data, EngineEventData)
            step.init_error = event.event_specific_data.error

    def _report_death(self, step: StepState, worker: Worker, how: str) -> Iterator[dg.DagsterEvent]:
        who = f"the worker {worker.pid} of step {step.key} on {step.place}"
        if step.killed:
            grace_s = self.settings.cancel_grace_s
            error = error_of(KILLED, f"{who} did not end within {grace_s:g} s, and was killed")
        else:
            error = error_of("WorkerDied", f"{who} {how}")
        yield dg.DagsterEvent.engine_event(
            step.context, error.message, EngineEventData.engine_error(error)
        )
        yield from self._fail_or_retry(step, error)

    def _fail_or_retry(
        self, step: StepState, error: SerializableErrorInfo, *, breaks_run: bool = True
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
